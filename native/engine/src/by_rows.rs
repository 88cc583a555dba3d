//! What a pass costs by the number of its rows, as measured.

use std::collections::BTreeMap;

/// How much of a new measurement is believed.
const NEWS: f64 = 1.0 / 16.0;
/// A measurement beyond this many times what is known was a pause of the machine's, and counts as this much.
const PAUSE: f64 = 2.0;

/// Microseconds by rows. Between measured counts of rows costs lie on a line, and beyond them on the last one's slope.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ByRows(BTreeMap<usize, f64>);

impl ByRows {
    /// Takes a measurement in, slowly where one is known.
    pub fn learn(&mut self, rows: usize, micros: f64) {
        let known = self.0.entry(rows).or_insert(micros);
        *known += (micros.min(*known * PAUSE) - *known) * NEWS;
    }

    /// Cost of a pass of `rows` rows, microseconds; `None` before the first measurement.
    pub fn at(&self, rows: usize) -> Option<f64> {
        let below = self.0.range(..=rows).next_back();
        let above = self.0.range(rows..).next();
        let (first, second) = match (below, above) {
            (Some(below), Some(above)) => (below, above),
            // Two points for a slope, if there are two.
            (Some(below), None) => (self.0.range(..below.0).next_back().unwrap_or(below), below),
            (None, Some(above)) => (above, self.0.range(above.0 + 1..).next().unwrap_or(above)),
            (None, None) => return None,
        };
        if first.0 == second.0 {
            return Some(*first.1);
        }
        let slope = (second.1 - first.1) / (*second.0 as f64 - *first.0 as f64);
        // Noise may make more rows look cheaper; a guess from it must not fall below what was seen.
        let guess = first.1 + slope * (rows as f64 - *first.0 as f64);
        Some(guess.max(first.1.min(*second.1)))
    }

    /// Most rows, up to `most`, of a pass that takes at most `micros`; `None` before the first measurement.
    pub fn within(&self, micros: f64, most: usize) -> Option<usize> {
        self.at(1)?;
        Some((1..=most).take_while(|rows| self.at(*rows).is_some_and(|cost| cost <= micros)).count())
    }

    /// What was measured.
    pub fn measured(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        self.0.iter().map(|(rows, micros)| (*rows, *micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_lie_on_lines_between_measurements() {
        let mut costs = ByRows::default();
        assert_eq!((costs.at(1), costs.within(9.0, 4)), (None, None));
        costs.learn(2, 10.0);
        assert_eq!((costs.at(1), costs.at(5)), (Some(10.0), Some(10.0)), "one measurement has no slope");
        costs.learn(6, 30.0);
        assert_eq!((costs.at(2), costs.at(4), costs.at(8)), (Some(10.0), Some(20.0), Some(40.0)));
        assert_eq!(costs.at(1), Some(10.0), "never below what was seen");
        assert_eq!((costs.within(26.0, 16), costs.within(26.0, 3), costs.within(5.0, 16)), (Some(5), Some(3), Some(0)));
    }

    #[test]
    fn measurements_are_taken_in_slowly_and_pauses_hardly() {
        let mut costs = ByRows::default();
        costs.learn(1, 16.0);
        costs.learn(1, 32.0);
        assert_eq!(costs.at(1), Some(17.0));
        costs.learn(1, 1e6);
        assert!(costs.at(1).is_some_and(|cost| cost < 18.1));
    }
}
