//! The WebSocket.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{Running, start};

struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    async fn open(server: &Running) -> Self {
        let (socket, _) = connect_async(format!("ws://{}/v1/stream", server.address)).await.expect("an upgrade");
        Self(socket)
    }

    async fn send(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.expect("sent");
    }

    async fn generate(&mut self, id: &str, prompt: &str) {
        self.send(json!({"type": "generate", "id": id, "prompt": prompt})).await;
    }

    /// The next JSON frame; `None` once the server closed.
    async fn next(&mut self) -> Option<Value> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let message = tokio::time::timeout_at(deadline, self.0.next()).await.expect("a frame in time");
            match message?.ok()? {
                Message::Text(text) => return Some(serde_json::from_str(&text).expect("JSON")),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// All frames up to a generation's last, that one included.
    async fn until_end(&mut self, id: &str) -> Vec<Value> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await.expect("the socket stays open");
            let last = frame["id"] == id && (frame["type"] == "finished" || frame["type"] == "error");
            frames.push(frame);
            if last {
                return frames;
            }
        }
    }
}

#[tokio::test]
async fn a_generation_is_started_rounds_finished() {
    let server = start(|_| {}).await;
    let mut client = Client::open(&server).await;
    client.generate("a", "say to day").await;
    let frames = client.until_end("a").await;
    assert_eq!(frames[0], json!({"type": "started", "id": "a", "seed": 5, "prompt_tokens": 2, "method": "none"}));
    assert_eq!(frames[1]["tokens"], json!([{"id": 7, "text": "to", "origin": "plain"}]));
    assert_eq!(frames[2]["tokens"][0]["text"], "day");
    assert_eq!((&frames[3]["reason"], &frames[3]["usage"]["total_tokens"]), (&json!("stop"), &json!(4)));
    client.generate("a", "say again").await;
    assert_eq!(client.until_end("a").await.len(), 3, "an id is free again after its end");
}

#[tokio::test]
async fn several_share_a_socket_and_one_is_cancelled() {
    let server = start(|_| {}).await;
    let mut client = Client::open(&server).await;
    client.generate("long", "drip 1000").await;
    client.generate("short", "drip 3").await;
    client.until_end("short").await;
    client.send(json!({"type": "cancel", "id": "long"})).await;
    let frames = client.until_end("long").await;
    assert_eq!(frames.last().map(|f| &f["reason"]), Some(&json!("cancelled")));
    server.until_running(0).await;
    client.send(json!({"type": "cancel", "id": "long"})).await;
    client.generate("next", "say x").await;
    assert_eq!(client.next().await.expect("open")["type"], "started", "a late cancel says nothing");
}

#[tokio::test]
async fn wrong_frames_are_answered_and_the_socket_stays() {
    let server = start(|config| config.max_generations_per_socket = 1).await;
    let mut client = Client::open(&server).await;
    client.0.send(Message::text("{")).await.expect("sent");
    let error = client.next().await.expect("open");
    assert_eq!((error.get("id"), &error["error"]["code"]), (None, &json!("invalid_json")));
    client.0.send(Message::binary(vec![0xff])).await.expect("sent");
    assert_eq!(client.next().await.expect("open")["error"]["code"], "invalid_utf8");
    client.send(json!({"type": "generate", "id": "a", "prompt": "x", "windw": 1})).await;
    let error = client.next().await.expect("open");
    assert_eq!((&error["id"], &error["error"]["param"]), (&json!("a"), &json!("windw")));
    for (prompt, code) in [("full", "queue_full"), ("crash", "internal"), ("break", "internal")] {
        client.generate("a", prompt).await;
        assert_eq!(client.until_end("a").await.last().map(|f| &f["error"]["code"]), Some(&json!(code)));
    }
    client.generate("a", "drip 1000").await;
    client.until_started("a").await;
    client.generate("b", "say x").await;
    assert!(
        client.until_end("b").await.last().is_some_and(|f| f["error"]["message"].to_string().contains("at most 1"))
    );
    client.generate("a", "say x").await;
    let error = client.next_error().await;
    assert_eq!((error.get("id"), &error["error"]["param"]), (None, &json!("id")), "the running one is not ended");
    client.send(json!({"type": "cancel", "id": "a"})).await;
    assert_eq!(client.until_end("a").await.last().map(|f| &f["reason"]), Some(&json!("cancelled")));
}

