//! The own draw, and the ranking of candidates by the noise the draw will use.

use crate::noise::{BLOCK, GUMBEL_MAX, GUMBEL_MIN};
use crate::noise_rows::NoiseRows;
use crate::wide::largest;
use crate::{Row, TokenId};

/// Where a row's noise comes from: `None` at temperature 0, else the sequence's noise and the position of the token
/// to be drawn, counted from the first prompt token.
pub type At<'a> = Option<(&'a NoiseRows, u32)>;

/// The target's own draw: argmax over allowed tokens of log p + G, ties to the lowest id (the constant log Z does not
/// move the argmax, so the row's values serve as they are). `None` if no token is allowed.
pub fn own_draw(row: &Row, at: At<'_>) -> Option<TokenId> {
    ranked(row, at, 1).first().map(|best| best.0)
}

/// The `k` best tokens by log p + G with those scores (relative to log Z), best first, ties to the lower id: what an
/// exit or a draft believes the target will draw, most likely first. The first is its own coupled guess.
///
/// Noise is looked at only where it can win: tokens that cannot reach the k-th score so far, even with the largest noise
/// there is, are passed over.
pub fn ranked(row: &Row, at: At<'_>, k: usize) -> Vec<(TokenId, f32)> {
    let noise = at.map(|(rows, position)| rows.at(position, row.vocab_size()));
    // The row's best token alone reaches this.
    let sure = if k == 1 && noise.is_some() { row.max() + GUMBEL_MIN } else { f32::NEG_INFINITY };
    let mut best = Best { k, tokens: Vec::with_capacity(k + 1) };
    let mut scores = [f32::NEG_INFINITY; BLOCK];
    for (block, logits) in row.logits().chunks(BLOCK).enumerate() {
        let floor = best.floor().max(sure) - if noise.is_some() { GUMBEL_MAX } else { 0.0 };
        if largest(logits) < floor {
            continue;
        }
        let scores = &mut scores[..logits.len()];
        scores.copy_from_slice(logits);
        if let Some(noise) = &noise {
            noise.add(block, scores, floor);
        }
        if best.takes(largest(scores)) {
            for (i, &score) in scores.iter().enumerate().filter(|(i, _)| logits[*i] > f32::NEG_INFINITY) {
                best.offer((block * BLOCK + i) as TokenId, score);
            }
        }
    }
    best.tokens
}

/// The k best so far, best first.
struct Best {
    k: usize,
    tokens: Vec<(TokenId, f32)>,
}

impl Best {
    /// Whether a later token of this score would be among them: of equal ones the earlier stays.
    fn takes(&self, score: f32) -> bool {
        match self.tokens.get(self.k.wrapping_sub(1)) {
            Some(last) => score > last.1,
            None => self.k > 0 && score > f32::NEG_INFINITY,
        }
    }

    /// What no token below is among them.
    fn floor(&self) -> f32 {
        self.tokens.get(self.k.wrapping_sub(1)).map_or(f32::NEG_INFINITY, |last| last.1)
    }

    fn offer(&mut self, token: TokenId, score: f32) {
        if self.takes(score) {
            let place = self.tokens.iter().rposition(|other| other.1 >= score).map_or(0, |i| i + 1);
            self.tokens.insert(place, (token, score));
            self.tokens.truncate(self.k);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Noise;

    #[test]
    fn greedy_ties_go_to_the_lowest_id() {
        assert_eq!(own_draw(&Row::new(&[1.0, 3.0, 3.0]), None), Some(1));
        assert_eq!(own_draw(&Row::new(&[f32::NEG_INFINITY; 3]), None), None);
    }

    #[test]
    fn pruned_draw_equals_the_full_search() {
        for seed in 0..300 {
            let noise = Noise::new(seed, 0);
            let logits: Vec<f32> = (0..300).map(|t| noise.gumbel(9999, t) * 6.0).collect();
            let row = Row::new(&logits);
            let full = (0..300u32).max_by(|&a, &b| {
                let score = |t: u32| logits[t as usize] + noise.gumbel(3, t);
                score(a).total_cmp(&score(b)).then(b.cmp(&a))
            });
            let rows = NoiseRows::new(noise);
            assert_eq!(own_draw(&row, Some((&rows, 3))), full);
            let mut all: Vec<(u32, f32)> = (0..300).map(|t| (t, logits[t as usize] + noise.gumbel(3, t))).collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            for k in [0, 1, 4, 299, 300, 400] {
                assert_eq!(ranked(&row, Some((&rows, 3)), k), all[..k.min(300)]);
            }
        }
    }

    /// The Gumbel-max identity: frequencies over seeds follow the row's probabilities.
    #[test]
    fn draws_follow_the_row() {
        let probabilities = [0.5_f32, 0.3, 0.15, 0.05];
        let row = Row::new(&probabilities.map(f32::ln));
        let mut counts = [0u32; 4];
        let n = 40_000;
        for seed in 0..n {
            let token = own_draw(&row, Some((&NoiseRows::new(Noise::new(seed, 0)), 11))).expect("row has support");
            counts[token as usize] += 1;
        }
        for (count, p) in counts.iter().zip(probabilities) {
            let sigma = (f64::from(p) * (1.0 - f64::from(p)) / n as f64).sqrt();
            let frequency = f64::from(*count) / n as f64;
            assert!((frequency - f64::from(p)).abs() < 4.5 * sigma, "{frequency} for {p}");
        }
    }
}
