//! What is asked: questions that the embedded pair never saw, and requests made of them.

use serde::Deserialize;
use serde_json::{Value, json};

/// All methods on offer.
pub const METHODS: [&str; 7] = ["auto", "none", "sps", "lookup", "recycling", "ssd", "mirror"];

#[derive(Deserialize)]
struct Prompt {
    short: String,
    long: String,
}

/// The first `count` validation questions, long and short in turn, each of another page.
pub fn questions(count: usize) -> Vec<String> {
    let path = specula_guests::root().join("native/weights/prompts.jsonl");
    let lines = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let prompts = lines.lines().map(|line| serde_json::from_str::<Prompt>(line).expect("a prompt"));
    let asked = prompts.enumerate().map(|(i, p)| if i % 2 == 0 { p.long } else { p.short });
    asked.take(count).collect()
}

/// A seeded chat request that asks validation question number `i`.
pub fn question(i: usize) -> Value {
    let content = questions(i + 1).swap_remove(i);
    json!({"messages": [{"role": "user", "content": content}], "seed": 40 + i, "max_tokens": 32, "temperature": 0.7})
}

/// `request` with more fields, or others.
pub fn with(request: &Value, more: Value) -> Value {
    let (Value::Object(mut fields), Value::Object(more)) = (request.clone(), more) else {
        panic!("requests are objects");
    };
    fields.extend(more);
    Value::Object(fields)
}

/// Fields with which a text goes on to the end of the context: the embedded pair's end tokens are forbidden.
pub fn bans_the_end() -> Value {
    json!({"logit_bias": {"0": -100, "2": -100}, "max_tokens": null})
}
