//! Many at once: no generation changes another's text, and there are only so many places.

use futures_util::future::join_all;
use serde_json::{Value, json};
use specula_tests::{Answer, CHAT, METHODS, Server, TEXT, bans_the_end, question, until, with};

#[tokio::test]
async fn generations_at_once_say_what_they_say_alone() {
    let server = Server::shared();
    let requests = mixed();
    let mut alone = Vec::new();
    for request in &requests {
        alone.push(server.whole(path(request), request).await);
    }
    let whole = join_all(requests.iter().map(|request| server.whole(path(request), request))).await;
    let streamed = join_all(requests.iter().map(|request| server.streamed(path(request), request))).await;
    let socket = over_one_socket(&server, &requests).await;
    for (i, request) in requests.iter().enumerate() {
        for together in [&whole[i], &streamed[i].answer, &socket[i]] {
            assert_eq!(together.text, alone[i].text, "{request}");
            assert_eq!(together.finish_reason, alone[i].finish_reason, "{request}");
            assert!(together.report.lossless, "{request}");
        }
    }
}

/// One request of each method, and more that differ in what they keep from round to round.
fn mixed() -> Vec<Value> {
    let methods = METHODS.iter().enumerate();
    let mut requests: Vec<Value> =
        methods.map(|(i, method)| with(&question(i), json!({"speculation": {"method": method}}))).collect();
    let wide = json!({"method": "mirror", "window": 8, "branch_budget": 32, "exit_layer": 2});
    requests.push(with(&question(4), json!({"speculation": wide, "temperature": 1.0})));
    requests.push(with(&question(5), json!({"plugins": [{"name": "min-p"}], "repetition_penalty": 1.2})));
    requests.push(json!({"prompt": "- List files", "seed": 7, "max_tokens": 32, "stop": "\n"}));
    requests
}

fn path(request: &Value) -> &'static str {
    if request.get("prompt").is_some() { TEXT } else { CHAT }
}

async fn over_one_socket(server: &Server, requests: &[Value]) -> Vec<Answer> {
    let mut socket = server.socket().await;
    for (i, request) in requests.iter().enumerate() {
        socket.generate(&i.to_string(), request).await;
    }
    socket.finish_all(requests.len()).await
}

#[tokio::test]
async fn a_full_server_says_when_to_come_back() {
    let server = Server::start(&["--max-running", "1", "--max-waiting", "1"]);
    let endless = with(&question(0), bans_the_end());
    let mut running = server.open(CHAT, &endless).await;
    running.next().await;
    let waiting = server.open(CHAT, &question(1)).await;
    until("one to run and one to wait", async || {
        let metrics = server.metrics().await;
        (metrics.running(), metrics.queued()) == (1.0, 1.0)
    })
    .await;
    let reply = server.post(CHAT, &question(2)).await;
    assert_eq!((reply.status, reply.json()["error"]["type"].as_str()), (429, Some("rate_limit_error")));
    let seconds: u64 = reply.header("retry-after").expect("a time to come back").parse().expect("seconds");
    assert!(seconds >= 1);
    let mut socket = server.socket().await;
    socket.generate("late", &question(2)).await;
    assert_eq!(socket.finish("late").await.expect_err("no place").code.as_deref(), Some("queue_full"));
    drop(running);
    assert!(!waiting.finish().await.answer.text.is_empty(), "who waited has its turn");
    until("all places to be free", async || server.metrics().await.queued() == 0.0).await;
    let metrics = server.metrics().await;
    assert_eq!((metrics.value("specula_generations_refused_total"), metrics.ended("cancelled")), (2.0, 1.0));
    assert!(!server.whole(CHAT, &question(2)).await.text.is_empty(), "and who was refused may come again");
}
