//! When another draft token is worth its time.

/// What the time of a draft token must bring. A window is best where the next token would add fewer tokens a microsecond
/// than the generation commits anyway (ALGORITHMS: expected committed tokens per second).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Worth {
    /// Tokens that the generation commits in a microsecond; 0 makes every draft token worth while.
    pub(crate) rate: f64,
    /// Probability that a draft token is accepted, those before it being accepted.
    pub(crate) acceptance: f64,
    /// What one more row adds to the target's pass, microseconds.
    pub(crate) row_us: f64,
}

impl Worth {
    /// Draft whatever was asked for.
    pub(crate) const ALL: Self = Self { rate: 0.0, acceptance: 1.0, row_us: 0.0 };

    /// Whether to draft a token that takes `step_us`, where those before it are accepted with probability `reached`.
    pub(crate) fn another(&self, reached: f64, step_us: f64) -> bool {
        reached * self.acceptance >= self.rate * (step_us + self.row_us)
    }

    /// Window that is worth while, at most `most`, where each token takes `step_us`.
    pub(crate) fn window(&self, most: usize, step_us: f64) -> usize {
        (0..most).take_while(|drafted| self.another(self.acceptance.powi(*drafted as i32), step_us)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule finds the window that commits most tokens a microsecond, given the rate that this window has.
    #[test]
    fn windows_are_best_at_their_own_rate() {
        let (acceptance, pass, row_us, step_us) = (0.7, 1000.0, 40.0, 90.0);
        let rate = |len: usize| crate::rates::expected(acceptance, len) / (pass + len as f64 * (row_us + step_us));
        let best = (0..16).max_by(|a, b| rate(*a).total_cmp(&rate(*b))).expect("some");
        assert!((2..10).contains(&best));
        let worth = Worth { rate: rate(best), acceptance, row_us };
        assert_eq!(worth.window(16, step_us), best);
        assert_eq!(worth.window(2, step_us), 2);
        assert_eq!(Worth::ALL.window(16, 1e9), 16);
    }
}
