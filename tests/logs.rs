//! The log: a line for every request and generation, found by the request's id, with nothing in it that a user wrote.

use serde_json::{Value, json};
use specula_protocol::ServerFrame;
use specula_tests::{CHAT, Server, TEXT, until};

/// What users write; no log may have it.
const MARKER: &str = "xyzzy";

fn lines(server: &Server) -> Vec<Value> {
    server.log().lines().filter(|line| line.starts_with('{')).map(|l| serde_json::from_str(l).expect(l)).collect()
}

#[tokio::test]
async fn requests_are_found_by_their_id_and_texts_not_at_all() {
    let server = Server::start(&["--log", "debug", "--log-format", "json"]);
    let chat = json!({"messages": [{"role": "user", "content": MARKER}], "max_tokens": 4, "seed": 1, "user": MARKER,
                      "stop": [format!("{MARKER}!")], "metadata": {"a": MARKER}});
    let sent = server.posting(CHAT, chat.to_string()).header("x-request-id", "my-own.id_7");
    let reply = server.send(sent).await;
    assert_eq!((reply.status, reply.header("x-request-id")), (200, Some("my-own.id_7")));
    let reply = server.send(server.posting(CHAT, chat.to_string()).header("x-request-id", "not fit")).await;
    let given = reply.header("x-request-id").expect("one is made").to_owned();
    assert!(given.starts_with("req-"), "{given}");

    // All kinds of refusal, each with something of the user's in it.
    for body in [
        json!({"prompt": MARKER, "model": MARKER}).to_string(),
        json!({"prompt": MARKER, MARKER: 1}).to_string(),
        json!({"prompt": "x", "speculation": {"method": MARKER}}).to_string(),
        json!({"prompt": MARKER, "plugins": [{"name": MARKER}]}).to_string(),
        json!({"prompt": "x", "seed": MARKER}).to_string(),
        format!("{{\"prompt\": \"{MARKER}"),
    ] {
        let status = server.post_raw(TEXT, body).await.status;
        assert!((400..500).contains(&status), "{status}");
    }
    assert_eq!(server.get("/xyzzy").await.status, 404);
    server.post("/tokenize", &json!({"prompt": MARKER})).await;
    let foreign =
        server.request(reqwest::Method::GET, "/v1/models").header("origin", format!("http://{MARKER}.example"));
    assert_eq!(server.send(foreign).await.status, 403);
    let mut socket = server.socket().await;
    socket.generate(MARKER, &chat).await;
    socket.finish(MARKER).await.expect("an answer");
    socket.generate("b", &json!({"prompt": "x", "seed": MARKER})).await;
    assert!(matches!(socket.next().await, ServerFrame::Error { .. }));

    let of = |lines: &[Value], id: &str, message: &str| -> Vec<Value> {
        lines.iter().filter(|line| line["request"] == id && line["message"] == message).cloned().collect()
    };
    until("the log's last line", async || lines(&server).iter().filter(|l| l["message"] == "generated").count() == 3)
        .await;
    let lines = lines(&server);
    for id in ["my-own.id_7", &given] {
        let generated = of(&lines, id, "generated");
        let [line] = generated.as_slice() else { panic!("one generation: {generated:?}") };
        assert_eq!((&line["completion_tokens"], &line["method"]), (&json!(4), &json!("auto")));
        let answered = of(&lines, id, "answered");
        assert_eq!((answered.len(), &answered[0]["status"], &answered[0]["route"]), (1, &json!(200), &json!(CHAT)));
    }
    let codes: Vec<_> = lines.iter().filter(|l| l["message"] == "refused").map(|l| l["code"].clone()).collect();
    for code in ["model_not_found", "unknown_field", "invalid_type", "invalid_json", "not_found", "foreign_origin"] {
        assert!(codes.contains(&json!(code)), "{code} in {codes:?}");
    }
    assert!(!server.log().contains(MARKER), "{}", server.log());
}

#[tokio::test]
async fn who_leaves_is_logged() {
    let server = Server::start(&[]);
    let endless = json!({"prompt": "x", "ignore_eos": true, "seed": 1});
    let mut stream = server.open(TEXT, &endless).await;
    stream.next().await.expect("a first chunk");
    drop(stream);
    until("a line about it", async || server.log().contains("the client left a generation")).await;
}
