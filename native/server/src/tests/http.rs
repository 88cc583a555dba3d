//! Answers and refusals over HTTP.

use serde_json::{Value, json};

use super::start;

#[tokio::test]
async fn facts_are_served() {
    let server = start(|_| {}).await;
    let page = server.get("/").await;
    assert_eq!((page.status, page.body.as_str()), (200, "<!doctype html>"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert!(page.header("content-security-policy").is_some());
    assert_eq!(server.get("/healthz").await.status, 200);
    assert_eq!(server.get("/readyz").await.json(), json!({"status": "ready"}));
    let models = server.get("/v1/models").await.json();
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("double")));
    assert_eq!(models["data"][0]["methods"], json!(["none"]));
    assert_eq!(server.get("/v1/plugins").await.json(), json!({"object": "list", "data": []}));
    let head = server.ask("HEAD /v1/models", "", b"").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let metrics = server.get("/metrics").await;
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let counted = "specula_http_requests_total{route=\"/v1/models\",status=\"200\"} 2";
    assert!(metrics.body.lines().any(|line| line == counted), "{}", metrics.body);
}

#[tokio::test]
async fn whole_and_streamed_answers_say_the_same() {
    let server = start(|_| {}).await;
    let chat = r#"{"messages": [{"role": "user", "content": "say to day"}]}"#;
    let whole = server.post("/v1/chat/completions", chat).await;
    assert_eq!(whole.status, 200, "{}", whole.body);
    let whole = whole.json();
    assert_eq!(whole["choices"][0]["message"], json!({"role": "assistant", "content": "today"}));
    assert_eq!(whole["usage"]["completion_tokens"], 2);

    let chat = r#"{"messages": [{"role": "user", "content": "say to day"}], "stream": true}"#;
    let streamed = server.post("/v1/chat/completions", chat).await;
    assert_eq!(streamed.header("content-type"), Some("text/event-stream"));
    let pieces: Vec<_> = streamed.body.split_terminator("\n\n").filter_map(|f| f.strip_prefix("data: ")).collect();
    assert_eq!(pieces.last(), Some(&"[DONE]"));
    let chunks = pieces[..pieces.len() - 1].iter().map(|p| serde_json::from_str::<Value>(p).expect("JSON"));
    let text: String = chunks.filter_map(|c| c["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect();
    assert_eq!(text, "today");

    let text = server.post("/v1/completions", r#"{"prompt": "say x"}"#).await.json();
    assert_eq!((&text["object"], &text["choices"][0]["text"]), (&json!("text_completion"), &json!("x")));
}

#[tokio::test]
async fn faults_have_statuses_codes_and_params() {
    let server = start(|config| config.max_body_bytes = 100).await;
    let long = format!(r#"{{"prompt": "{}"}}"#, "x".repeat(100));
    for (path, body, status, code, param) in [
        ("/v1/completions", "{", 400, "invalid_json", Value::Null),
        ("/v1/completions", r#"{"prompt": "x", "temprature": 1}"#, 400, "unknown_field", json!("temprature")),
        ("/v1/completions", r#"{"prompt": 3}"#, 400, "invalid_value", json!("prompt")),
        ("/v1/completions", r#"{"prompt": "x", "seed": "3"}"#, 400, "invalid_type", json!("seed")),
        ("/v1/completions", r#"{"prompt": "x", "n": 17}"#, 400, "invalid_value", json!("n")),
        ("/v1/completions", r#"{"prompt": "x", "model": "gpt"}"#, 404, "model_not_found", json!("model")),
        ("/v1/completions", r#"{"prompt": "full"}"#, 429, "queue_full", Value::Null),
        ("/v1/completions", r#"{"prompt": "break"}"#, 500, "internal", Value::Null),
        ("/v1/completions", r#"{"prompt": "crash"}"#, 500, "internal", Value::Null),
        ("/v1/completions", &long, 413, "body_too_large", Value::Null),
        ("/v1/chat/completions", r#"{"prompt": "x"}"#, 400, "unknown_field", json!("prompt")),
        ("/v1/nothing", "{}", 404, "not_found", Value::Null),
        ("/v1/models", "{}", 405, "method_not_allowed", Value::Null),
    ] {
        let answer = server.post(path, body).await;
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
        let error = &answer.json()["error"];
        assert_eq!((error["code"].as_str(), &error["param"]), (Some(code), &param), "{path} {body}");
        match status {
            405 => assert_eq!(answer.header("allow"), Some("GET, HEAD")),
            429 => assert_eq!(answer.header("retry-after"), Some("3")),
            _ => {}
        }
    }
    let answer = server.ask("POST /v1/completions", "content-type: text/plain\r\n", b"{}").await;
    assert_eq!(answer.status, 415);
    let answer = server.ask("GET /v1/chat/completions", "", b"").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert_eq!(server.get("/v1/stream").await.status, 426);
    let answer = server.ask("POST /page.js", "", b"").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
}

#[tokio::test]
async fn a_failure_in_mid_stream_is_an_event() {
    let server = start(|_| {}).await;
    for prompt in ["break", "crash"] {
        let answer = server.post("/v1/completions", &format!(r#"{{"prompt": "{prompt}", "stream": true}}"#)).await;
        assert_eq!(answer.status, 200);
        let frames: Vec<_> = answer.body.split_terminator("\n\n").collect();
        assert_eq!(frames.last(), Some(&"data: [DONE]"));
        let error = frames[frames.len() - 2].strip_prefix("data: ").expect("data");
        let error: Value = serde_json::from_str(error).expect("JSON");
        assert_eq!(error["error"]["type"], "server_error");
    }
}

#[tokio::test]
async fn foreign_pages_are_refused_everywhere() {
    let server = start(|config| config.allowed_origins = vec!["https://lab.example".into()]).await;
    for line in ["GET /", "GET /v1/models", "GET /metrics", "GET /v1/stream", "POST /v1/completions", "OPTIONS /"] {
        let answer = server.ask(line, "origin: http://evil.example\r\n", b"").await;
        assert_eq!(answer.status, 403, "{line}");
        assert_eq!(answer.json()["error"]["code"], "foreign_origin");
        assert_eq!(answer.header("access-control-allow-origin"), None);
        let answer = server.ask(line, "host: evil.example\r\n", b"").await;
        assert_eq!(answer.json()["error"]["code"], "foreign_host", "{line}");
    }
    let own = format!("origin: http://{}\r\n", server.address);
    assert_eq!(server.ask("GET /v1/models", &own, b"").await.status, 200);
    let lab = "origin: https://lab.example\r\naccess-control-request-method: POST\r\n";
    let upload = server.ask("PUT /v1/plugins/a", "origin: https://lab.example\r\n", b"").await;
    assert_eq!((upload.status, &upload.json()["error"]["code"]), (403, &json!("uploads_need_keys")));
    let preflight = server.ask("OPTIONS /v1/completions", lab, b"").await;
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, Some("https://lab.example")));
    let allowed = server.ask("GET /v1/models", lab, b"").await;
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, Some("https://lab.example")));
}
