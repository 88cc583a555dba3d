//! What a round takes of a pass's rows where these lie on a device: of each row the few tokens that can be drawn, found
//! there, so that whole rows stay where they are. A draw from them is the draw from the whole row or none: where that
//! cannot be shown, the row is fetched.

use std::fmt::{Debug, Formatter};
use std::sync::OnceLock;

use crate::draw::{At, ranked};
use crate::{Logits, ModelError, Noise, NoiseRows, Row, TokenId};

/// What is to be found of the rows of a pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Reduction {
    /// 0 = greedy.
    pub temperature: f32,
    /// Of the request.
    pub noise: Noise,
    /// Of each row: the position, counted from the first prompt token, of the token that is drawn from it.
    pub positions: Vec<u32>,
    /// How many of the best tokens by logit / T + G.
    pub ranked: usize,
    /// How many of the best tokens by logit.
    pub top: usize,
}

/// What was found of one row. In both lists the best come first, of equals those of lower id.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reduced {
    /// Tokens with logit / T + G.
    pub ranked: Vec<(TokenId, f32)>,
    /// Tokens with their logits.
    pub top: Vec<(TokenId, f32)>,
    /// Log of the sum of exp(logit / T) over the row, to [`LOG_Z_ERROR`]; only if `top` was asked for.
    pub log_z: f64,
}

/// How far a device's f32 sum may be from the exact one, relative to it; twenty times what rounding can do over rows of a
/// million tokens.
pub const LOG_Z_ERROR: f64 = 1e-4;

impl Reduction {
    /// The same found on whole rows: what every device is held to.
    pub fn of(&self, rows: &Logits) -> Vec<Reduced> {
        let shared = NoiseRows::new(self.noise);
        let reduce = |(i, position): (usize, &u32)| {
            let raw = Row::new(rows.row(i));
            let mut scaled = raw.clone();
            if self.temperature > 0.0 {
                scaled.scale(self.temperature);
            }
            let at: At<'_> = (self.temperature > 0.0).then_some((&shared, *position));
            let log_z = if self.top > 0 { f64::from(scaled.log_sum_exp()) } else { 0.0 };
            Reduced { ranked: ranked(&scaled, at, self.ranked), top: ranked(&raw, None, self.top), log_z }
        };
        self.positions.iter().take(rows.rows()).enumerate().map(reduce).collect()
    }
}

/// Gets rows that lie elsewhere.
pub trait Fetch: Send {
    /// All of them.
    ///
    /// # Errors
    /// As for [`LanguageModel::forward`](crate::LanguageModel::forward).
    fn fetch(&self) -> Result<Logits, ModelError>;
}

/// The rows of a pass, whole or reduced; reduced ones are fetched whole when that is asked for.
pub struct Rows {
    count: usize,
    reduced: Vec<Reduced>,
    whole: OnceLock<Logits>,
    elsewhere: Option<Box<dyn Fetch>>,
}

impl Rows {
    /// Rows that are here.
    pub fn whole(rows: Logits) -> Self {
        Self { count: rows.rows(), reduced: Vec::new(), whole: OnceLock::from(rows), elsewhere: None }
    }

    /// Rows of which this is known, and where they are.
    pub fn reduced(reduced: Vec<Reduced>, elsewhere: Box<dyn Fetch>) -> Self {
        Self { count: reduced.len(), reduced, whole: OnceLock::new(), elsewhere: Some(elsewhere) }
    }

    /// N.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What is known of row `i` without having it; `None` if the rows are here anyway.
    pub fn known(&self, i: usize) -> Option<&Reduced> {
        if self.whole.get().is_some() { None } else { self.reduced.get(i) }
    }

    /// Row `i`, fetched with all the others if it is not here.
    ///
    /// # Errors
    /// The device's.
    pub fn row(&self, i: usize) -> Result<&[f32], ModelError> {
        if let (None, Some(elsewhere)) = (self.whole.get(), &self.elsewhere) {
            // Only the thread that owns the pass asks.
            let _ = self.whole.set(elsewhere.fetch()?);
        }
        match self.whole.get() {
            Some(rows) => Ok(rows.row(i)),
            None => Err(ModelError("a pass without rows".into())),
        }
    }
}

impl Debug for Rows {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let whole = if self.whole.get().is_some() { "whole" } else { "reduced" };
        f.debug_struct("Rows").field("count", &self.count).field("as", &whole).finish()
    }
}
