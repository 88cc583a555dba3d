//! Times of one generation, told as microseconds since its admission.

use std::time::{Duration, Instant};

use crate::event::{LaneKind, Message, MessageKind, Span};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    admitted: Instant,
}

impl Clock {
    pub(crate) fn new(admitted: Instant) -> Self {
        Self { admitted }
    }

    pub(crate) fn at(&self, time: Instant) -> u64 {
        micros(time.saturating_duration_since(self.admitted))
    }

    pub(crate) fn span(&self, kind: LaneKind, from: Instant, to: Instant) -> Span {
        Span { kind, start_us: self.at(from), end_us: self.at(to) }
    }

    pub(crate) fn message(&self, kind: MessageKind, sent: Instant, taken: Instant) -> Message {
        Message { kind, sent_us: self.at(sent), taken_us: self.at(taken) }
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Microseconds with their fractions, for what is averaged.
pub(crate) fn exact_micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Time that `work` spent inside `from..to`.
pub(crate) fn overlap(work: &[(LaneKind, Instant, Instant)], from: Instant, to: Instant) -> Duration {
    work.iter().map(|(_, begin, end)| (*end).min(to).saturating_duration_since((*begin).max(from))).sum()
}
