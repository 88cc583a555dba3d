//! What the target's thread learns while it runs, for all sequences.

use specula_decoding::Recycling;

use crate::auto::Arms;
use crate::by_rows::ByRows;
use crate::calibration::Costs;
use crate::rates::Rates;

/// Costs in microseconds, acceptance, and what the target said.
#[derive(Debug, Clone)]
pub(crate) struct Learned {
    alone: ByRows,
    beside: ByRows,
    with_exit: ByRows,
    /// Apart for sampling and greedy decoding.
    rates: [Rates; 2],
    /// Whoever asks: one tenant. It moves speed, never text.
    pub(crate) recycling: Recycling,
    pub(crate) arms: Arms,
}

impl Learned {
    pub(crate) fn new(costs: &Costs, arms: Arms) -> Self {
        Self {
            alone: costs.alone.clone(),
            beside: costs.beside.clone(),
            with_exit: costs.with_exit.clone(),
            rates: Default::default(),
            recycling: Recycling::default(),
            arms,
        }
    }

    pub(crate) fn rates(&mut self, greedy: bool) -> &mut Rates {
        &mut self.rates[usize::from(greedy)]
    }

    /// What passes cost, by whether the draft works beside them and whether an exit looks into them.
    pub(crate) fn costs(&mut self, beside: bool, exit: bool) -> &mut ByRows {
        match (beside, exit) {
            (_, true) => &mut self.with_exit,
            (true, false) => &mut self.beside,
            (false, false) => &mut self.alone,
        }
    }

    /// What a pass takes that nobody works beside and no exit looks into.
    pub(crate) fn alone_us(&self, rows: usize) -> Option<f64> {
        self.alone.at(rows)
    }

    /// What one more row adds to a pass of `rows` rows.
    pub(crate) fn row_us(&mut self, beside: bool, rows: usize) -> f64 {
        let costs = self.costs(beside, false);
        let cost = |rows| costs.at(rows).unwrap_or(0.0);
        ((cost(rows.max(2)) - cost(1)) / (rows.max(2) - 1) as f64).max(0.0)
    }
}
