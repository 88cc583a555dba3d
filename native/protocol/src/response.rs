//! What clients get back over HTTP, in OpenAI's shapes with the extension `specula`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Report;

/// `{"error": {…}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// The error.
    pub error: ApiError,
}

/// OpenAI's error shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApiError {
    /// Names the field, the bound, the value and the remedy.
    pub message: String,
    /// `invalid_request_error`, `rate_limit_error`, `server_error`, …
    pub r#type: String,
    /// The field at fault.
    pub param: Option<String>,
    /// Stable code.
    pub code: Option<String>,
}

impl ApiError {
    /// An error without field and code.
    pub fn new(message: impl Into<String>, r#type: impl Into<String>) -> Self {
        Self { message: message.into(), r#type: r#type.into(), param: None, code: None }
    }
}

/// Token counts of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// Tokens of the prompt, template included.
    pub prompt_tokens: u64,
    /// Tokens generated, the one that ended the text included.
    pub completion_tokens: u64,
    /// Their sum.
    pub total_tokens: u64,
}

/// An answer of `/v1/chat/completions` or `/v1/completions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Completion {
    /// `chatcmpl-…` or `cmpl-…`.
    pub id: String,
    /// `chat.completion`, `text_completion` or, streamed, `chat.completion.chunk`.
    pub object: String,
    /// Seconds since the epoch.
    pub created: u64,
    /// The served model's name.
    pub model: String,
    /// `n` choices for each prompt; a chunk has one, the chunk that carries `usage` none.
    pub choices: Vec<Choice>,
    /// Token counts: in a whole answer, or in the last chunk if asked for; all other chunks then say `null`, as OpenAI's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
    /// What speculation did: in a whole answer of one choice, or in the chunk that carries the finish reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub specula: Option<Report>,
}

/// A choice: `message` (chat), `delta` (chat, streamed) or `text` (completion) is set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Choice {
    /// Counted through the prompts and, within each, its choices.
    pub index: u32,
    /// A whole chat answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<AnswerMessage>,
    /// A piece of a streamed chat answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<AnswerMessage>,
    /// Text, or a piece of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Null if not asked for.
    pub logprobs: Option<ChoiceLogProbs>,
    /// `stop` or `length`; null while streaming.
    pub finish_reason: Option<String>,
    /// What speculation did, in a whole answer of several choices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub specula: Option<Report>,
}

/// Log-probabilities of a choice's tokens, natural logarithms, −9999 for what cannot come. The end token has none; the tokens
/// of a stop string have, although it is not shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum ChoiceLogProbs {
    /// Chat.
    Chat {
        /// One for each token.
        content: Vec<TokenLogProb>,
    },
    /// Completions: the four lists are of one length.
    Text {
        /// Texts of the tokens; `bytes:` and hexadecimal escapes where a token's bytes are no text.
        tokens: Vec<String>,
        /// Null for the first token of an echoed prompt.
        token_logprobs: Vec<Option<f64>>,
        /// The likeliest tokens; null for the first token of an echoed prompt.
        top_logprobs: Vec<Option<BTreeMap<String, f64>>>,
        /// Characters of the text before the token.
        text_offset: Vec<u64>,
    },
}

impl ChoiceLogProbs {
    /// Whether it tells of no token.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Chat { content } => content.is_empty(),
            Self::Text { tokens, .. } => tokens.is_empty(),
        }
    }
}

/// A token's log-probability, and its rivals'.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenLogProb {
    /// Text; U+FFFD for bytes that are no text by themselves.
    pub token: String,
    /// Natural logarithm.
    pub logprob: f64,
    /// The token's bytes.
    pub bytes: Vec<u8>,
    /// The likeliest tokens, best first.
    pub top_logprobs: Vec<RivalLogProb>,
}

/// One of the likeliest tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RivalLogProb {
    /// Text; U+FFFD for bytes that are no text by themselves.
    pub token: String,
    /// Natural logarithm.
    pub logprob: f64,
    /// The token's bytes.
    pub bytes: Vec<u8>,
}

