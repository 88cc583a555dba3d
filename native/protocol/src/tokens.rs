//! `/tokenize` and `/detokenize`, in the shapes that vLLM's have.

use serde::{Deserialize, Serialize};

use crate::Message;

/// What is to be turned into tokens. Exactly one of `messages` and `prompt` is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenizeRequest {
    /// Model name as `/v1/models` lists it; absent means the one served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// A text, as `/v1/completions` takes it: special tokens written in it are text, and the model's beginning-of-text token
    /// stands before it if the model wants one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// A chat, put into the model's template, the answer's opening included.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_items = 1))]
    pub messages: Option<Vec<Message>>,
    /// Tell each token's text too.
    #[serde(default)]
    pub return_token_strs: bool,
}

/// A text's tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tokenized {
    /// How many.
    pub count: u64,
    /// Most tokens of prompt and answer together.
    pub max_model_len: u64,
    /// Their ids, as `prompt` of `/v1/completions` takes them.
    pub tokens: Vec<u32>,
    /// Their texts if asked for: U+FFFD for bytes that are no text by themselves, nothing for control tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_strs: Option<Vec<String>>,
}

/// Tokens to be turned into text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DetokenizeRequest {
    /// Model name as `/v1/models` lists it; absent means the one served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Token ids.
    pub tokens: Vec<u64>,
}

/// Their text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Detokenized {
    /// Bytes that are no text are U+FFFD; control tokens have none.
    pub prompt: String,
}
