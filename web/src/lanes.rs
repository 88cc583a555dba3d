//! Where the chart of the last rounds puts its bars, ticks and marks. Lengths are CSS pixels.

use std::collections::VecDeque;

use specula_protocol::{Lane, LaneSpan};

/// Rounds shown at once.
pub const ROUNDS_SHOWN: usize = 8;

/// Ticks on the axis, at most.
const MOST_TICKS: f64 = 6.0;

/// The last rounds.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    rounds: VecDeque<Round>,
}

#[derive(Debug, Clone)]
struct Round {
    spans: Vec<LaneSpan>,
    hit: Option<bool>,
}

/// Which of the two lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// The target's.
    Target,
    /// The draft's.
    Draft,
}

/// The lane in which a kind of work is shown.
pub fn row(lane: Lane) -> Row {
    match lane {
        Lane::TargetPrefix | Lane::Exit | Lane::TargetSuffix | Lane::Accept => Row::Target,
        Lane::DraftSerial | Lane::DraftRollout => Row::Draft,
    }
}

/// One stretch of work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bar {
    /// What was done.
    pub lane: Lane,
    /// Left edge.
    pub x: f64,
    /// Width.
    pub width: f64,
}

/// A tick of the axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    /// Its place.
    pub x: f64,
    /// Milliseconds since the first shown round began.
    pub label: String,
}

/// Where a round begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mark {
    /// Its place.
    pub x: f64,
    /// Whether the round began with a window rolled out in time.
    pub hit: Option<bool>,
}

/// All that is drawn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Layout {
    /// Bars of both lanes.
    pub bars: Vec<Bar>,
    /// The axis.
    pub ticks: Vec<Tick>,
    /// Beginnings of rounds.
    pub marks: Vec<Mark>,
}

impl Timeline {
    /// Adds a round and forgets the oldest. A round without measured work cannot be shown.
    pub fn push(&mut self, spans: &[LaneSpan], hit: Option<bool>) {
        if spans.is_empty() {
            return;
        }
        if self.rounds.len() == ROUNDS_SHOWN {
            self.rounds.pop_front();
        }
        self.rounds.push_back(Round { spans: spans.to_vec(), hit });
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.rounds.clear();
    }

    /// First begin and last end of the shown rounds.
    fn extent(&self) -> Option<(u64, u64)> {
        let spans = || self.rounds.iter().flat_map(|round| &round.spans);
        let begin = spans().map(|span| span.start_us).min()?;
        let end = spans().map(|span| span.end_us).max()?;
        (end > begin).then_some((begin, end))
    }

    /// Fits the rounds into `width` pixels from `left`; empty if there is nothing to show.
    pub fn layout(&self, left: f64, width: f64) -> Layout {
        let Some((begin, end)) = self.extent() else { return Layout::default() };
        let scale = width / (end - begin) as f64;
        let x = |us: u64| left + us.saturating_sub(begin) as f64 * scale;
        let spans = self.rounds.iter().flat_map(|round| &round.spans);
        // Work too short for a pixel still has to be seen.
        let bars = spans.map(|span| Bar {
            lane: span.lane,
            x: x(span.start_us),
            width: (x(span.end_us) - x(span.start_us)).max(1.0),
        });
        let marks = self.rounds.iter().filter_map(|round| Some(Mark { x: x(round.begin()?), hit: round.hit }));
        let (bars, marks) = (bars.collect(), marks.collect());
        Layout { bars, marks, ticks: ticks((end - begin) as f64 / 1000.0, left, width) }
    }

    /// The chart in words.
    pub fn summary(&self) -> String {
        let Some((begin, end)) = self.extent() else { return "No rounds measured yet.".to_owned() };
        let count = |hit| self.rounds.iter().filter(|round| round.hit == Some(hit)).count();
        let busy = |wanted: Row| -> f64 {
            let spans = self.rounds.iter().flat_map(|round| &round.spans).filter(|span| row(span.lane) == wanted);
            spans.map(|span| span.end_us.saturating_sub(span.start_us)).sum::<u64>() as f64 / 1000.0
        };
        let rounds = self.rounds.len();
        format!(
            "Last {rounds} {}, {:.1} ms: target busy {:.1} ms, draft busy {:.1} ms, {} hits, {} misses.",
            if rounds == 1 { "round" } else { "rounds" },
            (end - begin) as f64 / 1000.0,
            busy(Row::Target),
            busy(Row::Draft),
            count(true),
            count(false),
        )
    }
}

impl Round {
    /// When the target began; a round that the target had no part in has no beginning.
    fn begin(&self) -> Option<u64> {
        self.spans.iter().filter(|span| row(span.lane) == Row::Target).map(|span| span.start_us).min()
    }
}

/// Ticks at a step of 1, 2 or 5 times a power of ten.
fn ticks(total_ms: f64, left: f64, width: f64) -> Vec<Tick> {
    let power = 10_f64.powf((total_ms / MOST_TICKS).log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| total_ms / step <= MOST_TICKS);
    let step = step.unwrap_or(total_ms);
    let digits = (-step.log10().floor()).max(0.0) as usize;
    let count = (total_ms / step).floor() as usize;
    let at = |i: usize| i as f64 * step;
    (0..=count).map(|i| Tick { x: left + at(i) / total_ms * width, label: format!("{:.digits$}", at(i)) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(lane: Lane, start_us: u64, end_us: u64) -> LaneSpan {
        LaneSpan { lane, start_us, end_us }
    }

    fn two_rounds() -> Timeline {
        let mut timeline = Timeline::default();
        timeline.push(&[span(Lane::TargetPrefix, 1000, 3000), span(Lane::DraftRollout, 2000, 4000)], None);
        timeline.push(&[span(Lane::TargetSuffix, 4000, 6000), span(Lane::Accept, 6000, 6000)], Some(true));
        timeline
    }

    #[test]
    fn bars_fill_the_width_and_stay_visible() {
        let layout = two_rounds().layout(10.0, 100.0);
        let places: Vec<(f64, f64)> = layout.bars.iter().map(|bar| (bar.x, bar.width)).collect();
        assert_eq!(places, [(10.0, 40.0), (30.0, 40.0), (70.0, 40.0), (110.0, 1.0)]);
        assert_eq!(layout.marks, [Mark { x: 10.0, hit: None }, Mark { x: 70.0, hit: Some(true) }]);
    }

    #[test]
    fn ticks_are_round_numbers() {
        let labels = |ms| ticks(ms, 0.0, 1.0).into_iter().map(|tick| tick.label).collect::<Vec<_>>();
        assert_eq!(labels(5.0), ["0", "1", "2", "3", "4", "5"]);
        assert_eq!(labels(130.0), ["0", "50", "100"]);
        assert_eq!(labels(0.9), ["0.0", "0.2", "0.4", "0.6", "0.8"]);
    }

    #[test]
    fn only_the_last_rounds_are_kept() {
        let mut timeline = Timeline::default();
        for i in 0..20 {
            timeline.push(&[span(Lane::TargetPrefix, i * 10, i * 10 + 10)], Some(i % 2 == 0));
        }
        timeline.push(&[], None);
        assert_eq!(timeline.layout(0.0, 80.0).bars.len(), ROUNDS_SHOWN);
        assert!(timeline.summary().contains("4 hits, 4 misses"), "{}", timeline.summary());
    }

    #[test]
    fn nothing_measured_is_nothing_drawn() {
        assert_eq!(Timeline::default().layout(0.0, 100.0), Layout::default());
        assert_eq!(Timeline::default().summary(), "No rounds measured yet.");
    }
}
