//! Several choices of one request, their log-probabilities, and the echo of a prompt: OpenAI's shapes with numbers that
//! hold together.

use serde_json::{Value, json};
use specula_tests::{CHAT, METHODS, Server, TEXT, question, with};

async fn posted(server: &Server, path: &str, request: &Value) -> Value {
    let reply = server.post(path, request).await;
    assert_eq!(reply.status, 200, "{request}: {}", reply.text());
    reply.json()
}

fn text(choice: &Value) -> &str {
    choice["message"]["content"].as_str().or(choice["text"].as_str()).expect("a text")
}

#[tokio::test]
async fn choices_differ_and_the_first_is_what_one_alone_gives() {
    let server = Server::shared();
    let three = with(&question(0), json!({"n": 3, "temperature": 1}));
    let whole = posted(&server, CHAT, &three).await;
    let choices = whole["choices"].as_array().expect("choices");
    let texts: Vec<_> = choices.iter().map(text).collect();
    assert_eq!(texts.len(), 3);
    assert!(texts[0] != texts[1] && texts[1] != texts[2] && texts[0] != texts[2], "{texts:?}");
    for (index, choice) in choices.iter().enumerate() {
        assert_eq!((&choice["index"], &choice["specula"]["seed"]), (&json!(index), &json!(40)));
    }
    let one = posted(&server, CHAT, &with(&three, json!({"n": 1}))).await;
    assert_eq!(text(&one["choices"][0]), texts[0]);
    assert_eq!(whole["usage"]["prompt_tokens"], one["usage"]["prompt_tokens"], "a prompt is counted once");

    for method in METHODS {
        let again = posted(&server, CHAT, &with(&three, json!({"speculation": {"method": method}}))).await;
        let again = again["choices"].as_array().expect("choices").iter().map(text);
        assert!(again.eq(texts.iter().copied()), "{method}");
    }
    let streamed = with(&three, json!({"stream_options": {"include_usage": true}}));
    let chunks = server.open(CHAT, &streamed).await.events().await;
    let mut joined = vec![String::new(); 3];
    for choice in chunks.iter().filter_map(|chunk| chunk["choices"].get(0)) {
        let index = choice["index"].as_u64().expect("an index") as usize;
        joined[index] += choice["delta"]["content"].as_str().unwrap_or_default();
    }
    assert_eq!(joined, texts);
    assert_eq!(chunks.last().map(|chunk| &chunk["usage"]), Some(&whole["usage"]));
}

#[tokio::test]
async fn every_prompt_has_its_choices_in_order() {
    let server = Server::shared();
    let request = json!({"prompt": ["- List all files", "- Show the date"], "n": 2, "seed": 3, "max_tokens": 8});
    let both = posted(&server, TEXT, &request).await;
    let mut apart = Vec::new();
    for prompt in ["- List all files", "- Show the date"] {
        let one = posted(&server, TEXT, &with(&request, json!({"prompt": prompt}))).await;
        apart.extend(one["choices"].as_array().expect("choices").iter().map(|choice| text(choice).to_owned()));
    }
    let together: Vec<_> = both["choices"].as_array().expect("choices").iter().map(text).collect();
    assert_eq!(together, apart);
}

#[tokio::test]
async fn a_chat_tells_log_probabilities() {
    let server = Server::shared();
    let asked = with(&question(1), json!({"logprobs": true, "top_logprobs": 3, "temperature": 0, "max_tokens": 12}));
    let whole = posted(&server, CHAT, &asked).await;
    let choice = &whole["choices"][0];
    let content = choice["logprobs"]["content"].as_array().expect("an entry for each token");
    assert_eq!(content.len() as u64, whole["usage"]["completion_tokens"].as_u64().expect("a count"));
    let spelled: String = content.iter().map(|entry| entry["token"].as_str().expect("a token")).collect();
    assert_eq!(spelled, text(choice));
    for entry in content {
        let top = entry["top_logprobs"].as_array().expect("rivals");
        let values: Vec<f64> = top.iter().map(|rival| rival["logprob"].as_f64().expect("a number")).collect();
        assert_eq!(values.len(), 3);
        assert!(values.is_sorted_by(|a, b| a >= b) && values[0] <= 0.0, "{values:?}");
        // Greedy: the token taken is the likeliest.
        assert_eq!((&entry["token"], &entry["logprob"]), (&top[0]["token"], &top[0]["logprob"]));
    }
    for method in METHODS {
        let again = posted(&server, CHAT, &with(&asked, json!({"speculation": {"method": method}}))).await;
        assert_eq!(again["choices"][0]["logprobs"], choice["logprobs"], "{method}");
    }
    let chunks = server.open(CHAT, &asked).await.events().await;
    let pieces = chunks.iter().filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array());
    assert!(pieces.flatten().eq(content), "a stream tells the same");
    let unasked = posted(&server, CHAT, &question(1)).await;
    assert_eq!(unasked["choices"][0]["logprobs"], Value::Null);
}

