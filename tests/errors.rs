//! Requests that cannot be answered as they wish: the status, OpenAI's error shape, the field at fault by name.

use reqwest::Method;
use serde_json::{Value, json};
use specula_tests::{CHAT, Reply, Server, TEXT, question, with};

/// Fields that make a good chat request bad, and what the answer must name: the field, then words of its message.
fn bad_fields() -> Vec<(Value, &'static str, Vec<&'static str>)> {
    let said = |role: &str| json!({"messages": [{"role": role, "content": "x"}]});
    // Of a method that has all settings; a field `method` takes its place.
    let speculation = |field: &str, value: Value| json!({"speculation": {"method": "mirror", field: value}});
    let plugins = |names: &[&str]| json!({"plugins": names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>()});
    let format = |schema: Value| json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}});
    vec![
        (json!({"temprature": 1}), "temprature", vec!["did you mean `temperature`"]),
        (json!({"temperature": "hot"}), "temperature", vec!["a number", "hot"]),
        (json!({"temperature": 2.5}), "temperature", vec!["0..=2", "2.5"]),
        (json!({"temperature": -0.1}), "temperature", vec!["0..=2", "-0.1"]),
        (json!({"top_p": 0}), "top_p", vec!["above 0"]),
        (json!({"top_k": -1}), "top_k", vec!["-1"]),
        (json!({"min_p": 1.5}), "min_p", vec!["0..=1", "1.5"]),
        (json!({"seed": 1_u64 << 53}), "seed", vec!["9007199254740991"]),
        (json!({"max_tokens": 0}), "max_tokens", vec!["at least 1", "0"]),
        (json!({"max_tokens": 1.5}), "max_tokens", vec!["whole number", "1.5"]),
        (json!({"max_tokens": 1, "max_completion_tokens": 1}), "max_completion_tokens", vec!["max_tokens"]),
        (json!({"stop": ["", "x"]}), "stop", vec!["1..=1024"]),
        (json!({"stop": vec!["x"; 17]}), "stop", vec!["16", "17"]),
        (json!({"logit_bias": {"4096": 1}}), "logit_bias", vec!["0..4096", "4096"]),
        (json!({"logit_bias": {"-1": 1}}), "logit_bias", vec!["-1"]),
        (json!({"logit_bias": {"7": 101}}), "logit_bias", vec!["100", "101"]),
        (json!({"repetition_penalty": 0}), "repetition_penalty", vec!["above 0"]),
        (json!({"presence_penalty": 3}), "presence_penalty", vec!["-2..=2", "3"]),
        (json!({"n": 17}), "n", vec!["at most 16", "17"]),
        (json!({"min_tokens": 9, "max_tokens": 8}), "min_tokens", vec!["at most `max_tokens`", "9"]),
        (json!({"top_logprobs": 2}), "top_logprobs", vec!["logprobs: true"]),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs", vec!["0..=20", "21"]),
        (json!({"logprobs_mode": "half"}), "logprobs_mode", vec!["`raw` or `processed`", "half"]),
        (json!({"echo": true}), "echo", vec!["/v1/completions"]),
        (json!({"tools": [{"type": "function"}]}), "tools", vec!["empty"]),
        (json!({"response_format": {"type": "xml"}}), "response_format.type", vec!["text, json_object", "xml"]),
        (format(json!({"type": "tree"})), "response_format", vec!["tree"]),
        (json!({"stream_options": {"include_usage": true}}), "stream_options", vec!["stream: true"]),
        (json!({"prompt": "x"}), "prompt", vec!["/v1/completions"]),
        (json!({"messages": []}), "messages", vec!["at least 1"]),
        (json!({"messages": "hi"}), "messages", vec!["an array"]),
        (json!({"messages": null}), "messages", vec!["needed"]),
        (said("robot"), "messages[0].role", vec!["system, user, assistant", "robot"]),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content", vec!["needed"]),
        (json!({"messages": [{"role": "user", "content": "word ".repeat(2000)}]}), "prompt", vec!["1023", "1024"]),
        (
            speculation("method", json!("fast")),
            "speculation.method",
            vec!["auto, none, sps, lookup, recycling, ssd, mirror", "fast"],
        ),
        (speculation("window", json!(17)), "speculation.window", vec!["0..=16", "17"]),
        (speculation("exit_layer", json!(8)), "speculation.exit_layer", vec!["1..=7", "8"]),
        (speculation("exit_layer", json!(0)), "speculation.exit_layer", vec!["1..=7", "0"]),
        (speculation("exit_top", json!(33)), "speculation.exit_top", vec!["1..=32", "33"]),
        (speculation("branch_budget", json!(0)), "speculation.branch_budget", vec!["1..=64", "0"]),
        (speculation("roots", json!("tree")), "speculation.roots", vec!["draft, exit, both", "tree"]),
        (speculation("streams", json!(99)), "speculation.streams", vec!["0", "99"]),
        (speculation("look_ahead", json!("guess")), "speculation.look_ahead", vec!["keep, correct", "guess"]),
        (speculation("depth", json!(1)), "speculation.depth", vec!["window"]),
        (plugins(&["nosuch"]), "plugins[0].name", vec!["nosuch", "balanced-json, budget, dry"]),
        (plugins(&["typical", "typical"]), "plugins[1].name", vec!["second acceptance policy"]),
        (plugins(&["min-p"; 9]), "plugins", vec!["at most 8", "9"]),
        (json!({"plugins": [{"name": "min-p", "config": 7}]}), "plugins[0].config", vec!["object"]),
        (
            json!({"plugins": [{"name": "min-p", "on_failure": "retry"}]}),
            "plugins[0].on_failure",
            vec!["fallback", "retry"],
        ),
    ]
}

