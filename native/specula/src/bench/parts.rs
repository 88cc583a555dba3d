//! What a round's time went into, read off its lanes, and ALGORITHMS' latency formula over those parts:
//!
//! T_round = T_target^{1:e} + T_exit + T_rv + max(T_target^{e+1:N}, T_rollout) + T_accept + T_rv′, plus T_draft(γ) on a
//! miss.

use serde::Serialize;
use specula_engine::{LaneKind, Round, Span};

/// One round, in microseconds. It begins where the one before ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Last committed token and window.
    pub(crate) rows: usize,
    /// Whether the window was rolled out in time, for methods that roll out.
    pub(crate) hit: Option<bool>,
    /// Layers 1…e; 0 without an exit.
    pub(crate) prefix: u64,
    pub(crate) exit: u64,
    /// Layers e+1…N and head; all layers without an exit.
    pub(crate) suffix: u64,
    pub(crate) accept: u64,
    /// Drafting that the target waited for.
    pub(crate) serial: u64,
    /// The end of a rollout step that the target waited for.
    pub(crate) overrun: u64,
    /// The rest of the time between the rounds: messages under way, for methods that send any.
    pub(crate) rendezvous: u64,
    /// From the exit (else from the pass's begin) to the end of the last rollout step begun during the pass.
    pub(crate) rollout: u64,
}

impl Parts {
    /// As measured.
    pub(crate) fn whole(&self) -> u64 {
        let target = self.prefix + self.exit + self.suffix + self.accept;
        target + self.serial + self.overrun + self.rendezvous
    }

    /// By the formula.
    fn formula(&self) -> u64 {
        let target = self.prefix + self.exit + self.suffix.max(self.rollout) + self.accept;
        target + self.rendezvous + self.serial
    }

    pub(crate) fn pass(&self) -> u64 {
        self.prefix + self.exit + self.suffix
    }
}

/// Parts of every round but the first, whose wait is part of the beginning: it holds the draft's prefill.
pub(crate) fn of(rounds: &[Round]) -> Vec<Parts> {
    let spans = |round: &Round, kind: LaneKind| -> Vec<Span> {
        round.lanes.iter().filter(|span| span.kind == kind).copied().collect()
    };
    let one = |i: usize| {
        let round = &rounds[i];
        let sum = |kind| spans(round, kind).iter().map(|span| span.end_us - span.start_us).sum::<u64>();
        let edge = |round: &Round, kind| spans(round, kind).iter().map(|span| span.end_us).max();
        let before = edge(&rounds[i - 1], LaneKind::Accept)?;
        let target = [LaneKind::TargetPrefix, LaneKind::TargetSuffix];
        let begin = round.lanes.iter().filter(|span| target.contains(&span.kind)).map(|span| span.start_us).min()?;
        let waited = |kind| within(&spans(round, kind), (before, begin));
        let (serial, overrun) = (waited(LaneKind::DraftSerial), waited(LaneKind::DraftRollout));
        let pass_end = edge(round, LaneKind::TargetSuffix)?;
        let exited = edge(round, LaneKind::Exit).unwrap_or(begin);
        // What was rolled out during a pass is told with the next window.
        let next = rounds.get(i + 1).map(|next| spans(next, LaneKind::DraftRollout)).unwrap_or_default();
        let rolled_out = next.iter().filter(|span| (begin..pass_end).contains(&span.start_us)).map(|span| span.end_us);
        Some(Parts {
            rows: round.window + 1,
            hit: round.hit,
            prefix: sum(LaneKind::TargetPrefix),
            exit: sum(LaneKind::Exit),
            suffix: sum(LaneKind::TargetSuffix),
            accept: sum(LaneKind::Accept),
            serial,
            overrun,
            rendezvous: (begin.saturating_sub(before)).saturating_sub(serial + overrun),
            rollout: rolled_out.max().map_or(0, |end| end.saturating_sub(exited)),
        })
    };
    (1..rounds.len()).filter_map(one).collect()
}

/// Time that spans spend inside `from..to`.
fn within(spans: &[Span], (from, to): (u64, u64)) -> u64 {
    spans.iter().map(|span| span.end_us.min(to).saturating_sub(span.start_us.max(from))).sum()
}

