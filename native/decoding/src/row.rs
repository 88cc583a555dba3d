//! One row of logits and the edits that sampling rules, built in or plugged in, may make to it.

use crate::TokenId;
use crate::wide::largest;

/// A working copy of one row `[V]`. A forbidden token holds −∞. Edits apply in the order made.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    logits: Vec<f32>,
}

impl Row {
    /// Copies a model's raw row.
    pub fn new(logits: &[f32]) -> Self {
        Self { logits: logits.to_vec() }
    }

    /// Current values, −∞ for forbidden tokens.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Current values for edits that the methods below do not cover.
    pub fn logits_mut(&mut self) -> &mut [f32] {
        &mut self.logits
    }

    /// Number of tokens in the vocabulary, V.
    pub fn vocab_size(&self) -> usize {
        self.logits.len()
    }

    /// Adds a bias to one token. Tokens outside the vocabulary are the caller's error and are left alone.
    pub fn bias(&mut self, token: TokenId, bias: f32) {
        if let Some(logit) = self.logits.get_mut(token as usize) {
            *logit += bias;
        }
    }

    /// Forbids one token.
    pub fn forbid(&mut self, token: TokenId) {
        if let Some(logit) = self.logits.get_mut(token as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }

    /// Forbids every token whose bit is not set: bit i mod 32 of word i / 32 allows token i; missing words forbid.
    pub fn allow(&mut self, mask: &[u32]) {
        for (i, logit) in self.logits.iter_mut().enumerate() {
            let allowed = mask.get(i / 32).is_some_and(|word| word >> (i % 32) & 1 == 1);
            if !allowed {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    /// Adds `amount` to every token whose bit is set, as in [`Row::allow`].
    pub fn bias_mask(&mut self, mask: &[u32], amount: f32) {
        for (chunk, word) in self.logits.chunks_mut(32).zip(mask) {
            for (i, logit) in chunk.iter_mut().enumerate() {
                if word >> i & 1 == 1 {
                    *logit += amount;
                }
            }
        }
    }

    /// Keeps the tokens whose value is at least `logit`.
    pub fn keep_from(&mut self, logit: f32) {
        for own in &mut self.logits {
            if *own < logit {
                *own = f32::NEG_INFINITY;
            }
        }
    }

    /// How many tokens are allowed, with the largest of their values, the mean and the standard deviation, summed in f64 in
    /// eight interleaved parts; (0, −∞, 0, 0) if none is.
    pub fn summary(&self) -> (usize, f32, f32, f32) {
        const PARTS: usize = 8;
        let (mut counts, mut sums, mut squares) = ([0.0_f64; PARTS], [0.0_f64; PARTS], [0.0_f64; PARTS]);
        let mut add = |i: usize, logit: f32| {
            let allowed = logit > f32::NEG_INFINITY;
            let value = if allowed { f64::from(logit) } else { 0.0 };
            counts[i] += if allowed { 1.0 } else { 0.0 };
            sums[i] += value;
            squares[i] += value * value;
        };
        let (whole, rest) = self.logits.as_chunks::<PARTS>();
        for chunk in whole {
            for (i, &logit) in chunk.iter().enumerate() {
                add(i, logit);
            }
        }
        for (i, &logit) in rest.iter().enumerate() {
            add(i, logit);
        }
        let count: f64 = counts.iter().sum();
        if count == 0.0 {
            return (0, f32::NEG_INFINITY, 0.0, 0.0);
        }
        let mean = sums.iter().sum::<f64>() / count;
        // Logits are small numbers: in f64 nothing of an f32 is lost in the difference.
        let variance = (squares.iter().sum::<f64>() / count - mean * mean).max(0.0);
        (count as usize, self.max(), mean as f32, variance.sqrt() as f32)
    }

    /// Divides every value by `temperature` (> 0).
    pub fn scale(&mut self, temperature: f32) {
        for logit in &mut self.logits {
            *logit /= temperature;
        }
    }

    /// Keeps the `k` largest values, ties by lower id. `k` = 0 keeps all.
    pub fn keep_top_k(&mut self, k: usize) {
        if k == 0 || k >= self.logits.len() {
            return;
        }
        let mut order = self.support();
        if k >= order.len() {
            return;
        }
        order.select_nth_unstable_by(k - 1, |&a, &b| self.by_rank(a, b));
        for &token in &order[k..] {
            self.forbid(token);
        }
    }

    /// Keeps the smallest set of best tokens whose probability reaches `p`, ties by lower id. `p` ≥ 1 keeps all.
    pub fn keep_top_p(&mut self, p: f32) {
        if p >= 1.0 {
            return;
        }
        let mut order = self.support();
        let top = self.max();
        let weight = |t: TokenId| f64::from(self.logits[t as usize] - top).exp();
        let goal = f64::from(p) * order.iter().map(|&t| weight(t)).sum::<f64>();
        let (mut mass, mut kept, mut sorted) = (0.0, 0, 0);
        // Few tokens are kept as a rule: no more are sorted than need be.
        while mass < goal && kept < order.len() {
            if kept == sorted {
                let rest = &mut order[sorted..];
                let next = rest.len().min((3 * sorted).max(32));
                rest.select_nth_unstable_by(next - 1, |&a, &b| self.by_rank(a, b));
                rest[..next].sort_unstable_by(|&a, &b| self.by_rank(a, b));
                sorted += next;
            }
            mass += weight(order[kept]);
            kept += 1;
        }
        for &token in &order[kept..] {
            self.forbid(token);
        }
    }

    /// Keeps tokens whose probability is at least `p` times the best one's. `p` = 0 keeps all.
    pub fn keep_min_p(&mut self, p: f32) {
        if p <= 0.0 {
            return;
        }
        let top = self.max();
        // Compared as logits: ln p is −∞ only for p = 0, which is handled above.
        let floor = top + p.ln();
        for logit in &mut self.logits {
            if *logit < floor {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    /// Largest value; −∞ if everything is forbidden.
    pub fn max(&self) -> f32 {
        largest(&self.logits)
    }

    /// The `k` best tokens with their values, best first, ties by lower id; fewer if fewer are allowed.
    pub fn top(&self, k: usize) -> Vec<(TokenId, f32)> {
        let mut order = self.support();
        if k < order.len() {
            if k == 0 {
                return Vec::new();
            }
            order.select_nth_unstable_by(k - 1, |&a, &b| self.by_rank(a, b));
            order.truncate(k);
        }
        order.sort_unstable_by(|&a, &b| self.by_rank(a, b));
        order.into_iter().map(|t| (t, self.logits[t as usize])).collect()
    }

    /// Log of the sum of exponentials of the values, summed in id order in f64.
    pub fn log_sum_exp(&self) -> f32 {
        let top = self.max();
        if top == f32::NEG_INFINITY {
            return top;
        }
        let sum: f64 = self.logits.iter().map(|&l| f64::from(l - top).exp()).sum();
        top + sum.ln() as f32
    }

    fn support(&self) -> Vec<TokenId> {
        (0..self.logits.len() as TokenId).filter(|&t| self.logits[t as usize] > f32::NEG_INFINITY).collect()
    }

    fn by_rank(&self, a: TokenId, b: TokenId) -> std::cmp::Ordering {
        self.logits[b as usize].total_cmp(&self.logits[a as usize]).then(a.cmp(&b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(row: &Row) -> Vec<usize> {
        (0..row.vocab_size()).filter(|&i| row.logits()[i].is_finite()).collect()
    }

    #[test]
    fn top_k_breaks_ties_by_lower_id() {
        let mut row = Row::new(&[1.0, 2.0, 2.0, 2.0, 0.0]);
        row.keep_top_k(2);
        assert_eq!(allowed(&row), [1, 2]);
    }

    #[test]
    fn top_p_keeps_the_smallest_set_that_reaches_p() {
        let probabilities = [0.1_f32, 0.5, 0.2, 0.2];
        let logits: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
        for (p, want) in [(0.4, vec![1]), (0.6, vec![1, 2]), (0.85, vec![1, 2, 3]), (1.0, vec![0, 1, 2, 3])] {
            let mut row = Row::new(&logits);
            row.keep_top_p(p);
            assert_eq!(allowed(&row), want, "p = {p}");
        }
    }

    #[test]
    fn top_p_keeps_long_tails_in_order() {
        let logits: Vec<f32> = (0..500).map(|i| ((i * 7919) % 500) as f32 * 0.01).collect();
        let mut row = Row::new(&logits);
        row.keep_top_p(0.8);
        let weights: Vec<f64> = logits.iter().map(|l| f64::from(*l).exp()).collect();
        let kept = allowed(&row);
        let mass = |tokens: &[usize]| tokens.iter().map(|t| weights[*t]).sum::<f64>() / weights.iter().sum::<f64>();
        let least = kept.iter().copied().min_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("some are kept");
        let others: Vec<usize> = kept.iter().copied().filter(|t| *t != least).collect();
        assert!(mass(&kept) >= 0.8 && mass(&others) < 0.8, "the smallest set");
        assert!((0..500).filter(|t| !kept.contains(t)).all(|t| logits[t] <= logits[least]), "of the best");
    }

    #[test]
    fn min_p_is_relative_to_the_best() {
        let mut row = Row::new(&[0.0, 0.5_f32.ln(), 0.04_f32.ln(), 0.06_f32.ln()]);
        row.keep_min_p(0.05);
        assert_eq!(allowed(&row), [0, 1, 3]);
    }

    #[test]
    fn allow_forbids_what_the_mask_leaves_out() {
        let mut row = Row::new(&[0.0; 40]);
        row.allow(&[0b101]);
        assert_eq!(allowed(&row), [0, 2]);
    }

    #[test]
    fn a_summary_is_over_allowed_tokens() {
        let mut row = Row::new(&[9.0, 1.0, 2.0, 3.0, 4.0, 2.0, 2.0, 2.0, 2.0, 0.0]);
        assert_eq!(Row::new(&[2.0, 4.0]).summary(), (2, 4.0, 3.0, 1.0));
        row.forbid(0);
        row.keep_from(1.5);
        assert_eq!(allowed(&row), [2, 3, 4, 5, 6, 7, 8]);
        let (count, max, mean, deviation) = row.summary();
        assert_eq!((count, max), (7, 4.0));
        assert!((mean - 17.0 / 7.0).abs() < 1e-6 && (deviation - 0.728_431_3).abs() < 1e-6, "{mean} {deviation}");
        assert_eq!(Row::new(&[f32::NEG_INFINITY]).summary(), (0, f32::NEG_INFINITY, 0.0, 0.0));
    }

    #[test]
    fn a_mask_biases_what_it_names() {
        let mut row = Row::new(&[0.0; 40]);
        row.forbid(33);
        row.bias_mask(&[0b101, 0b11], 1.5);
        let raised: Vec<usize> = (0..40).filter(|&i| row.logits()[i] == 1.5).collect();
        assert_eq!(raised, [0, 2, 32]);
        assert_eq!(row.logits()[33], f32::NEG_INFINITY);
    }

    #[test]
    fn top_is_sorted_and_skips_forbidden_tokens() {
        let mut row = Row::new(&[3.0, 1.0, 2.0, 2.0]);
        row.forbid(0);
        assert_eq!(row.top(2), [(2, 2.0), (3, 2.0)]);
        assert_eq!(row.top(9).len(), 3);
    }
}
