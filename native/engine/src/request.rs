//! What is asked, and what it becomes once checked. Checked once: nothing behind [`Request`] re-asks.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use serde_json::Value;
use specula_decoding::{Sampling, TokenId};
use specula_policies::RecordedRound;

use crate::failure::OnFailure;
use crate::plugins::Plugged;
use crate::recorder::Recorder;
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
    /// Index among the choices asked for at once: choices of one seed differ by it alone, and choice 0 is what one choice
    /// would be.
    pub choice: u32,
    /// No end token, stop string or stopping plugin ends the text before so many tokens; at most `max_tokens`, default 0.
    pub min_tokens: Option<u64>,
    /// Go on after end tokens, which then are tokens without text.
    pub ignore_eos: bool,
    /// Log-probabilities with every token.
    pub logprobs: Option<LogProbsSpec>,
    /// Tell the prompt's tokens before the answer's ([`crate::Event::Prompt`]); `max_tokens` may then be 0.
    pub echo: bool,
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
    /// What the text must be; `None`: anything.
    pub format: Option<OutputFormat>,
    /// Acceptance policies may keep no more than own draw would: nothing they answer can change the text.
    pub exact_only: bool,
    /// Who asks.
    pub tenant: Tenant,
}

/// What a text must be.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputFormat {
    /// Any JSON object.
    JsonObject,
    /// JSON of this schema.
    JsonSchema(Value),
}

/// Who asks for a generation, and what is promised to him.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Whose plugins his names mean first.
    pub owner: Arc<str>,
    /// Whether no acceptance policy may keep what the target's own draw would not, whatever it was stamped.
    pub exact_only: bool,
}

impl Default for Tenant {
    /// Whoever is at this machine.
    fn default() -> Self {
        Self { owner: "local".into(), exact_only: false }
    }
}

/// Which log-probabilities to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogProbsSpec {
    /// How many of the most likely tokens to tell beside the one taken, 0..=20.
    pub top: u64,
    /// Of the row after all sampling rules, instead of the model's raw row. Those of the prompt are always raw.
    pub processed: bool,
}

/// A plugin with its configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginSpec {
    /// Name, alone or with `@` and a version's number or digest.
    pub name: String,
    /// JSON object.
    pub config: Value,
    /// What follows its failure; `None`: `fallback` for acceptance, `fail` for sampling and stopping.
    pub on_failure: Option<OnFailure>,
}

/// A checked generation with its plugins opened, ready to be submitted.
#[derive(Debug)]
pub struct Request {
    pub(crate) prompt: Vec<TokenId>,
    pub(crate) max_tokens: usize,
    pub(crate) ignore_eos: bool,
    pub(crate) logprobs: Option<LogProbsSpec>,
    pub(crate) echo: bool,
    pub(crate) sampling: Sampling,
    pub(crate) stop: Vec<String>,
    pub(crate) settings: Settings,
    pub(crate) plugged: Plugged,
    pub(crate) exact_only: bool,
    pub(crate) recorder: Option<Recorder>,
}

impl Request {
    /// Tells what plugins would see of every round. The text stays the same; the whole window is worked on in every round.
    pub fn record(&mut self, to: Sender<RecordedRound>) {
        self.recorder = Some(Recorder::new(to));
    }
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
