//! Hostile plugins before the server: each is stopped at its own cost, the answer or the log says so, and who asks at the
//! same time gets what he gets alone. What a guest does is told by the first line of its text in `tests/plugins`.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use specula_tests::{CHAT, Folder, Server, question, until, with};

/// Guests that fail when they judge, with the code of their failure. Their policy is own draw.
const JUDGES: [(&str, &str); 6] = [
    ("loop-in-judge", "fuel"),
    ("memory-bomb", "memory"),
    ("unreachable", "trap-unreachable"),
    ("recursion", "stack"),
    ("accepts-too-many", "bad-verdict"),
    ("wild-read", "trap-memory"),
];
/// Guests that fail when rows are edited or texts observed. The request fails with them.
const EDITORS: [(&str, &str); 4] = [
    ("bias-nan", "not-finite"),
    ("bias-token-outside", "bad-token"),
    ("edit-flood", "edits"),
    ("keeps-too-many", "bad-verdict"),
];
/// Takes as long as it may, again and again, for next to no fuel.
const SLOWEST: (&str, &str) = ("host-labour", "deadline");
/// Guests that fail before the first token.
const OPENERS: [(&str, &str); 3] = [("loop-in-open", "fuel"), ("loop-in-start", "fuel"), ("memory-at-birth", "memory")];
/// Files that are no plugins, with the code that the log gives.
const REFUSED: [(&str, &str); 4] = [
    ("wasi-import", "import-not-allowed"),
    ("core-module", "export-missing"),
    ("threads", "feature-not-allowed"),
    ("next-version", "version-unknown"),
];

/// A server with all of them, and the folder that they were loaded from.
struct Infested {
    server: Server,
    _folder: Folder,
}

fn infested() -> Arc<Infested> {
    static SHARED: Mutex<Weak<Infested>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(infested) = shared.upgrade() {
        return infested;
    }
    let all = JUDGES.iter().chain(&EDITORS).chain(&OPENERS).chain(&REFUSED).chain([&SLOWEST]);
    let folder = Folder::with_guests(&all.map(|(name, _)| *name).collect::<Vec<_>>());
    folder.write("garbage.wasm", b"\0asm garbage");
    folder.write("Bad Name.wasm", b"");
    folder.write("notes.txt", b"not a plugin's ending");
    let infested = Arc::new(Infested { server: Server::start(&["--plugins", folder.text()]), _folder: folder });
    *shared = Arc::downgrade(&infested);
    infested
}

/// By a method that has a window in every round: what decodes without one asks no acceptance policy.
fn plugged(name: &str) -> Value {
    with(&question(0), json!({"plugins": [{"name": name}], "speculation": {"method": "sps"}}))
}

#[tokio::test]
async fn files_that_are_no_plugins_are_left_out_with_a_reason() {
    let infested = infested();
    let list = infested.server.get("/v1/plugins").await.json();
    let names: Vec<&str> = list["data"].as_array().expect("cards").iter().filter_map(|c| c["name"].as_str()).collect();
    let log = infested.server.log();
    for (name, code) in REFUSED.iter().chain(&[("garbage", "not-a-component"), ("Bad Name", "bad-name")]) {
        assert!(!names.contains(name), "{name} is listed");
        let line = log.lines().find(|line| line.contains(&format!("{name}.wasm")));
        let line = line.unwrap_or_else(|| panic!("nothing is said of {name} in\n{log}"));
        assert!(line.contains("WARN") && line.contains(code), "{line}");
    }
    assert!(!log.contains('\u{1b}'), "a log that goes to a file has no colours");
    assert!(!log.contains("notes.txt"), "other files are none of its business");
    assert_eq!(names.len(), 12 + JUDGES.len() + EDITORS.len() + OPENERS.len() + 1, "{names:?}");
}

#[tokio::test]
async fn a_failing_judge_is_replaced_by_own_draw_and_reported() {
    let server = &infested().server;
    let alone = server.whole(CHAT, &question(0)).await;
    for (name, code) in JUDGES {
        let answer = server.whole(CHAT, &plugged(name)).await;
        assert_eq!((&answer.text, answer.report.lossless), (&alone.text, true), "{name}");
        let warning = answer.report.warnings.iter().find(|warning| warning.code == code);
        let warning = warning.unwrap_or_else(|| panic!("no `{code}` of {name} in {:?}", answer.report.warnings));
        assert!(warning.message.contains(name) && warning.count > 0, "{warning:?}");
        assert_eq!(answer.report.plugins[0].name, name, "its cost is told");
    }
    assert!(server.metrics().await.value("specula_plugin_failures_total{plugin=\"loop-in-judge\"}") > 0.0);
}

