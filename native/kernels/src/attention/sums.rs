//! Sums over dimensions and over slots, for N queries at a time. Every sum has its own register; enough of them are kept
//! going to hide an instruction's latency.

use std::ops::Range;

use crate::cache::{GROUP, KeyValues};
use crate::lanes::{Lanes, WIDTH};
use crate::memory::ask_ahead;

/// Products of N queries with the keys of groups of slots, each summed over dimensions in order; `scores` has a piece for
/// each query, by slot. G groups are computed at once.
#[inline(always)]
pub(super) fn dot_keys<L: Lanes, const N: usize, const G: usize>(
    queries: [&[f32]; N],
    (cache, kv_head): (&KeyValues, usize),
    groups: Range<usize>,
    scores: &mut [f32],
) {
    let ahead = G * cache.key_stride();
    let mut from = groups.start;
    while from + G <= groups.end {
        dot_groups::<L, N, G>(
            queries,
            std::array::from_fn(|i| cache.key_group(from + i, kv_head)),
            from,
            ahead,
            scores,
        );
        from += G;
    }
    for from in from..groups.end {
        dot_groups::<L, N, 1>(queries, [cache.key_group(from, kv_head)], from, ahead, scores);
    }
}

#[inline(always)]
fn dot_groups<L: Lanes, const N: usize, const G: usize>(
    queries: [&[f32]; N],
    keys: [&[[f32; GROUP]]; G],
    first: usize,
    ahead: usize,
    scores: &mut [f32],
) {
    let dim = keys[0].len();
    assert!(queries.iter().all(|q| q.len() == dim) && keys.iter().all(|k| k.len() == dim), "{dim} dimensions");
    let mut sums = [[L::splat(0.0); G]; N];
    for d in 0..dim {
        // SAFETY: all are `dim` long.
        let keys = keys.map(|keys| unsafe { keys.get_unchecked(d) });
        keys.iter().for_each(|keys| ask_ahead(*keys, ahead));
        let keys = keys.map(L::load);
        for (sums, query) in sums.iter_mut().zip(queries) {
            // SAFETY: as above.
            let x = L::splat(unsafe { *query.get_unchecked(d) });
            for (sum, keys) in sums.iter_mut().zip(keys) {
                *sum = keys.mul_add(x, *sum);
            }
        }
    }
    let stride = scores.len() / N;
    for (scores, sums) in scores.chunks_exact_mut(stride).zip(sums) {
        let scores = scores[first * GROUP..(first + G) * GROUP].as_chunks_mut().0;
        for (scores, sum) in scores.iter_mut().zip(sums) {
            sum.store(scores);
        }
    }
}

/// Slots one after the other in one group, and the place of the first in a path.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) place: usize,
    pub(super) slots: Range<usize>,
}

/// Adds the values of runs of slots, weighted for N queries, to `results` `[N][D]`, D padded; `weights` has a piece for each
/// query, by place. P registers' worths of a head's values are computed at once.
#[inline(always)]
pub(super) fn add_values<L: Lanes, const N: usize, const P: usize>(
    weights: &[f32],
    (cache, kv_head): (&KeyValues, usize),
    runs: impl Iterator<Item = Run> + Clone,
    results: &mut [f32],
) {
    let parts = results.len() / N / WIDTH;
    let mut part = 0;
    while part + P <= parts {
        add_parts::<L, N, P>(weights, (cache, kv_head), runs.clone(), part, results);
        part += P;
    }
    for part in part..parts {
        add_parts::<L, N, 1>(weights, (cache, kv_head), runs.clone(), part, results);
    }
}

#[inline(always)]
fn add_parts<L: Lanes, const N: usize, const P: usize>(
    weights: &[f32],
    (cache, kv_head): (&KeyValues, usize),
    runs: impl Iterator<Item = Run>,
    part: usize,
    results: &mut [f32],
) {
    let (stride, parts) = (weights.len() / N, results.len() / N / WIDTH);
    let ahead = cache.value_stride();
    let results = results.as_chunks_mut::<WIDTH>().0;
    let mut sums: [[L; P]; N] =
        std::array::from_fn(|n| std::array::from_fn(|p| L::load(&results[n * parts + part + p])));
    for Run { place, slots } in runs {
        let len = slots.len();
        let values = cache.values(slots, kv_head);
        let weights: [&[f32]; N] = std::array::from_fn(|n| &weights[n * stride..][place..place + len]);
        assert!(part + P <= parts && values.len() == len * parts, "values of {len} slots");
        for slot in 0..len {
            // SAFETY: slot < len and part + P ≤ parts.
            let values: [_; P] = std::array::from_fn(|p| unsafe { values.get_unchecked(slot * parts + part + p) });
            values.iter().for_each(|values| ask_ahead(*values, ahead));
            let values = values.map(L::load);
            for (sums, weights) in sums.iter_mut().zip(weights) {
                // SAFETY: all are `len` long.
                let weight = L::splat(unsafe { *weights.get_unchecked(slot) });
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = value.mul_add(weight, *sum);
                }
            }
        }
    }
    for (n, sums) in sums.into_iter().enumerate() {
        for (p, sum) in sums.into_iter().enumerate() {
            sum.store(&mut results[n * parts + part + p]);
        }
    }
}
