//! What mirroring could reach at most. With a free draft and a window rolled out for every outcome, a round costs its pass
//! and its acceptance alone; a serial draft adds its steps. Costs in milliseconds, speeds in tokens per millisecond.

use std::collections::BTreeMap;

/// What a pass of the target costs by the number of its rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowCosts(pub(crate) BTreeMap<usize, f64>);

impl RowCosts {
    /// Cost of a pass of `rows` rows: as measured, or on the line between the measured neighbours. `None` outside of what
    /// was measured.
    pub(crate) fn pass(&self, rows: usize) -> Option<f64> {
        let (below, low) = self.0.range(..=rows).next_back()?;
        let (above, high) = self.0.range(rows..).next()?;
        if below == above {
            return Some(*low);
        }
        Some(low + (high - low) * (rows - below) as f64 / (above - below) as f64)
    }
}

/// Tokens of a round with a window of `window`: 1 and, for each position, the share of windows accepted so far.
/// `accepted[i]`: of the windows of more than i tokens, the share that accepted token i (and so all before it).
pub(crate) fn tokens(accepted: &[f64], window: usize) -> f64 {
    1.0 + accepted.iter().take(window).sum::<f64>()
}

/// The best window and speed of rounds whose window costs nothing, over the windows whose acceptance and row costs are known.
pub(crate) fn free_draft(costs: &RowCosts, accepted: &[f64], accept: f64) -> Option<(usize, f64)> {
    let speed = |window: usize| Some((window, tokens(accepted, window) / (costs.pass(window + 1)? + accept)));
    (1..=accepted.len()).filter_map(speed).max_by(|a, b| a.1.total_cmp(&b.1))
}

/// Speed of rounds whose `window` tokens are drafted before the pass, `step` each.
pub(crate) fn serial(costs: &RowCosts, accepted: &[f64], accept: f64, (window, step): (usize, f64)) -> Option<f64> {
    Some(tokens(accepted, window) / (window as f64 * step + costs.pass(window + 1)? + accept))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs() -> RowCosts {
        RowCosts(BTreeMap::from([(1, 10.0), (3, 12.0), (5, 20.0)]))
    }

    #[test]
    fn passes_between_measured_ones_lie_on_a_line() {
        let costs = costs();
        assert_eq!([1, 2, 3, 4, 5].map(|rows| costs.pass(rows)), [10.0, 11.0, 12.0, 16.0, 20.0].map(Some));
        assert_eq!((costs.pass(0), costs.pass(6)), (None, None));
    }

    #[test]
    fn the_best_window_weighs_acceptance_against_rows() {
        // Windows of 1, 2 and 4: 1.8 / 12, 2.4 / 13 and 2.6 / 21 tokens.
        let accepted = [0.8, 0.6, 0.1, 0.1];
        let (window, speed) = free_draft(&costs(), &accepted, 1.0).expect("known windows");
        assert_eq!(window, 2);
        assert!((speed - 2.4 / 13.0).abs() < 1e-12);
    }

    #[test]
    fn a_serial_draft_pays_for_its_steps() {
        let speed = serial(&costs(), &[0.8, 0.6], 1.0, (2, 3.0)).expect("known windows");
        assert!((speed - 2.4 / (6.0 + 12.0 + 1.0)).abs() < 1e-12);
        assert_eq!(serial(&costs(), &[0.8, 0.6], 1.0, (8, 3.0)), None, "nine rows were not measured");
    }

    #[test]
    fn bounds_end_where_nothing_was_measured() {
        assert_eq!(free_draft(&costs(), &[0.9; 9], 0.0).map(|best| best.0), Some(2), "2.8 / 12 beats 4.6 / 20");
        assert_eq!(free_draft(&RowCosts::default(), &[0.9], 0.0), None);
    }
}
