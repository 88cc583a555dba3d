//! Clients that leave and a server that is told to: nothing goes on for nobody, nothing is cut off.
//!
//! The generations here are endless, so that only a cancellation can end them before the context does: what counts as
//! `cancelled` did not run to its end.

use serde_json::json;
use specula_tests::{CHAT, Server, bans_the_end, in_time, question, until, with};

#[tokio::test]
async fn a_client_that_hangs_up_frees_its_place() {
    let server = Server::start(&["--max-running", "1", "--max-waiting", "0"]);
    let endless = with(&question(0), bans_the_end());

    let mut stream = server.open(CHAT, &endless).await;
    stream.next().await;
    drop(stream);
    all_gone(&server, 1.0).await;

    let mut socket = server.socket().await;
    socket.generate("a", &endless).await;
    socket.next().await;
    drop(socket);
    all_gone(&server, 2.0).await;

    let begun = until("a place to be taken", async || server.metrics().await.running() == 1.0);
    // The answer in one piece: its client leaves as soon as it runs.
    tokio::select! {
        reply = server.post(CHAT, &endless) => panic!("an endless text ended: {reply:?}"),
        () = begun => {}
    }
    all_gone(&server, 3.0).await;
    assert_eq!(server.whole(CHAT, &with(&question(0), json!({"max_tokens": 3}))).await.tokens(), 3);
}

#[tokio::test]
async fn who_leaves_the_queue_frees_its_place_at_once() {
    let server = Server::start(&["--max-running", "1", "--max-waiting", "1"]);
    let endless = with(&question(0), bans_the_end());
    let mut running = server.open(CHAT, &endless).await;
    running.next().await;
    let queued = async |count: f64| until("the queue", async || server.metrics().await.queued() == count).await;

    let waiting = server.open(CHAT, &question(1)).await;
    queued(1.0).await;
    drop(waiting);
    queued(0.0).await;

    let mut socket = server.socket().await;
    socket.generate("a", &question(1)).await;
    queued(1.0).await;
    drop(socket);
    queued(0.0).await;

    let mut socket = server.socket().await;
    socket.generate("a", &question(1)).await;
    queued(1.0).await;
    socket.cancel("a").await;
    let cancelled = socket.finish("a").await.expect("a cancelled generation is told as finished");
    assert_eq!((cancelled.finish_reason.as_str(), cancelled.tokens()), ("cancelled", 0));
    until("who runs to run on alone", async || {
        let metrics = server.metrics().await;
        (metrics.running(), metrics.queued(), metrics.ended("cancelled")) == (1.0, 0.0, 3.0)
    })
    .await;
    drop(running);
    all_gone(&server, 4.0).await;
}

#[tokio::test]
async fn a_cancelled_generation_says_so_and_the_socket_lives_on() {
    let server = Server::shared();
    let mut socket = server.socket().await;
    socket.generate("endless", &with(&question(0), bans_the_end())).await;
    socket.next().await;
    socket.cancel("nobody").await;
    socket.cancel("endless").await;
    let answer = socket.finish("endless").await.expect("a cancelled generation is told as finished");
    assert_eq!(answer.finish_reason, "cancelled");
    assert!(answer.report.lossless && answer.usage.is_some());
    let alone = server.whole(CHAT, &question(1)).await;
    assert_eq!(socket.answer(&question(1)).await.text, alone.text);
}

#[tokio::test]
async fn sigterm_lets_what_runs_end_and_takes_nothing_new() {
    let server = Server::start(&[]);
    let long = with(&question(0), json!({"max_tokens": 160, "logit_bias": bans_the_end()["logit_bias"]}));
    let alone = server.whole(CHAT, &long).await;
    let mut running = server.open(CHAT, &long).await;
    running.next().await;
    server.terminate();
    until("the drain to begin", async || server.get("/readyz").await.status == 503).await;
    assert_eq!(server.get("/healthz").await.status, 200, "it lives while it drains");
    let refused = server.post(CHAT, &question(1)).await;
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (503, Some("draining")));
    assert!(refused.header("retry-after").is_some());
    let answer = in_time("the running generation", running.finish()).await.answer;
    assert_eq!((answer.text, answer.finish_reason), (alone.text, alone.finish_reason));
    assert_eq!(server.end().await.code(), Some(0), "{}", server.log());
}

/// Waits until nothing runs or waits, and so many were cancelled; none may have reached its end.
async fn all_gone(server: &Server, cancelled: f64) {
    until("the places to be free", async || {
        let metrics = server.metrics().await;
        metrics.running() + metrics.queued() == 0.0 && metrics.ended("cancelled") == cancelled
    })
    .await;
}
