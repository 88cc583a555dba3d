//! Acceptance policies: how many draft tokens of a window to keep, where own draw would keep τ.

use crate::{PolicyError, Row, TokenId};

/// What an acceptance policy sees of a window of n draft tokens, structure of arrays, every list of length n. The
/// statistics are of the target's row after the sampling chain; at temperature 0 of the row at temperature 1.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WindowStats {
    /// Draft tokens.
    pub draft: Vec<TokenId>,
    /// The target's own draw at the same position.
    pub own_draw: Vec<TokenId>,
    /// Log-probability of the draft token in the target's row.
    pub log_p: Vec<f32>,
    /// Log-probability of the draft token in the draft's row; empty when the drafter gives none (prompt look-up).
    pub log_q: Vec<f32>,
    /// Rank of the draft token in the target's row, 0 = best.
    pub rank: Vec<u32>,
    /// Entropy of the target's row, nats.
    pub entropy: Vec<f32>,
    /// Probability of the target's best token.
    pub top_probability: Vec<f32>,
    /// Position of the first draft token, counted from the first prompt token.
    pub position: u32,
}

impl WindowStats {
    /// Adds one position. `row` is the target's processed row in front of `draft`.
    pub fn push(&mut self, row: &Row, draft: TokenId, own_draw: TokenId) {
        let log_z = row.log_sum_exp();
        let logit = row.logits()[draft as usize];
        let mut entropy = 0.0_f64;
        let mut rank = 0;
        for (token, &l) in row.logits().iter().enumerate() {
            let log_p = f64::from(l - log_z);
            if log_p > -60.0 {
                entropy -= log_p.exp() * log_p;
            }
            rank += u32::from(l > logit || (l == logit && token < draft as usize));
        }
        self.draft.push(draft);
        self.own_draw.push(own_draw);
        self.log_p.push(logit - log_z);
        self.rank.push(rank);
        self.entropy.push(entropy as f32);
        self.top_probability.push((row.max() - log_z).exp());
    }

    /// τ by own draw: the draft tokens in front of the first that differs.
    pub fn own_accepted(&self) -> usize {
        self.draft.iter().zip(&self.own_draw).take_while(|(a, b)| a == b).count()
    }
}

/// A policy that may keep more or fewer draft tokens than own draw. Keeping more is lossy and is counted.
pub trait Acceptance: Send {
    /// How many draft tokens to keep, 0..=n. Pure; state changes only in [`Acceptance::commit`].
    ///
    /// # Errors
    /// The policy's own failure; the caller falls back to own draw for the round and counts it.
    fn judge(&mut self, window: &WindowStats) -> Result<usize, PolicyError>;

    /// Tells the policy which tokens were committed.
    ///
    /// # Errors
    /// As for [`Acceptance::judge`].
    fn commit(&mut self, tokens: &[TokenId]) -> Result<(), PolicyError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_a_known_row() {
        let row = Row::new(&[0.5_f32.ln(), 0.25_f32.ln(), 0.25_f32.ln()]);
        let mut stats = WindowStats::default();
        stats.push(&row, 2, 0);
        assert!((stats.log_p[0] - 0.25_f32.ln()).abs() < 1e-6);
        assert_eq!(stats.rank[0], 2);
        assert!((stats.entropy[0] - 1.5 * 2.0_f32.ln()).abs() < 1e-6);
        assert!((stats.top_probability[0] - 0.5).abs() < 1e-6);
        assert_eq!(stats.own_accepted(), 0);
    }
}
