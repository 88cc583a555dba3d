//! What is asked, and what it becomes once checked. Checked once: nothing behind [`Request`] re-asks.

use serde_json::Value;
use specula_decoding::{Sampling, TokenId};

use crate::plugins::Plugged;
use crate::settings::{Settings, SettingsSpec};

/// A generation as asked for; `None` takes the default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestSpec {
    /// Tokens of the prompt, from [`crate::Engine::encode_chat`] or [`crate::Engine::encode_text`].
    pub prompt: Vec<TokenId>,
    /// Most tokens to generate; default: what the context still holds.
    pub max_tokens: Option<u64>,
    /// 0..=2, default 1.
    pub temperature: Option<f64>,
    /// 0 < top_p ≤ 1, default 1.
    pub top_p: Option<f64>,
    /// Default 0 = off.
    pub top_k: Option<u64>,
    /// 0..=1, default 0 = off.
    pub min_p: Option<f64>,
    /// 0..=2⁵³−1; picked if absent.
    pub seed: Option<u64>,
    /// At most 16, none empty.
    pub stop: Vec<String>,
    /// −100..=100 each; −100 forbids.
    pub logit_bias: Vec<(u64, f64)>,
    /// 0 < x ≤ 10, default 1.
    pub repetition_penalty: Option<f64>,
    /// −2..=2, default 0.
    pub presence_penalty: Option<f64>,
    /// −2..=2, default 0.
    pub frequency_penalty: Option<f64>,
    /// Settings of speculation.
    pub speculation: SettingsSpec,
    /// Rollouts awaited.
    pub deterministic: bool,
    /// Plugins in the order they apply.
    pub plugins: Vec<PluginSpec>,
}

/// A plugin with its configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginSpec {
    /// Registered name.
    pub name: String,
    /// JSON object.
    pub config: Value,
}

/// A checked generation with its plugins opened, ready to be submitted.
#[derive(Debug)]
pub struct Request {
    pub(crate) prompt: Vec<TokenId>,
    pub(crate) max_tokens: usize,
    pub(crate) sampling: Sampling,
    pub(crate) stop: Vec<String>,
    pub(crate) settings: Settings,
    pub(crate) plugged: Plugged,
}

/// A field that cannot be as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// The field, as the wire names it, e.g. `temperature`, `speculation.window`, `plugins[0].name`.
    pub field: String,
    /// Stable code.
    pub code: &'static str,
    /// Names the field, the bound, the value and the remedy.
    pub message: String,
}
