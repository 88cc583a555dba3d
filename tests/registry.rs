//! Plugins that clients bring: what becomes of an upload, whose it is, and that neither a death of the server nor a crowd of
//! hostile uploads loses or leaves anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use specula_tests::{CHAT, Folder, METHODS, Reply, Server, question, until, with};
use tokio::task::JoinSet;

/// A shipped plugin's file.
fn shipped(name: &str) -> Vec<u8> {
    let path = specula_guests::root().join("target/dist/plugins").join(name).with_extension("wasm");
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A plugin that is like another but for a custom section, so that its digest is its own.
fn variant(file: &[u8], mark: u32) -> Vec<u8> {
    let mut file = file.to_vec();
    file.extend([0, 6, 1, b'm']);
    file.extend(mark.to_le_bytes());
    file
}

struct Registry {
    server: Server,
    folder: Arc<Folder>,
}

impl Registry {
    fn start(args: &[&str]) -> Self {
        Self::on(Arc::new(Folder::new()), args)
    }

    fn on(folder: Arc<Folder>, args: &[&str]) -> Self {
        let server = Server::start(&[&["--data", folder.text()], args].concat());
        Self { server, folder }
    }

    async fn ask(&self, method: Method, path: &str, key: Option<&str>, body: Option<Vec<u8>>) -> Reply {
        let mut request = self.server.request(method, &format!("/v1/plugins{path}"));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/wasm").body(body);
        }
        self.server.send(request).await
    }

    async fn put(&self, name: &str, file: Vec<u8>) -> Reply {
        self.ask(Method::PUT, &format!("/{name}"), None, Some(file)).await
    }

    async fn list(&self, key: Option<&str>) -> BTreeMap<String, Value> {
        let list = self.ask(Method::GET, "", key, None).await.json();
        let cards = list["data"].as_array().expect("cards").iter();
        cards.map(|card| (card["name"].as_str().expect("a name").to_owned(), card.clone())).collect()
    }
}

fn plugged(name: &str, config: Value) -> Value {
    with(&question(0), json!({"temperature": 1.0, "plugins": [{"name": name, "config": config}]}))
}

