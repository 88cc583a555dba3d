//! What clients send. One type for chat and text completions, over HTTP and WebSocket: a field that does not belong to
//! the endpoint, or that no endpoint knows, is an error naming it.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// A generation. Exactly one of `messages` (chat) and `prompt` (text completion) is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GenerateRequest {
    /// Model name as `/v1/models` lists it; absent means the one served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Chat history, oldest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_items = 1))]
    pub messages: Option<Vec<Message>>,
    /// Text to continue, or several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Prompt>,
    /// Send the answer as server-sent events (HTTP only; a WebSocket always streams).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// Options of `stream`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    /// Most tokens to generate. `max_completion_tokens` is the same under OpenAI's newer name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0))]
    pub max_tokens: Option<u64>,
    /// See `max_tokens`; at most one of the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0))]
    pub max_completion_tokens: Option<u64>,
    /// 0 = greedy; 0..=2, default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 2))]
    pub temperature: Option<f64>,
    /// 0 < top_p ≤ 1, default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0, maximum = 1))]
    pub top_p: Option<f64>,
    /// 0 = off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0))]
    pub top_k: Option<u64>,
    /// 0..=1, 0 = off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1))]
    pub min_p: Option<f64>,
    /// 0..=2⁵³−1; the server picks one and returns it if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 9007199254740991_i64))]
    pub seed: Option<u64>,
    /// No end token, stop string or stopping plugin ends the text before so many tokens; at most `max_tokens`, default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0))]
    pub min_tokens: Option<u64>,
    /// Go on after end tokens, which then are tokens without text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_eos: Option<bool>,
    /// Up to 16 strings that end the text and are not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// Token id (as a string, OpenAI's form) → −100..=100, added to the logit; −100 forbids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// 0 < x ≤ 10, 1 = off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0, maximum = 10))]
    pub repetition_penalty: Option<f64>,
    /// −2..=2, 0 = off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = -2, maximum = 2))]
    pub presence_penalty: Option<f64>,
    /// −2..=2, 0 = off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = -2, maximum = 2))]
    pub frequency_penalty: Option<f64>,
    /// Choices for each prompt, default 1; `n` times the number of prompts is at most 16. Choices differ by their noise;
    /// choice 0 is what `n` = 1 gives. HTTP only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 16))]
    pub n: Option<u64>,
    /// Log-probabilities with every token: `true` (chat), or how many of the likeliest tokens to tell beside each,
    /// 0..=20 (completions). HTTP only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<LogProbsAsked>,
    /// How many of the likeliest tokens to tell beside each, 0..=20, default 0; needs `logprobs: true`. Chat only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 20))]
    pub top_logprobs: Option<u64>,
    /// `raw` (default): of the model's own row; `processed`: of the row after all sampling rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(pattern = "^(raw|processed)$"))]
    pub logprobs_mode: Option<String>,
    /// Put the prompt before the text, with its log-probabilities if those are asked for; `max_tokens` may then be 0.
    /// Completions over HTTP only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub echo: Option<bool>,
    /// What the text must be: anything, a JSON object, or JSON of a schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<ResponseFormat>,
    /// Must be empty: there is no tool calling.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 0))]
    pub tools: Option<Vec<serde_json::Value>>,
    /// OpenAI's end-user tag; accepted without effect, as are the six that follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// OpenAI's tag for abuse reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safety_identifier: Option<String>,
    /// OpenAI's hint for its prompt cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_cache_key: Option<String>,
    /// OpenAI's tags of stored answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Whether OpenAI stores the answer; nothing is stored here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<bool>,
    /// OpenAI's latency tier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// Of tool calling, which is not offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    /// How to speculate; absent fields take the server's defaults, the effective values come back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speculation: Option<Speculation>,
    /// Fixed method, window and branches, rollouts awaited: lossy acceptance policies reproduce.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deterministic: Option<bool>,
    /// Plugins in the order they apply.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 8))]
    pub plugins: Option<Vec<PluginChoice>>,
}

/// One chat message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Message {
    #[cfg_attr(feature = "openapi", schema(pattern = "^(system|developer|user|assistant)$"))]
    /// `system` (`developer` is the same under OpenAI's newer name), `user` or `assistant`.
    pub role: String,
    /// Plain text. OpenAI's list of text parts is read as the texts joined.
    #[serde(deserialize_with = "text_or_parts")]
    #[cfg_attr(feature = "openapi", schema(value_type = Content))]
    pub content: String,
}

/// A message's content as it may be written.
#[cfg(feature = "openapi")]
#[derive(utoipa::ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes what is read by hand")]
enum Content {
    Text(String),
    Parts(Vec<TextPart>),
}