#[tokio::test]
async fn a_failing_editor_fails_its_request_by_every_way() {
    let server = &infested().server;
    for (name, code) in EDITORS {
        let reply = server.post(CHAT, &plugged(name)).await;
        let error = &reply.json()["error"];
        assert_eq!((reply.status, &error["code"]), (400, &json!(code)), "{name}: {error}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(name)), "{error}");
        let events = server.open(CHAT, &plugged(name)).await.events().await;
        assert_eq!(events.last().map(|event| &event["error"]["code"]), Some(&json!(code)), "{name}: {events:?}");
        let mut socket = server.socket().await;
        socket.generate("a", &plugged(name)).await;
        assert_eq!(socket.finish("a").await.expect_err(name).code.as_deref(), Some(code));
    }
}

#[tokio::test]
async fn what_follows_a_failure_is_the_request_s_to_say() {
    let server = &infested().server;
    let under =
        |name: &str, policy: &str| with(&plugged(name), json!({"plugins": [{"name": name, "on_failure": policy}]}));
    let alone = server.whole(CHAT, &question(0)).await;
    for (name, code) in EDITORS {
        let answer = server.whole(CHAT, &under(name, "fallback")).await;
        assert_eq!(answer.text, alone.text, "{name} is out, and what it had begun is undone");
        let told: Vec<_> =
            answer.report.warnings.iter().map(|w| (w.plugin.as_str(), w.code.as_str(), w.count)).collect();
        assert_eq!(told, [(name, code, 1)], "it was asked no more");
        assert_eq!(answer.report.plugins[0].failures, 1, "{name}");
    }
    for (name, code) in EDITORS.into_iter().chain(JUDGES) {
        let answer = server.whole(CHAT, &under(name, "stop")).await;
        assert!(alone.text.starts_with(&answer.text) && answer.text != alone.text, "{name}: {}", answer.text);
        let stop = answer.report.stop.unwrap_or_else(|| panic!("{name} ended the text"));
        assert_eq!((stop.plugin.as_str(), stop.reason), (name, format!("policy-error: {code}")));
        assert_eq!((answer.finish_reason.as_str(), answer.report.warnings.len()), ("stop", 1), "{name}");
    }
    for (name, code) in JUDGES {
        let reply = server.post(CHAT, &under(name, "fail")).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!(code)), "{name}");
    }
}

#[tokio::test]
async fn a_plugin_that_cannot_open_is_a_bad_request() {
    let server = &infested().server;
    for (name, code) in OPENERS {
        let reply = server.post(CHAT, &plugged(name)).await;
        let error = &reply.json()["error"];
        assert_eq!((reply.status, &error["param"]), (400, &json!("plugins[0].config")), "{error}");
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains(name) && message.contains(code), "{code} in {message}");
    }
}

#[tokio::test]
async fn neighbours_of_hostile_plugins_notice_nothing() {
    let server = &infested().server;
    let neighbour = question(1);
    let alone = server.whole(CHAT, &neighbour).await;
    for (name, _) in JUDGES.iter().chain(&EDITORS).chain(&OPENERS) {
        let hostile = plugged(name);
        let (_, beside) = tokio::join!(server.post(CHAT, &hostile), server.whole(CHAT, &neighbour));
        assert_eq!(beside.text, alone.text, "beside {name}");
        assert!(beside.report.lossless && beside.report.warnings.is_empty(), "beside {name}");
    }
    assert_eq!(server.get("/readyz").await.status, 200);
    // Those of this file's other tests come and go meanwhile; a guest that still ran would stay.
    until("the last of them to end", async || {
        let metrics = server.metrics().await;
        metrics.running() + metrics.queued() == 0.0
    })
    .await;
}

/// What the bound of `wasm-plugins/README.md` comes to here: run with `--nocapture` to read it.
#[tokio::test]
async fn a_neighbour_of_the_slowest_guest_gets_its_tokens() {
    let server = &infested().server;
    let neighbour = with(&question(1), json!({"max_tokens": 96, "ignore_eos": true}));
    let slow = json!([{"name": SLOWEST.0, "on_failure": "fallback"}]);
    let hostile = with(&question(0), json!({"max_tokens": 96, "ignore_eos": true, "plugins": slow}));
    let (alone, usual) = with_gaps(server, &neighbour).await;
    let (answer, (beside, longest)) = tokio::join!(server.whole(CHAT, &hostile), with_gaps(server, &neighbour));
    println!("longest wait for an event: {usual:?} alone, {longest:?} beside {}", SLOWEST.0);
    assert_eq!(beside, alone);
    let codes: Vec<&str> = answer.report.warnings.iter().map(|warning| warning.code.as_str()).collect();
    assert_eq!(codes, [SLOWEST.1], "it had its time");
}

/// The text of a streamed answer, and the longest time between two of its events.
async fn with_gaps(server: &Server, request: &Value) -> (String, Duration) {
    let mut stream = server.open(CHAT, request).await;
    let (mut text, mut longest, mut last) = (String::new(), Duration::ZERO, None);
    while let Some(data) = stream.next().await.filter(|data| data != "[DONE]") {
        let now = Instant::now();
        longest = longest.max(last.map_or(Duration::ZERO, |last| now - last));
        last = Some(now);
        let chunk: Value = serde_json::from_str(&data).expect("chunks are JSON");
        text.push_str(chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
    }
    (text, longest)
}