fn code(reply: &Reply) -> (u16, String) {
    (reply.status, reply.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn an_upload_is_examined_listed_and_used_at_once_in_every_method() {
    let registry = Registry::start(&[]);
    let file = shipped("min-p");
    let reply = registry.put("floor", file.clone()).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let card = reply.json();
    assert_eq!(
        (&card["kinds"], &card["owner"], &card["visibility"]),
        (&json!(["sampling"]), &json!("local"), &json!("private"))
    );
    assert_eq!((&card["versions"][0]["version"], &card["bytes"]), (&json!(1), &json!(file.len())));
    let report = &card["report"];
    assert!(report["interfaces"].as_array().is_some_and(|all| all.contains(&json!("specula:policy/sampling@0.1.0"))));
    let costs = report["costs"].as_array().expect("costs");
    let adjust = costs.iter().find(|cost| cost["function"] == "adjust").expect("it was called");
    assert!(adjust["fuel"].as_u64().is_some_and(|fuel| fuel > 0) && adjust["calls"].as_u64() > Some(3), "{adjust}");
    assert!(report.get("stamp").is_none(), "a sampling rule departs from nothing");
    assert_eq!(registry.list(None).await["floor"], card);

    let by_name = registry.server.whole(CHAT, &plugged("min-p", json!({"min_p": 0.3}))).await;
    for method in METHODS {
        let request = with(&plugged("floor", json!({"min_p": 0.3})), json!({"speculation": {"method": method}}));
        assert_eq!(registry.server.whole(CHAT, &request).await.text, by_name.text, "{method}");
    }
    // Whoever reads the metrics learns no name of an upload.
    let metrics = registry.server.get("/metrics").await;
    let line = |line: &&str| line.starts_with("specula_plugin_calls_total{");
    let labels: Vec<&str> = metrics.text().lines().filter(line).filter_map(|line| line.split('"').nth(1)).collect();
    assert_eq!(labels, ["min-p", "(uploaded)"]);

    let wasm = registry.server.request(Method::GET, "/v1/plugins/floor").header("accept", "application/wasm");
    let wasm = registry.server.send(wasm).await;
    assert_eq!((wasm.header("content-type"), wasm.body == file), (Some("application/wasm"), true));
    // A core module is wrapped; its stamp tells that it never deviated.
    let wrapped = registry.put("careful", specula_guests::plugin("well-behaved")).await;
    assert_eq!(wrapped.status, 201, "{}", wrapped.text());
    let stamp = &wrapped.json()["report"]["stamp"];
    assert_eq!(
        (&stamp["stamp"], &stamp["deviation"], &stamp["total_variation"]),
        (&json!("exact"), &json!(0.0), &json!(0.0))
    );
    let lossy = registry.put("loose", shipped("typical")).await.json();
    let stamp = &lossy["report"]["stamp"];
    assert_eq!(stamp["stamp"], "lossy", "{lossy}");
    assert!(
        stamp["deviation"].as_f64() > stamp["total_variation"].as_f64()
            && stamp["total_variation"].as_f64() > Some(0.0)
    );
}

#[tokio::test]
async fn versions_are_kept_pinned_and_removed_while_requests_go_on_with_theirs() {
    let registry = Registry::start(&[]);
    let (first, second) = (shipped("min-p"), specula_guests::plugin("bias-nan"));
    let one = registry.put("rule", first.clone()).await.json();
    assert_eq!(registry.put("rule", first).await.status, 200, "the same again is no new version");
    // It fails at work: refused, and the name means what it meant.
    assert_eq!(code(&registry.put("rule", second).await), (422, "self-test-failed".to_owned()));
    let two = registry.put("rule", shipped("balanced-json")).await.json();
    assert_eq!(two["versions"].as_array().map(Vec::len), Some(2));

    let long = json!({"max_tokens": 200, "ignore_eos": true});
    let pinned = |pin: &str| with(&plugged(&format!("rule@{pin}"), json!({"min_p": 0.3})), long.clone());
    let alone = registry.server.whole(CHAT, &pinned("1")).await;
    let digest = one["digest"].as_str().expect("a digest");
    assert_eq!(registry.server.whole(CHAT, &pinned(digest)).await.text, alone.text);
    for wrong in ["3", "sha256:00"] {
        let reply = registry.server.post(CHAT, &pinned(wrong)).await;
        assert_eq!(code(&reply), (400, "unknown_plugin".to_owned()), "{wrong}");
    }
    let card = registry.ask(Method::GET, "/rule@1", None, None).await.json();
    assert_eq!((&card["digest"], &card["kinds"]), (&one["digest"], &json!(["sampling"])));

    let running = registry.server.open(CHAT, &pinned("1")).await;
    assert_eq!(registry.ask(Method::DELETE, "/rule@1", None, None).await.status, 200);
    assert_eq!(code(&registry.server.post(CHAT, &pinned("1")).await).1, "unknown_plugin");
    let gone = registry.ask(Method::DELETE, "/rule", None, None).await.json();
    assert_eq!(gone, json!({"id": "rule", "object": "plugin.deleted", "deleted": true}));
    assert_eq!(running.finish().await.answer.text, alone.text, "it keeps what it opened");
    assert!(!registry.list(None).await.contains_key("rule"));
    assert_eq!(code(&registry.ask(Method::DELETE, "/rule", None, None).await), (404, "unknown-plugin".to_owned()));
    let left = std::fs::read_dir(registry.folder.path().join("blobs")).expect("the store").count();
    assert_eq!(left, 0, "no file without a name");
}

#[tokio::test]
async fn what_is_no_plugin_is_refused_with_the_check_it_fails() {
    let registry = Registry::start(&[]);
    let shipped_alone = registry.list(None).await;
    for (guest, status, want) in [
        ("wasi-import", 422, "import-not-allowed"),
        ("core-module", 422, "export-missing"),
        ("threads", 422, "feature-not-allowed"),
        ("next-version", 422, "version-unknown"),
        ("many-memories", 422, "structure-limit"),
        ("wrong-shape", 422, "interface-mismatch"),
        ("loop-in-judge", 422, "self-test-failed"),
        ("loop-in-open", 422, "self-test-failed"),
        ("memory-bomb", 422, "self-test-failed"),
    ] {
        let reply = registry.put("guest", specula_guests::plugin(guest)).await;
        assert_eq!(code(&reply), (status, want.to_owned()), "{guest}: {}", reply.text());
    }
    assert_eq!(code(&registry.put("guest", b"(component)".to_vec()).await), (422, "text-format".to_owned()));
    assert_eq!(code(&registry.put("guest", Vec::new()).await), (422, "not-a-component".to_owned()));
    assert_eq!(code(&registry.put("guest", vec![0; (4 << 20) + 1]).await).0, 413);
    assert_eq!(code(&registry.put("Guest", shipped("min-p")).await), (400, "bad-name".to_owned()));
    assert_eq!(code(&registry.put("min-p", shipped("min-p")).await), (409, "name-taken".to_owned()));
    let odd = registry.put("guest?visibilty=shared", shipped("min-p")).await;
    assert_eq!(code(&odd), (400, "unknown_field".to_owned()));
    let json = registry.server.request(Method::PUT, "/v1/plugins/guest").header("content-type", "application/json");
    assert_eq!(registry.server.send(json.body("{}")).await.status, 415);
    assert_eq!(code(&registry.ask(Method::GET, "/guest", None, None).await), (404, "unknown_plugin".to_owned()));
    assert_eq!(registry.list(None).await, shipped_alone, "none of them is there");
    let without = Server::start(&[]);
    let put = without.request(Method::PUT, "/v1/plugins/a").header("content-type", "application/wasm");
    assert_eq!(code(&without.send(put.body(shipped("min-p"))).await), (403, "no-store".to_owned()));
}

/// Keys `k-ann`, `k-bob` and, for exact answers only, `k-eve`, as a file of an operator.
fn keys() -> Folder {
    let entry = |owner: &str, more: &str| {
        let hash = specula_guests::sha256(format!("k-{owner}").as_bytes());
        format!("[[keys]]\nowner = \"{owner}\"\nsha256 = \"{hash}\"\n{more}\n")
    };
    let folder = Folder::new();
    let file = [entry("ann", ""), entry("bob", ""), entry("eve", "exact_only = true")].concat();
    folder.write("keys.toml", file.as_bytes());
    folder
}

#[tokio::test]
async fn keys_say_whose_a_plugin_is_and_who_may_use_it() {
    let file = keys();
    let path = file.path().join("keys.toml");
    let registry = Registry::start(&["--keys", path.to_str().expect("readable")]);
    for path in ["/v1/models", "/v1/plugins", "/metrics", "/nothing"] {
        assert_eq!(code(&registry.server.get(path).await), (401, "missing_api_key".to_owned()), "{path}");
    }
    assert_eq!(registry.server.get("/openapi.json").await.status, 200);
    let wrong = registry.ask(Method::GET, "", Some("k-zoe"), None).await;
    assert_eq!((code(&wrong).1.as_str(), wrong.header("www-authenticate")), ("invalid_api_key", Some("Bearer")));

    let (ann, bob) = (Some("k-ann"), Some("k-bob"));
    let put = async |name: &str, key, file| registry.ask(Method::PUT, name, key, Some(file)).await;
    assert_eq!(put("/mine", ann, shipped("min-p")).await.status, 201);
    assert_eq!(put("/ours?visibility=shared", ann, shipped("typical")).await.status, 201);
    assert_eq!(code(&put("/ours?visibility=shared", bob, shipped("min-p")).await), (409, "name-taken".to_owned()));
    assert!(registry.list(ann).await.contains_key("mine"));
    let seen = registry.list(bob).await;
    assert!(!seen.contains_key("mine") && seen["ours"]["owner"] == "ann");
    assert_eq!(registry.ask(Method::GET, "/mine", bob, None).await.status, 404);
    assert_eq!(registry.ask(Method::DELETE, "/ours", bob, None).await.status, 404, "it is not his to remove");
    let ask = async |key: &str, name: &str| {
        let request = with(&plugged(name, json!({})), json!({"deterministic": true}));
        let request = registry.server.posting(CHAT, request.to_string()).bearer_auth(key);
        registry.server.send(request).await
    };
    assert_eq!(ask("k-ann", "mine").await.status, 200);
    assert_eq!(code(&ask("k-bob", "mine").await), (400, "unknown_plugin".to_owned()));
    assert_eq!(ask("k-bob", "ours").await.status, 200);
    // A name of one's own may be the same, and then means one's own.
    assert_eq!(put("/ours", bob, shipped("balanced-json")).await.status, 201);
    assert_eq!(registry.list(bob).await["ours"]["kinds"], json!(["stopping"]));

    // A socket with the key among its sub-protocols.
    let mut socket = registry.server.socket_with_key("k-ann").await;
    assert!(!socket.answer(&plugged("mine", json!({}))).await.text.is_empty());
}

#[tokio::test]
async fn exact_only_keys_get_the_target_s_text_whatever_the_policy() {
    let file = keys();
    let path = file.path().join("keys.toml");
    let registry = Registry::start(&["--keys", path.to_str().expect("readable")]);
    let mut deviations = 0;
    for i in 0..3 {
        let ask = async |key: &str, plugins: Value| {
            let request = with(&question(i), json!({"temperature": 1.0, "deterministic": true, "plugins": plugins}));
            let reply = registry.server.send(registry.server.posting(CHAT, request.to_string()).bearer_auth(key)).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            reply.json()
        };
        let lossy = json!([{"name": "typical", "config": {"epsilon": 0.02, "delta": 0.05}}]);
        deviations += ask("k-ann", lossy.clone()).await["specula"]["deviations"].as_u64().expect("a number");
        let exact = ask("k-eve", lossy).await;
        let bare = ask("k-eve", json!([])).await;
        assert_eq!((&exact["specula"]["lossless"], &exact["specula"]["deviations"]), (&json!(true), &json!(0)));
        assert_eq!(exact["choices"][0]["message"], bare["choices"][0]["message"]);
    }
    assert!(deviations > 0, "for others it is lossy");
}

#[tokio::test]
async fn a_killed_server_has_lost_nothing_that_it_acknowledged_and_left_nothing_half() {
    let folder = Arc::new(Folder::new());
    let file = shipped("min-p");
    let mut acknowledged: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for life in 0..8_u32 {
        let registry = Arc::new(Registry::on(folder.clone(), &[]));
        let listed = registry.list(None).await;
        for (name, bytes) in &acknowledged {
            let card = listed.get(name).unwrap_or_else(|| panic!("{name} is lost in life {life}"));
            let digest = format!("sha256:{}", specula_guests::sha256(bytes));
            assert_eq!(card["digest"], json!(digest), "{name} in life {life}");
            let get = registry.server.request(Method::GET, &format!("/v1/plugins/{name}"));
            let stored = registry.server.send(get.header("accept", "application/wasm")).await;
            assert!(stored.body == *bytes, "{name} in life {life}");
        }
        assert_eq!(std::fs::read_dir(folder.path().join("staging")).expect("the store").count(), 0, "life {life}");
        // What is used is what is there.
        if let Some(name) = acknowledged.keys().next() {
            registry.server.whole(CHAT, &plugged(name, json!({"min_p": 0.1}))).await;
        }
        let mut uploads = JoinSet::new();
        for i in 0..3 {
            let (registry, name, bytes) = (registry.clone(), format!("p{i}"), variant(&file, life * 10 + i));
            uploads.spawn(async move {
                let request = registry.server.request(Method::PUT, &format!("/v1/plugins/{name}"));
                let sent = request.header("content-type", "application/wasm").body(bytes.clone()).send().await;
                let done = sent.is_ok_and(|response| response.status().is_success());
                (name, bytes, done)
            });
        }
        tokio::time::sleep(Duration::from_millis(40 * u64::from(life))).await;
        if life < 7 {
            registry.server.kill();
        }
        for (name, bytes, done) in uploads.join_all().await {
            if done {
                acknowledged.insert(name, bytes);
            } else {
                // It may have been kept without having been told; either is right, and the next life shows which.
                acknowledged.remove(&name);
            }
        }
    }
    assert!(!acknowledged.is_empty(), "the last life was not cut short");
}

#[tokio::test]
async fn a_thousand_hostile_uploads_leave_no_memory_file_or_process_behind() {
    let registry = Arc::new(Registry::start(&[]));
    let guests = [
        "loop-in-judge",
        "memory-bomb",
        "unreachable",
        "recursion",
        "wild-read",
        "threads",
        "wasi-import",
        "handle-bomb",
    ];
    let mut files: Vec<Vec<u8>> = guests.iter().map(|name| specula_guests::plugin(name)).collect();
    files.extend([shipped("min-p"), b"\0asm garbage".to_vec(), Vec::new(), vec![b'('; 100]]);
    let mut seed = 1_u64;
    let storm = async |count: usize, seed: &mut u64| {
        let mut refused = 0;
        for i in 0..count {
            let mut file = files[i % files.len()].clone();
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Every other one is broken somewhere.
            if i % 2 == 1 && !file.is_empty() {
                let at = (*seed >> 33) as usize % file.len();
                file[at] ^= 1 << (*seed >> 20 & 7);
            }
            let reply = registry.put(&format!("h{}", i % 7), file).await;
            assert!(matches!(reply.status, 200 | 201 | 413 | 422), "{}: {}", reply.status, reply.text());
            refused += usize::from(reply.status >= 400);
            if reply.status < 400 {
                registry.ask(Method::DELETE, &format!("/h{}", i % 7), None, None).await;
            }
        }
        refused
    };
    // The allocator's own stores fill up in the first thousand (3,000 uploads: 134.9, 138.5, 141.9, 142.4 MB after 100, 600, 1,600 and
    // 3,100); what grows afterwards is lost.
    storm(600, &mut seed).await;
    let alone = registry.server.whole(CHAT, &question(1)).await;
    let before = registry.server.resources();
    let refused = storm(1000, &mut seed).await;
    assert!(refused > 800, "{refused}");
    assert_eq!(registry.server.whole(CHAT, &question(1)).await.text, alone.text);
    until("all files to be closed", async || registry.server.resources().files <= before.files).await;
    let after = registry.server.resources();
    assert!(after.memory_bytes <= before.memory_bytes + before.memory_bytes / 20, "{before:?} {after:?}");
    assert_eq!(registry.server.children(), 0);
    assert_eq!(std::fs::read_dir(registry.folder.path().join("staging")).expect("the store").count(), 0);
}