#[tokio::test]
async fn a_bad_field_is_named_with_its_bound_and_its_value() {
    let server = Server::shared();
    for (fields, param, words) in bad_fields() {
        let reply = server.post(CHAT, &with(&question(0), fields.clone())).await;
        let error = refusal(&reply, 400);
        assert_eq!(error["param"], param, "{error}");
        let message = error["message"].as_str().expect("a message");
        for word in words {
            assert!(message.contains(word), "`{word}` is not in: {message}");
        }
    }
    still_healthy(&server).await;
}

#[tokio::test]
async fn bodies_that_are_no_request_are_refused_by_kind() {
    let server = Server::shared();
    for (body, status, code) in [
        (String::new(), 400, "invalid_json"),
        ("{".to_owned(), 400, "invalid_json"),
        ("[]".to_owned(), 400, "invalid_type"),
        ("{\"prompt\": \"x\"} tail".to_owned(), 400, "invalid_json"),
        ("[".repeat(100_000), 400, "invalid_json"),
        (format!("{{\"prompt\": \"{}\"}}", "x".repeat(1 << 20)), 413, "body_too_large"),
        ("{\"prompt\": \"\"}".to_owned(), 400, "empty_prompt"),
        ("{\"prompt\": \"x\", \"model\": \"gpt-4\"}".to_owned(), 404, "model_not_found"),
    ] {
        let reply = server.post_raw(TEXT, body).await;
        assert_eq!(refusal(&reply, status)["code"], code);
    }
    let reply = server.send(server.request(Method::POST, TEXT).body("{\"prompt\": \"x\"}")).await;
    assert_eq!(refusal(&reply, 415)["code"], "unsupported_content_type");
    still_healthy(&server).await;
}

#[tokio::test]
async fn a_field_given_twice_is_refused() {
    let server = Server::shared();
    let twice = "{\"prompt\": \"x\", \"max_tokens\": 1, \"max_tokens\": 2}";
    let error = refusal(&server.post_raw(TEXT, twice.to_owned()).await, 400);
    assert!(error["message"].as_str().is_some_and(|m| m.contains("`max_tokens` is given twice")), "{error}");
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist_are_told() {
    let server = Server::shared();
    for (method, path, status) in [
        (Method::GET, CHAT, 405),
        (Method::DELETE, TEXT, 405),
        (Method::POST, "/v1/models", 405),
        (Method::PUT, "/metrics", 405),
        (Method::GET, "/v1/nothing", 404),
        (Method::GET, "/../Cargo.toml", 404),
        (Method::GET, "/v1/stream", 426),
    ] {
        let reply = server.send(server.request(method, path)).await;
        refusal(&reply, status);
        assert_eq!(reply.header("allow").is_some(), status == 405, "{path}");
    }
}

#[tokio::test]
async fn pages_elsewhere_may_not_drive_the_server() {
    let server = Server::shared();
    let body = question(0).to_string();
    for (header, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", "http://127.0.0.1:1"),
        ("host", "evil.example"),
    ] {
        let request = server.request(Method::POST, CHAT).header("content-type", "application/json");
        let reply = server.send(request.header(header, value).body(body.clone())).await;
        assert_eq!(refusal(&reply, 403)["type"], "permission_error", "{header}: {value}");
        assert_eq!(reply.header("access-control-allow-origin"), None);
        let handshake = server.request(Method::GET, "/v1/stream").header(header, value);
        refusal(&server.send(handshake).await, 403);
    }
    let own = server.url("").trim_end_matches('/').to_owned();
    let reply = server.send(server.request(Method::GET, "/v1/models").header("origin", own)).await;
    assert_eq!(reply.status, 200, "the server's own page may");
}

#[tokio::test]
async fn a_frame_that_is_wrong_is_answered_and_the_socket_lives_on() {
    let server = Server::shared();
    let mut socket = server.socket().await;
    for (id, fields, param) in [
        ("a", json!({"temperature": 3}), Some("temperature")),
        ("b", json!({"stream": false}), Some("stream")),
        ("c", json!({"plugins": [{"name": "nosuch"}]}), Some("plugins[0].name")),
        ("d", json!({"model": "gpt-4"}), Some("model")),
    ] {
        socket.generate(id, &with(&question(0), fields)).await;
        let error = socket.finish(id).await.expect_err(id);
        assert_eq!(error.param.as_deref(), param, "{error:?}");
    }
    socket.send(&json!({"type": "generate"})).await;
    assert_eq!(socket.finish("").await.expect_err("no id").param.as_deref(), Some("id"));
    assert_eq!(socket.answer(&with(&question(0), json!({"max_tokens": 3}))).await.tokens(), 3);
}

/// The error of a refusal, which must have OpenAI's shape and nothing beside it.
#[track_caller]
fn refusal(reply: &Reply, status: u16) -> Value {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let body = reply.json();
    let error = body["error"].as_object().unwrap_or_else(|| panic!("no error in {body}"));
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(1), "{body}");
    let mut fields: Vec<&str> = error.keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["code", "message", "param", "type"]);
    assert!(error["message"].is_string() && error["type"].is_string() && error["code"].is_string(), "{body}");
    body["error"].clone()
}

async fn still_healthy(server: &Server) {
    let answer = server.whole(CHAT, &with(&question(0), json!({"max_tokens": 3}))).await;
    assert_eq!(answer.tokens(), 3);
    assert_eq!(server.metrics().await.ended("failed"), 0.0, "refusals are no failures of the engine");
}