impl Client {
    async fn until_started(&mut self, id: &str) {
        while let Some(frame) = self.next().await {
            if frame["type"] == "started" && frame["id"] == id {
                return;
            }
        }
        panic!("the socket closed");
    }

    async fn next_error(&mut self) -> Value {
        while let Some(frame) = self.next().await {
            if frame["type"] == "error" {
                return frame;
            }
        }
        panic!("the socket closed");
    }
}

#[tokio::test]
async fn a_client_who_leaves_cancels() {
    let server = start(|_| {}).await;
    let mut client = Client::open(&server).await;
    client.generate("a", "drip 1000").await;
    client.generate("b", "drip 1000").await;
    server.until_running(2).await;
    drop(client);
    server.until_running(0).await;
}

#[tokio::test]
async fn a_reader_who_stops_slows_and_is_dropped() {
    let server = start(|config| config.write_timeout = Duration::from_millis(200)).await;
    let mut client = Client::open(&server).await;
    // Enough words to fill every buffer between the engine and a client that reads none of them.
    let prompt = format!("say{}", " x".repeat(400_000));
    client.generate("a", &prompt).await;
    server.until_running(1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.until_running(0).await;
    let mut frames = 0;
    while client.next().await.is_some() {
        frames += 1;
    }
    assert!(frames < 400_000, "the generation must not have run to its end");
}

#[tokio::test]
async fn a_message_over_the_bound_closes_the_socket() {
    let server = start(|config| config.max_body_bytes = 100).await;
    let mut client = Client::open(&server).await;
    client.generate("a", "say x").await;
    assert_eq!(client.until_end("a").await.len(), 3);
    client.generate("a", &"x".repeat(100)).await;
    assert!(client.next().await.is_none());
}

#[tokio::test]
async fn a_silent_client_is_dropped_and_one_that_answers_pings_is_not() {
    let server = start(|config| {
        config.ping_interval = Duration::from_millis(50);
        config.pong_timeout = Duration::from_millis(200);
    })
    .await;
    let mut silent = Client::open(&server).await;
    let mut alive = Client::open(&server).await;
    // A tungstenite client answers pings only while it is read.
    let until = tokio::time::Instant::now() + Duration::from_millis(600);
    while let Ok(message) = tokio::time::timeout_at(until, alive.0.next()).await {
        assert!(matches!(message, Some(Ok(Message::Ping(_)))), "{message:?}");
    }
    alive.generate("a", "say x").await;
    assert_eq!(alive.until_end("a").await.len(), 3);
    assert!(silent.next().await.is_none());
}

#[tokio::test]
async fn a_drain_lets_a_socket_s_generations_end_and_then_closes_it() {
    let server = start(|_| {}).await;
    let mut busy = Client::open(&server).await;
    let mut idle = Client::open(&server).await;
    busy.generate("a", "drip 20").await;
    server.until_running(1).await;
    server.stop.send(()).expect("the server runs");
    assert!(idle.next().await.is_none());
    busy.generate("b", "say x").await;
    assert_eq!(busy.until_end("b").await.last().map(|f| &f["error"]["code"]), Some(&json!("draining")));
    assert_eq!(busy.until_end("a").await.last().map(|f| &f["reason"]), Some(&json!("stop")));
    assert!(busy.next().await.is_none());
    tokio::time::timeout(Duration::from_secs(5), server.ended).await.expect("the server ends").expect("no panic");
}

#[tokio::test]
async fn a_foreign_page_gets_no_socket() {
    let server = start(|_| {}).await;
    let mut request = format!("ws://{}/v1/stream", server.address).into_client_request().expect("a request");
    request.headers_mut().insert("origin", "http://evil.example".parse().expect("a header"));
    match connect_async(request).await {
        Err(Error::Http(answer)) => assert_eq!(answer.status(), 403),
        other => panic!("must be refused: {other:?}"),
    }
}