/// One part of a message's content; only `text` parts exist here.
#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
struct TextPart {
    #[cfg_attr(feature = "openapi", schema(pattern = "^text$"))]
    r#type: String,
    text: String,
}

fn text_or_parts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct TextOrParts;

    impl<'de> Visitor<'de> for TextOrParts {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or an array of text parts")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_string<E: Error>(self, text: String) -> Result<String, E> {
            Ok(text)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<String, A::Error> {
            let mut joined = String::new();
            while let Some(part) = parts.next_element::<TextPart>()? {
                if part.r#type != "text" {
                    return Err(A::Error::custom("only parts of type `text` are understood"));
                }
                joined.push_str(&part.text);
            }
            Ok(joined)
        }
    }

    deserializer.deserialize_any(TextOrParts)
}

/// Options of a streamed answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StreamOptions {
    /// Send one more chunk with `usage` before the end.
    #[serde(default)]
    pub include_usage: bool,
}

/// One text to continue, or several: texts, or token ids of the model's own vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(
    untagged,
    expecting = "must be a string, an array of strings, an array of token ids or an array of arrays of token ids"
)]
pub enum Prompt {
    /// One text.
    Text(String),
    /// Several.
    Texts(Vec<String>),
    /// One text in tokens.
    Tokens(Vec<u64>),
    /// Several.
    TokenLists(Vec<Vec<u64>>),
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Whether log-probabilities are asked for (chat), or how many beside each token's own (completions).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged, expecting = "must be true or false (chat) or a whole number (completions)")]
pub enum LogProbsAsked {
    /// Chat.
    Flag(bool),
    /// Completions.
    Top(u64),
}

/// How the answer is to be formatted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ResponseFormat {
    /// `text`, `json_object` or `json_schema`.
    #[cfg_attr(feature = "openapi", schema(pattern = "^(text|json_object|json_schema)$"))]
    pub r#type: String,
    /// The schema, for `json_schema`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<JsonSchemaFormat>,
}

/// JSON of a schema. Keywords that cannot be enforced are refused by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct JsonSchemaFormat {
    /// The client's name for it; without effect.
    pub name: String,
    /// What it is for; without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// A JSON schema, an object.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub schema: serde_json::Value,
    /// The schema is always enforced, whatever this says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}

/// One stop string or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged, expecting = "must be a string or an array of strings")]
pub enum Stop {
    /// A single string.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// Settings of speculation, named as in the project's algorithm notes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Speculation {
    /// `auto`, `none`, `sps`, `lookup`, `recycling`, `ssd`, `mirror`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(pattern = "^(auto|none|sps|lookup|recycling|ssd|mirror)$"))]
    pub method: Option<String>,
    /// γ, draft tokens per round, 0..=16.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 16))]
    pub window: Option<u64>,
    /// e, the layer after which the early exit looks, 1..layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub exit_layer: Option<u64>,
    /// κ, candidates per row of the exit message, 1..=32.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 32))]
    pub exit_top: Option<u64>,
    /// B, branches rolled out at once, 1..=64.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 64))]
    pub branch_budget: Option<u64>,
    /// `draft`, `exit` or `both`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(pattern = "^(draft|exit|both)$"))]
    pub roots: Option<String>,
    /// `scored` or `per-row`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(pattern = "^(scored|per-row)$"))]
    pub allocation: Option<String>,
    /// η, streams that the draft looks ahead by, 0 to as many as it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0))]
    pub streams: Option<u64>,
    /// What becomes of the look-ahead: `keep` or `correct`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(pattern = "^(keep|correct)$"))]
    pub look_ahead: Option<String>,
}

/// A plugin with its configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PluginChoice {
    /// Name as `/v1/plugins` lists it.
    pub name: String,
    /// JSON object handed to the plugin; absent = `{}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub config: Option<serde_json::Value>,
    /// What follows its failure: `fallback` (go on without it, with a warning), `fail` (fail the request) or `stop` (end the
    /// text). Default: `fallback` for acceptance, `fail` for sampling and stopping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(pattern = "^(fallback|fail|stop)$"))]
    pub on_failure: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(json: &str) -> Result<String, serde_json::Error> {
        serde_json::from_str::<Message>(&format!(r#"{{"role":"user","content":{json}}}"#)).map(|m| m.content)
    }

    #[test]
    fn content_is_a_string_or_text_parts() {
        assert_eq!(content(r#""a\nb""#).expect("a string"), "a\nb");
        let parts = r#"[{"type":"text","text":"a"},{"type":"text","text":"b"}]"#;
        assert_eq!(content(parts).expect("text parts"), "ab");
        assert!(content(r#"[{"type":"image_url","text":"a"}]"#).is_err());
        assert!(content("7").is_err());
    }
}
