//! One text, however it is asked for: in one piece, streamed, over the socket, on the command line.

use serde_json::{Value, json};
use specula_protocol::ServerFrame;
use specula_tests::{Answer, CHAT, Server, TEXT, generate, question, questions, with};

#[tokio::test]
async fn a_chat_is_the_same_by_every_way() {
    let server = Server::shared();
    let request = question(0);
    let whole = server.whole(CHAT, &request).await;
    assert!(!whole.text.is_empty());
    let counted = with(&request, json!({"stream_options": {"include_usage": true}}));
    same(&server.streamed(CHAT, &counted).await.answer, &whole);
    same(&server.socket().await.answer(&request).await, &whole);
    let seed = request["seed"].to_string();
    let args = ["--prompt", &questions(1)[0], "--seed", &seed, "--max-tokens", "32", "--temperature", "0.7"];
    same(&generate(&args).answer, &whole);
}

#[tokio::test]
async fn a_text_is_the_same_by_every_way() {
    let server = Server::shared();
    let request = json!({"prompt": "- List all files", "seed": 5, "max_tokens": 24, "temperature": 1.0});
    let whole = server.whole(TEXT, &request).await;
    let counted = with(&request, json!({"stream_options": {"include_usage": true}}));
    same(&server.streamed(TEXT, &counted).await.answer, &whole);
    same(&server.socket().await.answer(&request).await, &whole);
    same(&generate(&["--text=- List all files", "--seed", "5", "--max-tokens", "24"]).answer, &whole);
}

/// All that must not depend on the way: timing, and with it hits, may differ.
#[track_caller]
fn same(one: &Answer, other: &Answer) {
    assert_eq!(one.text, other.text);
    assert_eq!(one.finish_reason, other.finish_reason);
    assert_eq!(one.usage, other.usage);
    let usage = one.usage.expect("usage is told");
    assert_eq!(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
    assert_eq!((one.report.seed, &one.report.settings), (other.report.seed, &other.report.settings));
    assert!(one.report.lossless && other.report.lossless);
}

#[tokio::test]
async fn a_stream_has_openai_s_order() {
    let server = Server::shared();
    let counted = with(&question(1), json!({"stream_options": {"include_usage": true}}));
    let chunks = server.streamed(CHAT, &counted).await.chunks;
    let [first, pieces @ .., last, usage] = chunks.as_slice() else { panic!("too few chunks: {chunks:?}") };
    assert_eq!(first["choices"][0]["delta"]["role"], "assistant");
    assert!(!pieces.is_empty() && pieces.iter().all(|piece| piece["choices"][0]["delta"]["content"].is_string()));
    assert!(last["choices"][0]["finish_reason"].is_string() && last["specula"].is_object());
    assert_eq!(usage["choices"], json!([]));
    assert!(usage["usage"]["completion_tokens"].is_u64());
    for chunk in &chunks {
        assert_eq!((&chunk["object"], &chunk["id"]), (&json!("chat.completion.chunk"), &first["id"]));
    }
    // OpenAI: with include_usage every other chunk has the field too, as null; without it none has.
    let others = &chunks[..chunks.len() - 1];
    assert!(others.iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)), "{others:?}");
    let uncounted = server.streamed(CHAT, &question(1)).await.chunks;
    assert!(uncounted.iter().all(|chunk| chunk.get("usage").is_none()), "{uncounted:?}");
}

