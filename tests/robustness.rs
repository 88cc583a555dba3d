//! Storms of what clients should not send and ways in which they should not behave, all made from one seed. The server answers
//! with a refusal or not at all; it never fails, hangs or grows, and a neighbour gets the text it gets alone.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use specula_tests::{CHAT, PATIENCE, Server, TEXT, in_time, question, until, with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((x ^ (x >> 31)) % sides as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.roll(of.len())]
    }
}

/// Streamed, so that hanging up ends whatever a mutation made of it.
fn requests() -> [(&'static str, Value); 4] {
    let chat = with(
        &question(0),
        json!({"max_tokens": 1, "stream": true, "top_p": 0.9, "stop": ["x", "y"],
        "logit_bias": {"7": -1.5}, "speculation": {"method": "mirror", "window": 4, "branch_budget": 8},
        "plugins": [{"name": "min-p", "config": {"min_p": 0.1}}], "logprobs": true, "top_logprobs": 2, "n": 2}),
    );
    let text = json!({"prompt": ["a", "b"], "max_tokens": 1, "stream": true, "echo": true, "logprobs": 2, "seed": 3});
    [
        (CHAT, chat),
        (TEXT, text),
        ("/tokenize", json!({"prompt": "caf\u{e9}", "return_token_strs": true})),
        ("/detokenize", json!({"tokens": [7, 300, 4095]})),
    ]
}

/// Changes one value somewhere inside.
fn mutate(value: &mut Value, dice: &mut Dice) {
    let strange = [
        json!(null),
        json!(-1),
        json!(1e308),
        json!(0.5),
        json!(u64::MAX),
        json!(""),
        json!("\u{0}\u{fffd}"),
        json!([]),
        json!({}),
        json!([[[[]]]]),
        json!(true),
        json!({"type": "text"}),
        json!("x".repeat(5000)),
        json!([0, -0.0, "a"]),
    ];
    let inner = match value {
        Value::Object(fields) if !fields.is_empty() && dice.roll(5) > 0 => {
            let at = dice.roll(fields.len());
            fields.values_mut().nth(at)
        }
        Value::Array(values) if !values.is_empty() && dice.roll(5) > 0 => {
            let at = dice.roll(values.len());
            values.get_mut(at)
        }
        _ => None,
    };
    match inner {
        Some(inner) => mutate(inner, dice),
        None => *value = strange[dice.roll(strange.len())].clone(),
    }
}

/// Changes bytes.
fn damage(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.roll(3) {
        let at = dice.roll(bytes.len().max(1));
        match dice.roll(4) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] = dice.roll(256) as u8,
            2 => bytes
                .splice(at..at, [0xFF, b'{', b'"', 0, b'\n'][dice.roll(5)..].iter().copied().take(1))
                .for_each(drop),
            _ => bytes.extend_from_within(at.min(bytes.len())..),
        }
    }
}

/// The same text as before the storm.
async fn neighbour(server: &Server, alone: &str) {
    let answer = in_time("the neighbour", async {
        loop {
            // A storm may fill the queue for a moment, which is no failure.
            let reply = server.post(CHAT, &question(1)).await;
            if reply.status != 429 {
                return reply;
            }
        }
    });
    let reply = answer.await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["choices"][0]["message"]["content"], alone);
}

async fn bodies(server: &Arc<Server>, count: usize) {
    let mut dice = Dice(1);
    let mut sent = JoinSet::new();
    for _ in 0..count {
        let (path, mut request) = requests()[dice.roll(4)].clone();
        if dice.roll(3) > 0 {
            mutate(&mut request, &mut dice);
        }
        let mut body = request.to_string().into_bytes();
        if dice.roll(3) == 0 {
            damage(&mut body, &mut dice);
        }
        let kind =
            dice.pick(&["application/json", "application/json; charset=utf-8", "text/plain", "", "\u{e9}"]).to_owned();
        let server = server.clone();
        sent.spawn(async move {
            let mut request = server.request(Method::POST, path).body(body.clone());
            if let Ok(kind) = reqwest::header::HeaderValue::from_str(&kind) {
                request = request.header("content-type", kind);
            }
            // The head is enough; dropping the rest hangs up.
            let status = request.send().await.expect("an answer").status().as_u16();
            assert!(
                matches!(status, 200 | 400 | 404 | 413 | 415 | 429),
                "{status} for {}",
                String::from_utf8_lossy(&body)
            );
        });
        while sent.len() >= 8 {
            sent.join_next().await.expect("one is sent").expect("no answer was wrong");
        }
    }
    while let Some(done) = sent.join_next().await {
        done.expect("no answer was wrong");
    }
}

/// Sends bytes, ends the sending side and reads what comes.
async fn raw(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address()).await.expect("the server accepts");
    // It may refuse and close before it has read all.
    stream.write_all(bytes).await.ok();
    stream.shutdown().await.ok();
    let mut answer = Vec::new();
    in_time("the connection's end", stream.read_to_end(&mut answer)).await.ok();
    answer
}

