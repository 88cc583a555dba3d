//! Log-probabilities of a row: log-softmax, computed only for rows whose request asks.

use crate::TokenId;

/// Log-probability of a token, and of the tokens most likely in its place. Natural logarithms; −∞ for what is forbidden.
#[derive(Debug, Clone, PartialEq)]
pub struct LogProbs {
    /// Of the token that was taken.
    pub chosen: f32,
    /// The most likely tokens, best first, ties by lower id; forbidden ones are left out.
    pub top: Vec<(TokenId, f32)>,
}

impl LogProbs {
    /// Reads them off a row of logits `[V]`, summed in one stated order (ascending id, in f64), so that the same row gives
    /// the same numbers whatever speculated.
    pub fn of(logits: &[f32], chosen: TokenId, top: usize) -> Self {
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit - best).exp()).sum();
        let log_sum = f64::from(best) + sum.ln();
        let log_prob = |logit: f32| (f64::from(logit) - log_sum) as f32;
        let mut order: Vec<TokenId> =
            (0..logits.len() as TokenId).filter(|&t| logits[t as usize] > f32::NEG_INFINITY).collect();
        let by_rank = |a: &TokenId, b: &TokenId| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if top < order.len() {
            if top > 0 {
                order.select_nth_unstable_by(top - 1, by_rank);
            }
            order.truncate(top);
        }
        order.sort_unstable_by(by_rank);
        Self {
            chosen: logits.get(chosen as usize).map_or(f32::NEG_INFINITY, |&logit| log_prob(logit)),
            top: order.into_iter().map(|t| (t, log_prob(logits[t as usize]))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_row() {
        let row = [0.0, 2.0f32.ln(), f32::NEG_INFINITY, 2.0f32.ln()];
        let got = LogProbs::of(&row, 0, 2);
        assert!((got.chosen - 0.2f32.ln()).abs() < 1e-6);
        assert_eq!(got.top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 3], "ties by lower id");
        assert!((got.top[0].1 - 0.4f32.ln()).abs() < 1e-6);
        assert_eq!(LogProbs::of(&row, 2, 0), LogProbs { chosen: f32::NEG_INFINITY, top: Vec::new() });
        assert_eq!(LogProbs::of(&row, 0, 9).top.len(), 3, "forbidden tokens are left out");
    }
}