/// The assistant's message, or a piece of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AnswerMessage {
    /// `assistant`; in a stream only in the first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// Answer of `GET /v1/models`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelList {
    /// `list`.
    pub object: String,
    /// The served target.
    pub data: Vec<ModelCard>,
}

/// The served target and what may be asked of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelCard {
    /// Name.
    pub id: String,
    /// `model`.
    pub object: String,
    /// Seconds since the epoch at which the server started.
    pub created: u64,
    /// `specula`.
    pub owned_by: String,
    /// Most tokens of prompt and answer together.
    pub context_length: u64,
    /// V.
    pub vocab_size: u64,
    /// Transformer layers, N; an exit layer lies in 1..N.
    pub layers: u64,
    /// Whether a row's bits do not depend on the rows computed with it, on which exactness rests.
    pub row_invariant: bool,
    /// Name of the draft model, if one is loaded.
    pub draft: Option<String>,
    /// Why `auto` does not use the draft model, if measurements say that it cannot pay where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft_refused: Option<String>,
    /// Why the model has the method `none` alone, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cannot_speculate: Option<String>,
    /// Methods on offer.
    pub methods: Vec<String>,
    /// Default settings of each method, in the order of `methods`.
    pub defaults: Vec<crate::EffectiveSettings>,
    /// The method used when a request names none.
    pub default_method: String,
    /// Largest window.
    pub max_window: u64,
}

/// Answer of `GET /v1/plugins`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PluginList {
    /// `list`.
    pub object: String,
    /// Loaded plugins by name.
    pub data: Vec<PluginCard>,
}

/// A loaded or uploaded plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PluginCard {
    /// Name for requests, alone or with `@` and a version's number or digest.
    pub name: String,
    /// `plugin`.
    pub object: String,
    /// `acceptance`, `sampling`, `stopping`.
    pub kinds: Vec<String>,
    /// `sha256:…` of the file.
    pub digest: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Its own words on what it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whose it is; the operator's own have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Of uploads: `private` or `shared`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visibility: Option<String>,
    /// Of uploads: `standard` or `interpreter`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<String>,
    /// Of uploads: all versions, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<PluginVersion>,
    /// Of uploads: what the examination found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<PluginReport>,
}

/// A version of an uploaded plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PluginVersion {
    /// Counted from 1.
    pub version: u32,
    /// `sha256:…` of the file.
    pub digest: String,
    /// When it came, seconds since the epoch.
    pub created: u64,
}

/// What the examination of an upload found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PluginReport {
    /// Interfaces exported and imported.
    pub interfaces: Vec<String>,
    /// Size of the compiled code in bytes.
    pub code_bytes: u64,
    /// Time that compiling took.
    pub compile_ms: u64,
    /// Cost of its functions on a recorded window.
    pub costs: Vec<PluginCallCost>,
    /// Acceptance policies only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stamp: Option<PluginStamp>,
}

/// What calls of one function cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PluginCallCost {
    /// What it was opened as.
    pub kind: String,
    /// `open`, `judge`, `adjust`, `commit` or `observe`.
    pub function: String,
    /// Calls measured.
    pub calls: u64,
    /// Fuel of a call, median.
    pub fuel: u64,
    /// Fuel of the dearest call.
    pub fuel_max: u64,
    /// Microseconds of a call, median.
    pub micros: f64,
}

/// How an acceptance policy did on windows whose distributions are known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PluginStamp {
    /// `exact`: it never kept a token that was not the target's own draw; else `lossy`. A finding, not a promise.
    pub stamp: String,
    /// Windows judged.
    pub windows: u64,
    /// Tokens that came of them.
    pub tokens: u64,
    /// Share of those that were not the target's own draw.
    pub deviation: f64,
    /// Total variation between them and the target's own draws; 0..=1.
    pub total_variation: f64,
}

/// A plugin that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PluginDeleted {
    /// As it was named.
    pub id: String,
    /// `plugin.deleted`.
    pub object: String,
    /// `true`.
    pub deleted: bool,
}
