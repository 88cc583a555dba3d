//! Shapes that graphs are compiled for. Accelerators want them static, so a pass is padded to the smallest that holds it.

use serde::Serialize;

/// Rows of a step: of more rows, as many passes.
const STEP_ROWS: [usize; 4] = [1, 4, 8, 16];
/// Rows of a pass that only fills the cache.
const PREFILL_ROWS: [usize; 2] = [16, 64];
/// Slots of the smallest cache.
const LEAST_PAST: usize = 256;

/// The shape of one graph, for one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Bucket {
    /// q, new tokens.
    pub rows: usize,
    /// f, rows of streams beside them.
    pub ahead: usize,
    /// T, slots of the cache.
    pub past: usize,
    /// Whether there are logits: a prefill needs none.
    pub head: bool,
}

impl Bucket {
    /// Most rows that a step or a prefill takes at once.
    pub(crate) fn most_rows(head: bool) -> usize {
        let rows: &[usize] = if head { &STEP_ROWS } else { &PREFILL_ROWS };
        rows[rows.len() - 1]
    }

    /// The smallest that holds so many rows, no more than [`Bucket::most_rows`], over a cache of `past` slots. Of a draft
    /// with `streams` streams, `forks` rows fork: none, one, or any number of them.
    pub(crate) fn of((rows, head): (usize, bool), (forks, streams): (usize, usize), past: usize) -> Self {
        let sizes: &[usize] = if head { &STEP_ROWS } else { &PREFILL_ROWS };
        let rows = sizes.iter().copied().find(|size| *size >= rows).unwrap_or(Self::most_rows(head));
        let ahead = match forks {
            0 => 0,
            1 => streams,
            _ => streams * rows,
        };
        Self { rows, ahead, past, head }
    }

    /// Slots of the cache that holds so many.
    pub(crate) fn past_for(slots: usize) -> usize {
        slots.max(LEAST_PAST).next_power_of_two()
    }

    /// All that a draft of this context and with so many streams needs, smallest caches first.
    pub fn all(context: usize, streams: usize) -> Vec<Self> {
        let pasts = std::iter::successors(Some(LEAST_PAST), |past| Some(past * 2));
        let pasts = pasts.take_while(|past| *past < 2 * context.max(LEAST_PAST));
        pasts.flat_map(|past| Self::with_past(past, streams)).collect()
    }

    /// Those of them with a cache of `past` slots.
    pub(crate) fn with_past(past: usize, streams: usize) -> Vec<Self> {
        let mut all: Vec<Self> = PREFILL_ROWS.map(|rows| Self { rows, ahead: 0, past, head: false }).into();
        for rows in STEP_ROWS {
            let forks = if streams == 0 { vec![0] } else { vec![0, streams, streams * rows] };
            all.extend(forks.into_iter().map(|ahead| Self { rows, ahead, past, head: true }));
        }
        // One row forks once, whichever way it is counted.
        all.dedup();
        all
    }

    /// `q4-t256`, `q4-f8-t256`, `prefill64-t256`.
    pub fn name(self) -> String {
        let Self { rows, ahead, past, head } = self;
        match (head, ahead) {
            (false, _) => format!("prefill{rows}-t{past}"),
            (true, 0) => format!("q{rows}-t{past}"),
            (true, _) => format!("q{rows}-f{ahead}-t{past}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_takes_the_smallest_bucket_that_holds_it() {
        let step = |rows, forks| Bucket::of((rows, true), (forks, 2), 256).name();
        assert_eq!([step(1, 0), step(2, 0), step(9, 0)], ["q1-t256", "q4-t256", "q16-t256"]);
        assert_eq!([step(1, 1), step(4, 1), step(5, 3)], ["q1-f2-t256", "q4-f2-t256", "q8-f16-t256"]);
        assert_eq!(Bucket::of((17, false), (0, 2), 512).name(), "prefill64-t512");
    }

    #[test]
    fn all_buckets_cover_the_context_once() {
        let names = |context, streams| Bucket::all(context, streams).into_iter().map(Bucket::name).collect::<Vec<_>>();
        let plain = ["prefill16-t256", "prefill64-t256", "q1-t256", "q4-t256", "q8-t256", "q16-t256"];
        assert_eq!(names(100, 0), plain);
        assert_eq!(names(256, 0), plain);
        assert_eq!(names(257, 0).len(), 2 * plain.len());
        assert_eq!(Bucket::all(1024, 0).last().map(|bucket| bucket.past), Some(1024));
        let streams = names(256, 2);
        assert_eq!(streams.len(), plain.len() + 7, "{streams:?}");
        assert_eq!((Bucket::past_for(0), Bucket::past_for(256), Bucket::past_for(257)), (256, 256, 512));
    }
}
