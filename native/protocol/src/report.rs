//! The extension `specula` of an answer: what speculation did, what it cost, and whether the text is the target's own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What one generation did. Times in milliseconds of wall clock.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Report {
    /// Whether no accepted token differed from the target's own draw in its pass.
    pub lossless: bool,
    /// Accepted tokens that differed.
    pub deviations: u64,
    /// Whether the target's device gives a row the same bits however many rows are computed with it.
    pub row_invariant: bool,
    /// The settings in force.
    pub settings: EffectiveSettings,
    /// Method `auto`: rounds of each method that it chose.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub chosen: BTreeMap<String, u64>,
    /// The seed in force.
    pub seed: u64,
    /// Target passes after prefill.
    pub rounds: u64,
    /// Draft tokens verified.
    pub drafted: u64,
    /// Draft tokens accepted.
    pub accepted: u64,
    /// Tokens committed per target pass, 1 + accepted / rounds; plain decoding is 1.
    pub acceptance_length: f64,
    /// Element i: of the rounds whose window had more than i tokens, the share that accepted token i.
    pub accepted_by_position: Vec<f64>,
    /// Rounds that began with a window rolled out in time (method `mirror`).
    pub hits: u64,
    /// Rounds whose outcome had not been rolled out.
    pub misses: u64,
    /// Hits whose branch the draft's own rows had guessed.
    pub hits_from_draft: u64,
    /// Hits whose branch the early exit had guessed.
    pub hits_from_exit: u64,
    /// Element d: hits whose rolled-out window was d tokens long.
    pub hits_by_depth: Vec<u64>,
    /// Of those, the hits whose branch the early exit had guessed.
    #[serde(default)]
    pub hits_from_exit_by_depth: Vec<u64>,
    /// Of the rounds with an exit message, the share whose next token was among its candidates for that row.
    pub coverage: Option<f64>,
    /// Branches begun.
    pub branches_expanded: u64,
    /// Branches that became the next window.
    pub branches_used: u64,
    /// Passes of the draft model, each over one or several tokens; the prompt's not counted.
    #[serde(default)]
    pub draft_steps: u64,
    /// Time the target waited for draft tokens.
    pub exposed_draft_ms: f64,
    /// Time the draft worked while the target worked.
    pub hidden_draft_ms: f64,
    /// Time the draft was idle while the target worked.
    pub bubble_ms: f64,
    /// Time spent handing messages between the two, without the draft's work.
    pub rendezvous_ms: f64,
    /// Time in target passes, layers 1…e.
    pub target_prefix_ms: f64,
    /// Time in the early exit's head and ranking.
    pub exit_ms: f64,
    /// Time in target passes, layers e+1…N and head (all layers for methods without an exit).
    pub target_suffix_ms: f64,
    /// Time in rules, draws, acceptance and commit.
    pub accept_ms: f64,
    /// Prefill of the prompt.
    pub prefill_ms: f64,
    /// From admission to the first token.
    pub first_token_ms: f64,
    /// From admission to the end.
    pub total_ms: f64,
    /// Set if a plugin ended the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<PluginStop>,
    /// What each plugin cost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<PluginCost>,
    /// Failures that the request survived.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

/// The settings of speculation in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EffectiveSettings {
    /// `auto`, `none`, `sps`, `lookup`, `recycling`, `ssd`, `mirror`.
    pub method: String,
    /// γ; for `auto` the most that it may choose.
    pub window: u64,
    /// e; only for `mirror`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_layer: Option<u64>,
    /// κ; only for `mirror` and `ssd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_top: Option<u64>,
    /// B; only for `mirror`, `ssd` and, as nodes of the tree, `recycling`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch_budget: Option<u64>,
    /// `draft`, `exit` or `both`; only for `mirror`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roots: Option<String>,
    /// `scored` or `per-row`; only for `mirror` and `ssd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocation: Option<String>,
    /// η; only with streams in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams: Option<u64>,
    /// What becomes of the look-ahead, `keep` or `correct`; only with streams in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look_ahead: Option<String>,
    /// Rollouts awaited.
    pub deterministic: bool,
}

/// Which plugin ended the text and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PluginStop {
    /// Its name.
    pub plugin: String,
    /// Its reason.
    pub reason: String,
}

/// What a plugin cost in one generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PluginCost {
    /// Its name.
    pub name: String,
    /// `acceptance`, `sampling` or `stopping`; a plugin that is several has an entry for each.
    pub kind: String,
    /// Calls made.
    pub calls: u64,
    /// Fuel used, in the sandbox's units.
    pub fuel: u64,
    /// Wall-clock time in its calls, in microseconds, rounded to 10.
    pub micros: u64,
    /// Calls that ended in an error.
    pub failures: u64,
}

/// A failure that the request survived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Warning {
    /// The plugin that failed.
    pub plugin: String,
    /// Stable code.
    pub code: String,
    /// For a person.
    pub message: String,
    /// How often it happened.
    pub count: u64,
}