#[tokio::test]
async fn the_report_says_what_was_done() {
    let server = Server::shared();
    let answer = server.whole(CHAT, &question(1)).await;
    let report = &answer.report;
    assert_eq!((report.settings.method.as_str(), report.seed), ("auto", 41), "auto is the default");
    assert_eq!(report.chosen.values().sum::<u64>(), report.rounds, "every round was some method's: {report:?}");
    let mirrored = server.whole(CHAT, &with(&question(1), json!({"speculation": {"method": "mirror"}}))).await;
    assert_eq!(mirrored.text, answer.text);
    let (answer, report) = (&mirrored, &mirrored.report);
    assert!(report.settings.method == "mirror" && report.chosen.is_empty());
    assert_eq!(answer.finish_reason, "length", "an end token could be an accepted one, which none follows");
    assert_eq!(report.rounds + report.accepted, answer.tokens(), "a round adds one token to those accepted");
    assert!(report.hits > 0, "the mirror hits at times: {report:?}");
    assert_eq!(report.hits_from_draft + report.hits_from_exit, report.hits);
    assert_eq!(report.hits + report.misses + 1, report.rounds, "every round but the first hits or misses");
    assert!(report.drafted >= report.accepted && report.coverage.is_some_and(|share| (0.0..=1.0).contains(&share)));
    let plain = server.whole(CHAT, &with(&question(1), json!({"speculation": {"method": "none"}}))).await;
    assert_eq!(
        (plain.text, plain.report.rounds, plain.report.drafted),
        (answer.text.clone(), answer.usage.as_ref().expect("usage").completion_tokens, 0)
    );
}

#[tokio::test]
async fn a_text_ends_at_its_limit_its_end_or_its_stop() {
    let server = Server::shared();
    let request = with(&question(0), json!({"max_tokens": 5}));
    let cut = server.whole(CHAT, &request).await;
    assert_eq!((cut.finish_reason.as_str(), cut.tokens()), ("length", 5));
    let ended = server.whole(CHAT, &with(&request, json!({"max_tokens": null, "temperature": 0}))).await;
    assert_eq!(ended.finish_reason, "stop");
    let word = ended.text.split_whitespace().nth(2).expect("an answer of some words");
    for stop in [json!(word), json!(["never said", word])] {
        let stopped = with(&request, json!({"max_tokens": null, "temperature": 0, "stop": stop}));
        let (before, _) = ended.text.split_once(word).expect("the word is in the text");
        let whole = server.whole(CHAT, &stopped).await;
        assert_eq!((whole.text.as_str(), whole.finish_reason.as_str()), (before, "stop"), "the stop is not shown");
        assert!(whole.tokens() < ended.tokens());
        assert_eq!(server.streamed(CHAT, &stopped).await.answer.text, before, "nor is its beginning streamed");
    }
}

#[tokio::test]
async fn a_socket_tells_rounds_as_they_come() {
    let server = Server::shared();
    let mut socket = server.socket().await;
    socket.generate("a", &question(0)).await;
    let first = socket.next().await;
    assert!(matches!(&first, ServerFrame::Started { id, seed: 40, method, .. } if id == "a" && method == "auto"));
    let (mut rounds, mut tokens) = (0, 0);
    let (usage, report) = loop {
        match socket.next().await {
            ServerFrame::Round { tokens: new, window, accepted, lanes, .. } => {
                assert!(accepted <= window && new.len() as u64 <= accepted + 1 && !lanes.is_empty());
                assert!(lanes.iter().all(|lane| lane.start_us <= lane.end_us), "{lanes:?}");
                rounds += 1;
                tokens += new.len() as u64;
            }
            ServerFrame::Finished { usage, specula, .. } => break (usage, specula),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((rounds, tokens), (report.rounds, usage.completion_tokens));
}

#[tokio::test]
async fn a_history_is_part_of_the_question() {
    let server = Server::shared();
    let said = |role: &str, content: &str| json!({"role": role, "content": content});
    let alone = json!({"messages": [said("user", "How do I use tar?")], "seed": 1, "max_tokens": 16});
    let history =
        [said("user", "How do I use ls?"), said("assistant", "List files."), said("user", "How do I use tar?")];
    let (alone, after) =
        (server.whole(CHAT, &alone).await, server.whole(CHAT, &with(&alone, json!({"messages": history}))).await);
    assert!(after.usage.expect("usage").prompt_tokens > alone.usage.expect("usage").prompt_tokens);
    assert_ne!(after.text, alone.text);
    let parts = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "How do I "}, {"type": "text", "text": "use tar?"}]}]});
    assert_eq!(server.whole(CHAT, &with(&json!({"seed": 1, "max_tokens": 16}), parts)).await.text, alone.text);
}