#[tokio::test]
async fn processed_log_probabilities_are_of_what_is_drawn_from() {
    let server = Server::shared();
    let asked =
        with(&question(1), json!({"logprobs": true, "top_logprobs": 4, "top_k": 2, "logprobs_mode": "processed"}));
    let whole = posted(&server, CHAT, &asked).await;
    for entry in whole["choices"][0]["logprobs"]["content"].as_array().expect("entries") {
        let logprob = |rival: &Value| rival["logprob"].as_f64().expect("a number");
        let top: Vec<f64> = entry["top_logprobs"].as_array().expect("rivals").iter().map(logprob).collect();
        let kept: f64 = top.iter().map(|value| value.exp()).sum();
        assert!(top.len() == 2 && (kept - 1.0).abs() < 1e-4, "two tokens have all the mass: {top:?}");
    }
    let raw = posted(&server, CHAT, &with(&asked, json!({"logprobs_mode": "raw"}))).await;
    assert_eq!(text(&raw["choices"][0]), text(&whole["choices"][0]), "what is told changes nothing");
    assert_ne!(raw["choices"][0]["logprobs"], whole["choices"][0]["logprobs"]);
}

#[tokio::test]
async fn an_echo_tells_the_prompt_before_the_text() {
    let server = Server::shared();
    let prompt = "- List all files: caf\u{e9}";
    let plain = json!({"prompt": prompt, "seed": 3, "max_tokens": 6, "temperature": 0});
    let answer = text(&posted(&server, TEXT, &plain).await["choices"][0]).to_owned();
    let asked = with(&plain, json!({"echo": true, "logprobs": 2}));
    let whole = posted(&server, TEXT, &asked).await;
    let choice = &whole["choices"][0];
    assert_eq!(text(choice), format!("{prompt}{answer}"));
    let list = |field: &str| choice["logprobs"][field].as_array().expect(field);
    let usage = &whole["usage"]["total_tokens"];
    for field in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(&json!(list(field).len()), usage, "{field}");
    }
    assert!(list("token_logprobs")[0].is_null() && list("token_logprobs")[1..].iter().all(Value::is_f64));
    let chunks = server.open(TEXT, &asked).await.events().await;
    let joined: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str()).collect();
    assert_eq!(joined, text(choice));

    // The prompt alone: to judge a given text.
    let judged = posted(&server, TEXT, &with(&asked, json!({"max_tokens": 0}))).await;
    assert_eq!((text(&judged["choices"][0]), &judged["usage"]["completion_tokens"]), (prompt, &json!(0)));
    let told = judged["choices"][0]["logprobs"]["token_logprobs"].as_array().expect("the prompt's");
    assert_eq!(told[..], list("token_logprobs")[..told.len()]);
    // What the model says of its own greedy words as a prompt is what it said when it chose them.
    let own = posted(&server, TEXT, &with(&asked, json!({"prompt": text(choice), "max_tokens": 0}))).await;
    let own = own["choices"][0]["logprobs"]["token_logprobs"].as_array().expect("the prompt's");
    if own.len() == list("token_logprobs").len() {
        assert_eq!(own, list("token_logprobs"));
    }
}

#[tokio::test]
async fn a_text_goes_on_to_its_least_length_and_past_end_tokens() {
    let server = Server::shared();
    let request = with(&question(0), json!({"temperature": 0, "max_tokens": null}));
    let ended = server.whole(CHAT, &request).await;
    assert_eq!(ended.finish_reason, "stop");
    let least = ended.tokens() + 10;
    for method in METHODS {
        let method = json!({"speculation": {"method": method}});
        let longer = with(&with(&request, method.clone()), json!({"min_tokens": least, "max_tokens": least + 5}));
        let longer = server.whole(CHAT, &longer).await;
        assert!(longer.tokens() >= least && longer.text.starts_with(&ended.text), "{longer:?}");
        let past = with(&with(&request, method), json!({"ignore_eos": true, "max_tokens": least}));
        let past = server.whole(CHAT, &past).await;
        assert_eq!((past.finish_reason.as_str(), past.tokens()), ("length", least));
        assert!(past.text.starts_with(&ended.text));
    }
}