/// Means over rounds, in milliseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct RoundTime {
    /// Rounds counted: all but the first of each answer.
    pub(crate) rounds: usize,
    pub(crate) target_prefix_ms: f64,
    pub(crate) exit_ms: f64,
    pub(crate) target_suffix_ms: f64,
    pub(crate) accept_ms: f64,
    /// Drafting that the target waited for.
    pub(crate) serial_draft_ms: f64,
    /// Ends of rollout steps that the target waited for.
    pub(crate) rollout_overrun_ms: f64,
    pub(crate) rendezvous_ms: f64,
    /// Sum of the above.
    pub(crate) measured_ms: f64,
    /// ALGORITHMS' formula over the same parts.
    pub(crate) formula_ms: f64,
    /// How long rollouts were under way, from the exit to the end of the last step begun during the pass.
    pub(crate) rollout_ms: f64,
}

/// Means of all rounds.
pub(crate) fn mean(parts: &[Parts]) -> RoundTime {
    let mean = |of: fn(&Parts) -> u64| parts.iter().map(of).sum::<u64>() as f64 / parts.len().max(1) as f64 / 1e3;
    RoundTime {
        rounds: parts.len(),
        target_prefix_ms: mean(|p| p.prefix),
        exit_ms: mean(|p| p.exit),
        target_suffix_ms: mean(|p| p.suffix),
        accept_ms: mean(|p| p.accept),
        serial_draft_ms: mean(|p| p.serial),
        rollout_overrun_ms: mean(|p| p.overrun),
        rendezvous_ms: mean(|p| p.rendezvous),
        measured_ms: mean(Parts::whole),
        formula_ms: mean(Parts::formula),
        rollout_ms: mean(|p| p.rollout),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(hit: Option<bool>, lanes: &[(LaneKind, u64, u64)]) -> Round {
        let lanes = lanes.iter().map(|&(kind, start_us, end_us)| Span { kind, start_us, end_us }).collect();
        Round { tokens: Vec::new(), window: 4, accepted: 2, hit, source: None, lanes, messages: Vec::new() }
    }

    /// A first round, a hit whose rollout ran over, and a miss.
    fn rounds() -> [Round; 3] {
        use LaneKind::{Accept, DraftRollout, DraftSerial, Exit, TargetPrefix, TargetSuffix};
        [
            round(
                None,
                &[
                    (DraftSerial, 0, 90),
                    (TargetPrefix, 100, 150),
                    (Exit, 150, 160),
                    (TargetSuffix, 160, 200),
                    (Accept, 200, 210),
                ],
            ),
            round(
                Some(true),
                &[
                    (DraftRollout, 165, 214),
                    (TargetPrefix, 220, 270),
                    (Exit, 270, 280),
                    (TargetSuffix, 280, 320),
                    (Accept, 320, 330),
                ],
            ),
            round(
                Some(false),
                &[
                    (DraftRollout, 225, 275),
                    (DraftRollout, 285, 345),
                    (DraftRollout, 346, 348),
                    (DraftSerial, 350, 390),
                    (TargetSuffix, 400, 480),
                    (Accept, 480, 500),
                ],
            ),
        ]
    }

    #[test]
    fn every_microsecond_of_a_round_has_its_part() {
        let [hit, miss] = of(&rounds())[..] else { panic!("all rounds but the first") };
        assert_eq!((hit.prefix, hit.exit, hit.suffix, hit.accept), (50, 10, 40, 10));
        assert_eq!((hit.serial, hit.overrun, hit.rendezvous), (0, 4, 6));
        assert_eq!(hit.rollout, 345 - 280, "a step begun during the pass counts to its end, one begun later does not");
        assert_eq!((miss.serial, miss.overrun, miss.rendezvous), (40, 15 + 2, 70 - 57));
        assert_eq!((hit.whole(), miss.whole()), (330 - 210, 500 - 330));
    }

    #[test]
    fn the_formula_adds_what_cannot_be_hidden() {
        let parts = of(&rounds());
        // Prefix, exit, the longer of suffix and rollout, accept, messages.
        assert_eq!(parts[0].formula(), 50 + 10 + 65 + 10 + 6);
        // A miss is drafted anew.
        assert_eq!(parts[1].formula(), 80 + 20 + 13 + 40);
        let mean = mean(&parts);
        assert_eq!((mean.rounds, mean.measured_ms), (2, 0.145));
        assert!((mean.formula_ms - 0.147).abs() < 1e-9);
    }
}
