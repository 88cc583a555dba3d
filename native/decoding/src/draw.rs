//! The own draw, and the ranking of candidates by the noise the draw will use.

use crate::noise::{GUMBEL_MAX, GUMBEL_MIN};
use crate::{Noise, Row, TokenId};

/// Where a row's noise comes from: `None` at temperature 0, else the request's noise and the position of the token
/// to be drawn, counted from the first prompt token.
pub type At = Option<(Noise, u32)>;

/// The target's own draw: argmax over allowed tokens of log p + G, ties to the lowest id (the constant log Z does not
/// move the argmax, so the row's values serve as they are). `None` if no token is allowed.
pub fn own_draw(row: &Row, at: At) -> Option<TokenId> {
    let Some((noise, position)) = at else { return argmax(row) };
    let mut best = None;
    // A token wins only if its value plus the largest noise reaches the best perturbed score known so far; the row's
    // best token alone guarantees max + GUMBEL_MIN.
    let mut floor = row.max() + GUMBEL_MIN;
    let mut best_score = f32::NEG_INFINITY;
    for (token, &logit) in row.logits().iter().enumerate() {
        if logit == f32::NEG_INFINITY || logit + GUMBEL_MAX < floor {
            continue;
        }
        let score = logit + noise.gumbel(position, token as TokenId);
        if score > best_score {
            best_score = score;
            best = Some(token as TokenId);
            floor = floor.max(score);
        }
    }
    best
}

/// The `k` best tokens by log p + G with those scores (relative to log Z), best first, ties to the lower id: what an
/// exit or a draft believes the target will draw, most likely first. The first is its own coupled guess.
pub fn ranked(row: &Row, at: At, k: usize) -> Vec<(TokenId, f32)> {
    let Some((noise, position)) = at else { return row.top(k) };
    let floor = row.max() + GUMBEL_MIN - GUMBEL_MAX;
    let mut scored: Vec<(TokenId, f32)> = row
        .logits()
        .iter()
        .enumerate()
        .filter(|(_, l)| **l > floor)
        .map(|(t, l)| (t as TokenId, l + noise.gumbel(position, t as TokenId)))
        .collect();
    let by_rank = |a: &(TokenId, f32), b: &(TokenId, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if 0 < k && k < scored.len() {
        scored.select_nth_unstable_by(k - 1, by_rank);
    }
    scored.truncate(k);
    scored.sort_unstable_by(by_rank);
    scored
}

fn argmax(row: &Row) -> Option<TokenId> {
    let mut best: Option<(usize, f32)> = None;
    for (token, &logit) in row.logits().iter().enumerate() {
        if logit > best.map_or(f32::NEG_INFINITY, |b| b.1) {
            best = Some((token, logit));
        }
    }
    best.map(|(token, _)| token as TokenId)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(own_draw(&row, Some((noise, 3))), full);
            assert_eq!(ranked(&row, Some((noise, 3)), 4).first().map(|c| c.0), full);
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
            let token = own_draw(&row, Some((Noise::new(seed, 0), 11))).expect("row has support");
            counts[token as usize] += 1;
        }
        for (count, p) in counts.iter().zip(probabilities) {
            let sigma = (f64::from(p) * (1.0 - f64::from(p)) / n as f64).sqrt();
            let frequency = f64::from(*count) / n as f64;
            assert!((frequency - f64::from(p)).abs() < 4.5 * sigma, "{frequency} for {p}");
        }
    }
}
