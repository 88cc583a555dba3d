//! How often guesses are right: the probability that a draft token is accepted, given that those before it were.

use specula_decoding::TokenTree;

/// Who guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guesser {
    /// The draft model.
    Draft,
    /// Prompt look-up.
    Lookup,
    /// Token Recycling.
    Recycling,
}

/// Draft tokens that what was seen before counts as, when a sequence begins or the engine starts.
const PRIOR: f64 = 8.0;
/// What is remembered of what was seen, each time that something new is.
const MEMORY: f64 = 0.98;

/// Acceptance of each guesser: of one sequence, or of all, by whether sampling is greedy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates([Rate; 3]);

#[derive(Debug, Clone, Copy)]
struct Rate {
    offered: f64,
    accepted: f64,
}

impl Default for Rates {
    /// Moderate guesses, soon outweighed.
    fn default() -> Self {
        let rate = |probability: f64| Rate { offered: PRIOR, accepted: PRIOR * probability };
        Self([rate(0.65), rate(0.4), rate(0.4)])
    }
}

impl Rates {
    /// Where a new sequence begins: what is known, as easily outweighed as at the very start.
    pub(crate) fn begin(&self) -> Self {
        Self(self.0.map(|rate| Rate { offered: PRIOR, accepted: PRIOR * rate.accepted / rate.offered }))
    }

    /// Takes in a round: `accepted` levels of the tree were accepted.
    pub(crate) fn learn(&mut self, guesser: Guesser, tree: &TokenTree, accepted: usize) {
        if tree.is_empty() {
            return;
        }
        let rejected = tree.depth() > accepted;
        let rate = &mut self.0[guesser as usize];
        rate.offered = rate.offered * MEMORY + accepted as f64 + f64::from(u8::from(rejected));
        rate.accepted = rate.accepted * MEMORY + accepted as f64;
    }

    /// Probability that the next draft token is accepted, those before it being accepted.
    pub(crate) fn of(&self, guesser: Guesser) -> f64 {
        let rate = self.0[guesser as usize];
        (rate.accepted / rate.offered).clamp(0.01, 0.99)
    }
}

/// Tokens that a window of `len` draft tokens is expected to commit, the target's own included.
pub(crate) fn expected(acceptance: f64, len: usize) -> f64 {
    (0..=len).map(|i| acceptance.powi(i as i32)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_what_is_seen() {
        let mut rates = Rates::default();
        let before = rates.of(Guesser::Lookup);
        let window = TokenTree::chain(&[1, 2, 3, 4]);
        for _ in 0..200 {
            rates.learn(Guesser::Draft, &window, 3);
        }
        assert!((rates.of(Guesser::Draft) - 0.75).abs() < 1e-3, "three of four offers");
        assert_eq!(rates.of(Guesser::Lookup), before);
        let mut again = rates.begin();
        assert!((again.of(Guesser::Draft) - 0.75).abs() < 1e-3);
        again.learn(Guesser::Draft, &window, 0);
        assert!(again.of(Guesser::Draft) < rates.of(Guesser::Draft) - 0.03, "a new sequence learns faster");
        rates.learn(Guesser::Draft, &TokenTree::default(), 0);
        assert!((rates.of(Guesser::Draft) - 0.75).abs() < 1e-3, "nothing offered, nothing learnt");
    }

    #[test]
    fn expectations_are_geometric_sums() {
        assert_eq!(expected(0.5, 0), 1.0);
        assert_eq!(expected(0.5, 2), 1.75);
    }
}