async fn heads(server: &Server, count: usize) {
    let mut dice = Dice(2);
    let address = server.address();
    for i in 0..count {
        let many = "x: y\r\n".repeat(100);
        let long = format!("x: {}\r\n", "y".repeat(80_000));
        let extra = dice.pick(&[
            "",
            "content-length: -1\r\n",
            "content-length: 5\r\ncontent-length: 6\r\n",
            "transfer-encoding: chunked\r\n",
            "content-length: 99999999999999999999\r\n",
            "transfer-encoding: gzip, chunked\r\ncontent-length: 3\r\n",
            "expect: 100-continue\r\n",
            "upgrade: websocket\r\nconnection: upgrade\r\n",
            "host: a\r\nhost: b\r\n",
            "origin: \u{1}\r\n",
            "x-request-id: a b\r\n",
            " folded: x\r\n",
            "no colon\r\n",
            &many,
            &long,
        ]);
        let line = dice.pick(&[
            "GET / HTTP/1.1",
            "POST /v1/completions HTTP/1.1",
            "GET /v1/stream HTTP/1.1",
            "GET /v1/models/%00%ff HTTP/1.1",
            "BREW /v1/models HTTP/1.1",
            "GET http://[::1 HTTP/1.1",
            "GET / HTTP/9.9",
            "PRI * HTTP/2.0",
            "GET  /  HTTP/1.1",
            "",
        ]);
        let body = dice.pick(&["", "{}", "5\r\nhello\r\n0\r\n\r\n", "ffffffffffffffff\r\n", "zz\r\n"]);
        let mut bytes = format!("{line}\r\nhost: {address}\r\n{extra}\r\n{body}").into_bytes();
        if i % 2 == 0 {
            damage(&mut bytes, &mut dice);
        }
        let answer = raw(server, &bytes).await;
        if let Some(status) = answer.strip_prefix(b"HTTP/1.1 ").or(answer.strip_prefix(b"HTTP/1.0 ")) {
            assert!(status[0] < b'5', "{} for {}", String::from_utf8_lossy(&answer), String::from_utf8_lossy(&bytes));
        } else {
            assert!(answer.is_empty(), "no HTTP: {}", String::from_utf8_lossy(&answer));
        }
    }
}

async fn frames(server: &Server, count: usize) {
    let mut dice = Dice(3);
    let mut socket = server.socket().await;
    for i in 0..count {
        let id = format!("f{i}");
        let mut asked = json!({"prompt": "a", "max_tokens": 1, "seed": 2, "stop": ["x"], "speculation": {"window": 3}});
        mutate(&mut asked, &mut dice);
        if !asked.is_object() {
            // No frame of ours: answered without an id.
            socket.send(&asked).await;
            socket.finish(&id).await.expect_err("no frame");
            continue;
        }
        // A wrong one is answered by an error; one that is still right runs to its end.
        socket.generate(&id, &asked).await;
        socket.finish(&id).await.ok();
    }
    let answer = socket.answer(&json!({"prompt": "a", "max_tokens": 2, "seed": 1})).await;
    assert_eq!(answer.tokens(), 2, "the socket lives on");

    let upgrade = "GET /v1/stream HTTP/1.1\r\nhost: HOST\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let upgrade = upgrade.replace("HOST", &server.address().to_string());
    for _ in 0..count / 2 {
        let mut bytes = upgrade.clone().into_bytes();
        bytes.extend((0..1 + dice.roll(200)).map(|_| dice.roll(256) as u8));
        let answer = raw(server, &bytes).await;
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    }
}

/// Clients that dribble, stop in the middle, never read, or leave at once.
async fn vanishing(server: &Arc<Server>, count: usize, alone: &str) {
    let mut dice = Dice(4);
    let mut held = Vec::new();
    let endless = json!({"prompt": "x", "ignore_eos": true, "stream": true, "seed": 5}).to_string();
    for i in 0..count {
        let head = format!(
            "POST {TEXT} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            server.address(),
            endless.len()
        );
        let whole = (head + &endless).into_bytes();
        let sent = match i % 4 {
            0 => whole.len(),
            _ => dice.roll(whole.len()),
        };
        let mut stream = TcpStream::connect(server.address()).await.expect("the server accepts");
        stream.write_all(&whole[..sent]).await.expect("sent");
        match i % 3 {
            0 => held.push(stream),
            1 => drop(stream),
            // Leaves with the first bytes of an answer, if there is to be one.
            _ if sent == whole.len() => {
                stream.read(&mut [0; 16]).await.map(drop).unwrap_or_default();
            }
            _ => stream.shutdown().await.unwrap_or_default(),
        }
        if held.len() > 20 {
            held.swap_remove(dice.roll(20));
        }
    }
    neighbour(server, alone).await;
}

