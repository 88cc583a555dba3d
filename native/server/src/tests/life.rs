//! Connections and the server's end: who hangs up, who dawdles, who still runs at the shutdown.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Running, read_answer, start};

async fn begin(server: &Running, body: &str) -> TcpStream {
    let mut stream = server.connect().await;
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        server.address,
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream
}

#[tokio::test]
async fn a_client_who_hangs_up_cancels() {
    let server = start(|_| {}).await;
    for body in [r#"{"prompt": "drip 1000"}"#, r#"{"prompt": "drip 1000", "stream": true}"#] {
        let stream = begin(&server, body).await;
        server.until_running(1).await;
        drop(stream);
        server.until_running(0).await;
    }
}

#[tokio::test]
async fn a_slow_head_and_a_slow_body_are_given_up() {
    let server = start(|config| {
        config.header_timeout = Duration::from_millis(100);
        config.body_timeout = Duration::from_millis(100);
    })
    .await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET / HT").await.expect("sent");
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "the connection must be closed");

    let mut stream = server.connect().await;
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{{",
        server.address
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let answer = read_answer(stream).await;
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (408, Some("body_timeout")));
}

#[tokio::test]
async fn a_chunked_body_is_counted_while_it_arrives() {
    let server = start(|config| config.max_body_bytes = 16).await;
    let mut stream = server.connect().await;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                transfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    for _ in 0..3 {
        stream.write_all(b"8\r\n        \r\n").await.expect("sent");
    }
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.expect("an answer before the body ends");
    assert_eq!(&status, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_client_that_writes_all_before_it_reads_gets_its_refusal() {
    let server = start(|config| config.max_body_bytes = 1 << 20).await;
    let body = " ".repeat(8 << 20);
    for kind in ["application/json", "text/plain"] {
        let mut stream = server.connect().await;
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream.write_all(body.as_bytes()).await.expect("the server takes the body it refuses");
        let status = if kind == "text/plain" { 415 } else { 413 };
        assert_eq!(read_answer(stream).await.status, status);
    }
}

#[tokio::test]
async fn a_client_that_asks_first_is_refused_before_it_sends() {
    let server = start(|config| config.max_body_bytes = 16).await;
    let mut stream = server.connect().await;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                expect: 100-continue\r\nconnection: close\r\ncontent-length: 17\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    assert_eq!(read_answer(stream).await.status, 413);
}

#[tokio::test]
async fn connections_over_the_bound_wait() {
    let server = start(|config| config.max_connections = 1).await;
    let first = server.connect().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let second = server.get("/healthz");
    tokio::pin!(second);
    let early = tokio::time::timeout(Duration::from_millis(200), second.as_mut()).await;
    assert!(early.is_err(), "the second connection must wait");
    drop(first);
    assert_eq!(second.await.status, 200);
}

#[tokio::test]
async fn a_drain_lets_running_answers_end_and_refuses_new_ones() {
    let server = start(|_| {}).await;
    let running = begin(&server, r#"{"prompt": "drip 30"}"#).await;
    let idle = server.connect().await;
    server.until_running(1).await;
    let Running { address, engine, stop, ended } = server;
    stop.send(()).expect("the server runs");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (unused, _) = tokio::sync::oneshot::channel();
    let late = Running { address, engine, stop: unused, ended: tokio::spawn(async {}) };
    let ready = late.get("/readyz").await;
    assert_eq!((ready.status, late.get("/healthz").await.status), (503, 200));
    let refused = late.post("/v1/completions", r#"{"prompt": "say x"}"#).await;
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (503, Some("draining")));
    assert!(refused.header("retry-after").is_some());
    let whole = read_answer(running).await;
    assert_eq!(whole.json()["choices"][0]["text"], "x".repeat(30));
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("the server ends").expect("no panic");
    drop(idle);
}

#[tokio::test]
async fn a_drain_does_not_wait_for_ever() {
    let server = start(|config| config.drain_timeout = Duration::from_millis(200)).await;
    let _running = begin(&server, r#"{"prompt": "drip 1000", "stream": true}"#).await;
    server.until_running(1).await;
    let begun = Instant::now();
    let Running { engine, stop, ended, .. } = server;
    stop.send(()).expect("the server runs");
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("the server ends").expect("no panic");
    assert!(begun.elapsed() >= Duration::from_millis(200));
    for _ in 0..100 {
        if engine.running() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the generation outlived the server");
}
