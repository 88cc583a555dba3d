//! Texts as tokens and back, and the model's card.

use serde_json::json;
use specula_tests::{CHAT, METHODS, Server, TEXT, question, questions, with};

#[tokio::test]
async fn a_text_s_tokens_are_what_the_model_reads() {
    let server = Server::shared();
    for text in ["", "How do I list open ports?", "caf\u{e9} \u{1f600}\n\t<|im_end|>", &questions(2)[1]] {
        let reply = server.post("/tokenize", &json!({"prompt": text, "return_token_strs": true})).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let told = reply.json();
        let tokens = told["tokens"].as_array().expect("ids");
        assert_eq!((&told["count"], &told["max_model_len"]), (&json!(tokens.len()), &json!(1024)));
        assert_eq!(told["token_strs"].as_array().map(Vec::len), Some(tokens.len()));
        let back = server.post("/detokenize", &json!({"tokens": tokens})).await.json();
        assert_eq!(back, json!({"prompt": text}));
        if text.is_empty() {
            continue;
        }
        // The same answer, whether the text is sent or its tokens.
        let request = json!({"prompt": text, "seed": 4, "max_tokens": 8});
        let by_text = server.whole(TEXT, &request).await;
        let by_tokens = server.whole(TEXT, &with(&request, json!({"prompt": tokens}))).await;
        assert_eq!((by_text.text, by_text.usage), (by_tokens.text, by_tokens.usage), "{text:?}");
    }
}

#[tokio::test]
async fn a_chat_s_tokens_are_counted_as_its_answer_counts_them() {
    let server = Server::shared();
    let asked = question(1);
    let told = server.post("/tokenize", &json!({"messages": asked["messages"]})).await.json();
    let usage = server.whole(CHAT, &asked).await.usage.expect("usage");
    assert_eq!(told["count"], usage.prompt_tokens);
    assert!(told.get("token_strs").is_none(), "not asked for");
}

#[tokio::test]
async fn bad_tokens_and_fields_are_named() {
    let server = Server::shared();
    for (path, body, param) in [
        ("/tokenize", json!({}), "prompt"),
        ("/tokenize", json!({"prompt": "x", "messages": []}), "prompt"),
        ("/tokenize", json!({"prompt": 7}), "prompt"),
        ("/tokenize", json!({"prompt": "x", "add_special_tokens": true}), "add_special_tokens"),
        ("/detokenize", json!({}), "tokens"),
        ("/detokenize", json!({"tokens": [7, 4096]}), "tokens"),
        ("/detokenize", json!({"tokens": [-1]}), "tokens[0]"),
    ] {
        let reply = server.post(path, &body).await;
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{path} {body}");
    }
    let unknown = server.post("/tokenize", &json!({"prompt": "x", "model": "gpt"})).await;
    assert_eq!((unknown.status, &unknown.json()["error"]["code"]), (404, &json!("model_not_found")));
}

#[tokio::test]
async fn the_model_has_a_card_of_its_own() {
    let server = Server::shared();
    let list = server.get("/v1/models").await.json();
    let card = &list["data"][0];
    let name = card["id"].as_str().expect("a name");
    assert_eq!(&server.get(&format!("/v1/models/{name}")).await.json(), card);
    assert_eq!(card["methods"], json!(METHODS));
    assert_eq!((&card["context_length"], &card["vocab_size"]), (&json!(1024), &json!(4096)));
    assert_eq!(card["row_invariant"], true);
    for other in ["gpt-4", "some/hub-name", "%67pt-4"] {
        let reply = server.get(&format!("/v1/models/{other}")).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (404, &json!("model_not_found")), "{other}");
    }
}
