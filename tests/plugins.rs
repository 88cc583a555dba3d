//! The shipped plugins through the server: what they promise, in every method.

use serde_json::{Value, json};
use specula_tests::{CHAT, Folder, METHODS, Server, generate, question, questions, watermark, with};

#[tokio::test]
async fn the_shipped_plugins_are_listed_with_their_kinds() {
    let list = Server::shared().get("/v1/plugins").await.json();
    assert_eq!(list["object"], "list");
    let cards = list["data"].as_array().expect("cards").iter();
    let mut cards: Vec<(&str, &str)> = cards
        .map(|card| (card["kinds"][0].as_str().expect("a kind"), card["name"].as_str().expect("a name")))
        .collect();
    cards.sort_unstable();
    let want = [
        ("acceptance", &["entropy-gate", "own-draw", "top-k-lenient", "typical"][..]),
        ("sampling", &["dry", "min-p", "regex", "top-n-sigma", "watermark"]),
        ("stopping", &["balanced-json", "budget", "repetition"]),
    ];
    let want: Vec<_> = want.into_iter().flat_map(|(kind, names)| names.iter().map(move |name| (kind, *name))).collect();
    assert_eq!(cards, want);
    for card in list["data"].as_array().expect("cards") {
        let digest = card["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("a digest");
        assert!(digest.len() == 64 && card["bytes"].as_u64().is_some_and(|bytes| bytes > 1000), "{card}");
    }
}

#[tokio::test]
async fn min_p_gives_the_same_text_in_every_method_and_another_than_none() {
    let server = Server::shared();
    let mut changed = 0;
    for i in 0..2 {
        let request = with(&question(i), json!({"temperature": 1.0, "speculation": {"method": "none"}}));
        let bare = server.whole(CHAT, &request).await;
        let filtered = with(&request, json!({"plugins": [{"name": "min-p", "config": {"min_p": 0.3}}]}));
        let plain = server.whole(CHAT, &filtered).await;
        changed += usize::from(plain.text != bare.text);
        for method in METHODS {
            let answer = server.whole(CHAT, &with(&filtered, json!({"speculation": {"method": method}}))).await;
            assert_eq!((&answer.text, answer.report.lossless), (&plain.text, true), "{method}");
            let [cost] = answer.report.plugins.as_slice() else { panic!("one plugin: {:?}", answer.report.plugins) };
            assert_eq!(cost.name, "min-p");
            assert!(cost.calls >= answer.report.rounds && cost.fuel > 0, "called at least once a round: {cost:?}");
        }
    }
    assert!(changed > 0, "unlikely tokens are drawn without it");
}

#[tokio::test]
async fn min_p_as_a_plugin_and_as_a_field_agree_at_temperature_1() {
    let server = Server::shared();
    let request = with(&question(3), json!({"temperature": 1.0}));
    let plugin =
        server.whole(CHAT, &with(&request, json!({"plugins": [{"name": "min-p", "config": {"min_p": 0.2}}]}))).await;
    let field = server.whole(CHAT, &with(&request, json!({"min_p": 0.2}))).await;
    assert_eq!(plugin.text, field.text);
}

#[tokio::test]
async fn balanced_json_stops_with_the_value_and_its_reason() {
    let server = Server::shared();
    // The bracket is made certain, for the embedded pair does not speak JSON of itself.
    let brackets = json!({"logit_bias": bias_of_brackets(server.as_ref()).await, "temperature": 1.0, "max_tokens": 64});
    let request = with(&question(0), brackets);
    let free = server.whole(CHAT, &request).await;
    let request = with(&request, json!({"plugins": [{"name": "balanced-json"}]}));
    let mut told = Vec::new();
    for method in METHODS {
        let answer = server.whole(CHAT, &with(&request, json!({"speculation": {"method": method}}))).await;
        let stop = answer.report.stop.expect("a plugin ended the text");
        assert_eq!((stop.plugin.as_str(), stop.reason.as_str()), ("balanced-json", "the JSON value is complete"));
        assert_eq!(answer.finish_reason, "stop");
        assert!(free.text.starts_with(&answer.text) && answer.text.contains(['}', ']']), "{}", answer.text);
        told.push(answer.text);
    }
    assert!(told.iter().all(|text| *text == told[0]), "{told:?}");
}

/// A bias towards the tokens `{` and `}`.
async fn bias_of_brackets(server: &Server) -> Value {
    let mut bias = serde_json::Map::new();
    for bracket in ["{", "}"] {
        bias.insert(token_of(server, bracket).await.to_string(), json!(14));
    }
    Value::Object(bias)
}

/// The id of a text that is one token: the one that a forced stop shows. Ids lie in the order of the byte alphabet, after
/// the special tokens, so that `!` is the first.
async fn token_of(server: &Server, text: &str) -> u64 {
    let byte = u64::from(text.bytes().next().expect("one character"));
    let id = byte - u64::from(b'!') + FIRST_BYTE_TOKEN;
    let forced = json!({"prompt": "x", "max_tokens": 1, "temperature": 0, "logit_bias": {id.to_string(): 100}});
    assert_eq!(server.whole(specula_tests::TEXT, &forced).await.text, text, "token {id}");
    id
}

/// Token of `!`.
const FIRST_BYTE_TOKEN: u64 = 3;

#[tokio::test]
async fn typical_acceptance_says_that_it_is_lossy_and_reproduces_when_asked_to() {
    let server = Server::shared();
    let config = json!({"epsilon": 0.02, "delta": 0.05});
    let lossy = json!({"temperature": 1.0, "deterministic": true, "plugins": [{"name": "typical", "config": config}]});
    let mut deviations = 0;
    for i in 0..3 {
        let request = with(&question(i), lossy.clone());
        let answer = server.whole(CHAT, &request).await;
        assert_eq!(answer.report.lossless, answer.report.deviations == 0, "{:?}", answer.report);
        assert!(answer.report.settings.deterministic);
        deviations += answer.report.deviations;
        let again = server.whole(CHAT, &request).await;
        assert_eq!((&again.text, again.report.deviations), (&answer.text, answer.report.deviations));
        let exact = server.whole(CHAT, &with(&question(i), json!({"temperature": 1.0}))).await;
        assert!(
            answer.report.deviations > 0 || answer.text == exact.text,
            "without deviations it is the target's text"
        );
    }
    assert!(deviations > 0, "three questions without one unlikely token");
}

#[tokio::test]
async fn several_plugins_apply_in_order_whole_or_streamed_and_for_every_choice() {
    let server = Server::shared();
    let plugins = json!([
        {"name": "dry", "config": {"allowed": 1}},
        {"name": "watermark", "config": {"key": 11}},
        {"name": "budget", "config": {"tokens": 8, "grace": 12}},
    ]);
    let request = with(&question(2), json!({"temperature": 1.0, "plugins": plugins}));
    let plain = server.whole(CHAT, &with(&request, json!({"speculation": {"method": "none"}}))).await;
    for method in METHODS {
        let request = with(&request, json!({"speculation": {"method": method}}));
        let whole = server.whole(CHAT, &request).await;
        assert_eq!((&whole.text, &whole.finish_reason), (&plain.text, &plain.finish_reason), "{method}");
        let costs: Vec<(&str, &str, u64)> =
            whole.report.plugins.iter().map(|c| (c.name.as_str(), c.kind.as_str(), c.failures)).collect();
        assert_eq!(costs, [("dry", "sampling", 0), ("watermark", "sampling", 0), ("budget", "stopping", 0)]);
        let two = server.post(CHAT, &with(&request, json!({"n": 2}))).await.json();
        assert_eq!(two["choices"][0]["message"]["content"], json!(plain.text), "{method}");
        assert_ne!(two["choices"][1]["message"]["content"], json!(plain.text), "another choice, another noise");
    }
}

#[tokio::test]
async fn a_watermark_is_found_by_its_key_alone() {
    let server = Server::shared();
    let mut text = String::new();
    for i in 0..4 {
        let marked = json!({"temperature": 1.0, "max_tokens": 96, "ignore_eos": true,
            "plugins": [{"name": "watermark", "config": {"key": 99, "delta": 6.0}}]});
        text.push_str(&server.whole(CHAT, &with(&question(i), marked)).await.text);
    }
    let folder = Folder::new();
    folder.write("answer.txt", text.as_bytes());
    let z = |key: &str| {
        let told = watermark(&["--key", key, &format!("{}/answer.txt", folder.text())]);
        let z = told.split("z = ").nth(1).and_then(|rest| rest.split(',').next()?.parse::<f64>().ok());
        z.unwrap_or_else(|| panic!("no z in {told}"))
    };
    assert!(z("99") > 4.0, "{}", z("99"));
    assert!(z("98").abs() < 4.0, "{}", z("98"));
}

#[tokio::test]
async fn an_answer_has_the_format_asked_for_in_every_method() {
    let server = Server::shared();
    let schema = json!({
        "type": "object",
        "properties": {"tool": {"enum": ["ss", "lsof", "netstat"]}, "sure": {"type": "boolean"}},
        "required": ["tool", "sure"],
        "additionalProperties": false
    });
    let format = json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema}});
    let request = with(&question(0), json!({"temperature": 1.0, "max_tokens": 60, "response_format": format}));
    let plain = server.whole(CHAT, &with(&request, json!({"speculation": {"method": "none"}}))).await;
    let value: Value = serde_json::from_str(&plain.text).unwrap_or_else(|error| panic!("{error}: {}", plain.text));
    assert!(value["tool"].is_string() && value["sure"].is_boolean(), "{value}");
    for method in METHODS {
        let answer = server.whole(CHAT, &with(&request, json!({"speculation": {"method": method}}))).await;
        assert_eq!((&answer.text, answer.report.lossless), (&plain.text, true), "{method}");
    }
    let object = json!({"max_tokens": 16, "response_format": {"type": "json_object"}});
    let answer = server.whole(CHAT, &with(&question(1), object)).await;
    assert!(answer.text.trim_start().starts_with('{'), "{}", answer.text);
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_the_plugin_s_own_words() {
    let server = Server::shared();
    for (name, config, words) in [
        ("min-p", json!({"min_p": 2}), &["min-p", "min_p", "2"][..]),
        ("min-p", json!({"minp": 0.1}), &["min-p", "minp"]),
        ("typical", json!({"epsilon": "small"}), &["typical", "epsilon"]),
        ("balanced-json", json!({"value": "tree"}), &["balanced-json", "value", "tree", "object"]),
    ] {
        let reply =
            server.post(CHAT, &with(&question(0), json!({"plugins": [{"name": name, "config": config}]}))).await;
        let error = &reply.json()["error"];
        assert_eq!((reply.status, &error["param"]), (400, &json!("plugins[0].config")), "{error}");
        let message = error["message"].as_str().expect("a message");
        assert!(words.iter().all(|word| message.contains(word)), "{words:?} in {message}");
    }
}

#[tokio::test]
async fn the_command_line_runs_plugins_too() {
    let request = with(&question(1), json!({"plugins": [{"name": "min-p", "config": {"min_p": 0.3}}]}));
    let served = Server::shared().whole(CHAT, &request).await;
    let args = ["--prompt", &questions(2)[1], "--seed", "41", "--temperature", "0.7", "--max-tokens", "32"];
    let typed = generate(&[&args[..], &["--plugin", r#"min-p={"min_p": 0.3}"#]].concat());
    assert_eq!(typed.answer.text, served.text);
    assert_eq!(typed.answer.report.plugins[0].name, "min-p");
}
