//! What an examination finds out about a plugin: what it is, what it costs, how far it departs from the target.

use serde::{Deserialize, Serialize};

use crate::Kind;

/// Found once, at upload; kept with the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// What it can be opened as, in order.
    pub kinds: Vec<Kind>,
    /// Its own words on what it is, one line.
    pub description: Option<String>,
    /// Interfaces that it exports and imports, e.g. `specula:policy/sampling@0.1.0`.
    pub interfaces: Vec<String>,
    /// Size of the compiled code, bytes.
    pub code_bytes: u64,
    /// Time that compiling took, milliseconds.
    pub compile_ms: u64,
    /// What each of its functions cost on the recorded window.
    pub costs: Vec<CallCost>,
    /// Acceptance policies only: whether it kept to the target's own draws.
    pub stamp: Option<Stamp>,
}

/// What calls of one function cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallCost {
    /// What it was opened as.
    pub kind: Kind,
    /// The function: `open`, `judge`, `adjust`, `commit`, `observe`.
    pub function: String,
    /// Calls measured.
    pub calls: u64,
    /// Fuel of a call, median.
    pub fuel: u64,
    /// Fuel of the dearest call.
    pub fuel_max: u64,
    /// Time of a call in microseconds, median; measured at low priority.
    pub micros: f64,
}

/// How an acceptance policy did on the reference set: windows with known distributions of target and draft.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    /// Whether it never kept a token that was not the target's own draw. A finding about these windows, not a promise.
    pub exact: bool,
    /// Windows judged.
    pub windows: u64,
    /// Tokens that came of them.
    pub tokens: u64,
    /// Share of those that were not the target's own draw.
    pub deviation: f64,
    /// Total variation between the tokens that came and the target's own draws at the same places, by kind of row, weighted
    /// by tokens; 0..=1.
    pub total_variation: f64,
}