/// Connections that say nothing, or half a head, and sockets that ask for nothing.
async fn idle(server: &Arc<Server>, alone: &str) {
    let mut silent = Vec::new();
    let mut sockets = Vec::new();
    for i in 0..250 {
        let mut stream = TcpStream::connect(server.address()).await.expect("the server accepts");
        if i % 2 == 0 {
            stream.write_all(b"GET /v1/models HTTP/1.1\r\nx-half").await.expect("sent");
        }
        silent.push(stream);
        sockets.push(server.socket().await);
    }
    neighbour(server, alone).await;
    let streamed = server.streamed(CHAT, &question(1)).await.answer;
    assert_eq!(streamed.text, alone);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storms_leave_nothing_behind() {
    let server = Arc::new(Server::start(&["--log", "warn"]));
    let alone = server.whole(CHAT, &question(1)).await.text;
    // The first of each kind fills pools and caches that are kept.
    bodies(&server, 200).await;
    idle(&server, &alone).await;
    at_rest(&server).await;
    let before = server.resources();

    bodies(&server, 2000).await;
    heads(&server, 1000).await;
    frames(&server, 300).await;
    vanishing(&server, 300, &alone).await;
    idle(&server, &alone).await;
    at_rest(&server).await;

    let calm = async || server.resources().files <= before.files + 4;
    until("all connections to be given back", calm).await;
    let after = server.resources();
    assert!(after.memory_bytes < before.memory_bytes + (48 << 20), "{before:?} grew to {after:?}");
    neighbour(&server, &alone).await;
    assert!(!server.log().contains("panicked") && !server.log().contains("ERROR"), "{}", server.log());
}

/// No generation runs or waits.
async fn at_rest(server: &Server) {
    let rest = async || {
        let metrics = server.metrics().await;
        metrics.value("specula_generations_running") == 0.0 && metrics.value("specula_generations_queued") == 0.0
    };
    until("all generations to end", rest).await;
}

#[tokio::test]
async fn who_takes_too_long_is_given_up() {
    let server = Server::start(&["--header-seconds", "1", "--body-seconds", "1"]);
    for (begun, end) in [
        ("", ""),
        ("GET /v1/models HTTP/1.1\r\nhost", ""),
        (
            "POST /v1/completions HTTP/1.1\r\nhost: HOST\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
            " 408 ",
        ),
    ] {
        let mut stream = TcpStream::connect(server.address()).await.expect("the server accepts");
        let begun = begun.replace("HOST", &server.address().to_string());
        stream.write_all(begun.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        in_time("the connection's end", stream.read_to_string(&mut answer)).await.expect("an end");
        assert!(answer.contains(end) && answer.is_empty() == end.is_empty(), "{begun:?}: {answer}");
    }
}

#[tokio::test]
async fn prompts_too_long_and_too_short_are_refused() {
    let server = Server::shared();
    let long = "word ".repeat(150_000);
    for (path, body, param) in [
        (TEXT, json!({"prompt": long}), "prompt"),
        (CHAT, json!({"messages": [{"role": "user", "content": long}]}), "prompt"),
        (TEXT, json!({"prompt": vec![7; 1024]}), "prompt"),
        (TEXT, json!({"prompt": ""}), "prompt"),
        (TEXT, json!({"prompt": []}), "prompt"),
        (TEXT, json!({"prompt": [[]]}), "prompt"),
        (TEXT, json!({"prompt": "x", "max_tokens": 0}), "max_tokens"),
        (CHAT, json!({"messages": []}), "messages"),
    ] {
        let reply = server.post(path, &body).await;
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{}", reply.text());
    }
    let most = server.post(TEXT, &json!({"prompt": vec![300; 1023], "seed": 1})).await.json();
    assert_eq!(
        (&most["usage"]["completion_tokens"], &most["choices"][0]["finish_reason"]),
        (&json!(1), &json!("length"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_cuts_no_answer_short() {
    let server = Arc::new(Server::start(&["--max-waiting", "64"]));
    let mut clients = JoinSet::new();
    for client in 0..16_usize {
        let server = server.clone();
        clients.spawn(async move {
            let mut whole = 0;
            for turn in 0.. {
                let path = if client.is_multiple_of(2) { CHAT } else { TEXT };
                let asked = json!({"seed": turn, "max_tokens": 24, "stream": client % 4 < 2});
                let asked = match path {
                    CHAT => with(&question(client), asked),
                    _ => with(&json!({"prompt": "- List all files"}), asked),
                };
                let reply = server.request(Method::POST, path).header("content-type", "application/json");
                // Refused connections and closed ones without an answer are what a client of a server that left sees.
                let Ok(reply) = reply.body(asked.to_string()).send().await else { return whole };
                match reply.status().as_u16() {
                    200 => {
                        let text = reply.text().await.expect("an answer once begun is not cut off");
                        let complete =
                            if client % 4 < 2 { text.ends_with("data: [DONE]\n\n") } else { text.ends_with('}') };
                        assert!(complete, "{text}");
                        whole += 1;
                    }
                    503 => return whole,
                    other => panic!("{other}: {}", reply.text().await.unwrap_or_default()),
                }
            }
            whole
        });
    }
    until("the load", async || server.metrics().await.ended("finished") >= 16.0).await;
    server.terminate();
    let mut answered = 0;
    while let Some(client) = clients.join_next().await {
        answered += client.expect("no client saw a fault");
    }
    assert!(answered >= 16);
    let status = tokio::time::timeout(PATIENCE, server.end()).await.expect("the server ends");
    assert!(status.success(), "{status}");
}
