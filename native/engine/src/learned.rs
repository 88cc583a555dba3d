//! What the target's thread learns while it runs, for all sequences.

use specula_decoding::Recycling;

use crate::auto::Arms;
use crate::by_rows::ByRows;
use crate::rates::Rates;

/// Costs in microseconds, acceptance, and what the target said.
#[derive(Debug, Clone)]
pub(crate) struct Learned {
    /// A target pass by rows, without an exit.
    pub(crate) pass: ByRows,
    /// One with an exit.
    pub(crate) pass_with_exit: ByRows,
    /// Apart for sampling and greedy decoding.
    rates: [Rates; 2],
    /// Whoever asks: one tenant. It moves speed, never text.
    pub(crate) recycling: Recycling,
    pub(crate) arms: Arms,
    /// N.
    pub(crate) layers: usize,
}

impl Learned {
    pub(crate) fn new(pass: ByRows, pass_with_exit: ByRows, arms: Arms, layers: usize) -> Self {
        Self { pass, pass_with_exit, rates: Default::default(), recycling: Recycling::default(), arms, layers }
    }

    pub(crate) fn rates(&mut self, greedy: bool) -> &mut Rates {
        &mut self.rates[usize::from(greedy)]
    }

    /// What one more row adds to a pass of `rows` rows.
    pub(crate) fn row_us(&self, rows: usize) -> f64 {
        let cost = |rows| self.pass.at(rows).unwrap_or(0.0);
        ((cost(rows.max(2)) - cost(1)) / (rows.max(2) - 1) as f64).max(0.0)
    }
}
