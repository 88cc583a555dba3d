//! Softmax(q kᵀ / √D) v over a cache with a tree on top. Each row sums over its own path, in path order, whatever else is
//! in the cache or in the pass.

use crate::cache::{GROUP, KeyValues, Values};
use crate::isa::compiled_for_each_isa;
use crate::lanes::{Lanes, WIDTH};
use crate::math::{LANES, exp, sum};
use crate::team::{Parts, Team};

/// The slots a row sees, in path order: `0..prefix`, then `extra`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// Slots from the first on.
    pub prefix: usize,
    /// Slots after them.
    pub extra: Vec<u32>,
}

impl Path {
    /// Number of slots.
    pub fn len(&self) -> usize {
        self.prefix + self.extra.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Attends for rows whose queries are the first H·D values of each row of `x` `[L, stride]`; `to` is `[L, H·D]`, `paths`
/// has one entry a row.
///
/// # Panics
/// If shapes do not fit or a path leaves the cache.
pub fn attend(team: &Team, (x, stride): (&[f32], usize), cache: &KeyValues, paths: &[Path], to: &mut [f32]) {
    let shape = cache.shape();
    let width = shape.query_width();
    assert!(stride >= width && x.len() == paths.len() * stride && to.len() == paths.len() * width, "queries");
    for path in paths {
        let last = path.extra.iter().map(|s| *s as usize + 1).fold(path.prefix, usize::max);
        assert!(!path.is_empty() && last <= cache.capacity(), "a path to slot {last} of {}", cache.capacity());
    }
    let group = shape.heads / shape.kv_heads;
    let to = Parts::new(to);
    // One task for the heads of a row that share keys.
    team.run(paths.len() * shape.kv_heads, 1, &|range| {
        let mut scores = Vec::new();
        for task in range {
            let (row, kv_head) = (task / shape.kv_heads, task % shape.kv_heads);
            let heads = kv_head * group * shape.dim..(kv_head + 1) * group * shape.dim;
            let q = &x[row * stride + heads.start..row * stride + heads.end];
            // SAFETY: each row's heads are one task's.
            let to = unsafe { to.part(row * width + heads.start..row * width + heads.end) };
            attend_group(team.isa(), q, cache, kv_head, &paths[row], &mut scores, to);
        }
    });
}

compiled_for_each_isa! {
    fn attend_group(
        q: &[f32],
        cache: &KeyValues,
        kv_head: usize,
        path: &Path,
        scores: &mut Vec<f32>,
        to: &mut [f32],
    ) = lanes attend_body;
}

/// Query heads computed at once.
const HEADS: usize = 4;

#[inline(always)]
fn attend_body<L: Lanes>(
    q: &[f32],
    cache: &KeyValues,
    kv_head: usize,
    path: &Path,
    scores: &mut Vec<f32>,
    to: &mut [f32],
) {
    let dim = cache.shape().dim;
    let (fours, rest) = q.split_at(q.len() / (HEADS * dim) * (HEADS * dim));
    let (to_fours, to_rest) = to.split_at_mut(fours.len());
    for (q, to) in fours.chunks_exact(HEADS * dim).zip(to_fours.chunks_exact_mut(HEADS * dim)) {
        heads::<L, HEADS>(q, (cache, kv_head), path, scores, to);
    }
    for (q, to) in rest.chunks_exact(dim).zip(to_rest.chunks_exact_mut(dim)) {
        heads::<L, 1>(q, (cache, kv_head), path, scores, to);
    }
}

#[inline(always)]
fn heads<L: Lanes, const N: usize>(
    q: &[f32],
    (cache, kv_head): (&KeyValues, usize),
    path: &Path,
    scores: &mut Vec<f32>,
    to: &mut [f32],
) {
    let dim = cache.shape().dim;
    let scale = 1.0 / (dim as f32).sqrt();
    // The last group of the prefix is written whole; what is beyond the path is written over or not read.
    let stride = path.len() + GROUP;
    scores.clear();
    scores.resize(N * stride, 0.0);
    for group in 0..path.prefix.div_ceil(GROUP) {
        let lanes = group_scores::<L, N>(q, cache.key_group(group, kv_head));
        for (head, lanes) in lanes.iter().enumerate() {
            scores[head * stride + group * GROUP..][..GROUP].copy_from_slice(lanes);
        }
    }
    let mut at = usize::MAX;
    let mut lanes = [[0.0; GROUP]; N];
    for (i, slot) in path.extra.iter().enumerate() {
        let slot = *slot as usize;
        if slot / GROUP != at {
            at = slot / GROUP;
            lanes = group_scores::<L, N>(q, cache.key_group(at, kv_head));
        }
        for (head, lanes) in lanes.iter().enumerate() {
            scores[head * stride + path.prefix + i] = lanes[slot % GROUP];
        }
    }
    let mut sums = [0.0; N];
    for (scores, total) in scores.chunks_exact_mut(stride).zip(&mut sums) {
        *total = exponentiate(&mut scores[..path.len()], scale);
    }
    let values = cache.values(kv_head);
    let mut weights: [&[f32]; N] = [&[]; N];
    for (weights, scores) in weights.iter_mut().zip(scores.chunks_exact(stride)) {
        *weights = &scores[..path.len()];
    }
    for part in 0..dim.div_ceil(WIDTH) {
        let held = part * WIDTH..dim.min((part + 1) * WIDTH);
        let mixed = mix::<L, N>(weights, values, part, path);
        for (head, mixed) in mixed.iter().enumerate() {
            let to = &mut to[head * dim + held.start..head * dim + held.end];
            for (to, mixed) in to.iter_mut().zip(mixed) {
                *to = mixed / sums[head];
            }
        }
    }
}

/// Products of N queries with sixteen keys, each summed over dimensions in order.
#[inline(always)]
fn group_scores<L: Lanes, const N: usize>(q: &[f32], keys: &[[f32; GROUP]]) -> [[f32; GROUP]; N] {
    let dim = keys.len();
    assert_eq!(q.len(), N * dim, "{N} queries");
    let mut sums = [L::splat(0.0); N];
    for (d, keys) in keys.iter().enumerate() {
        let keys = L::load(keys);
        for (head, sum) in sums.iter_mut().enumerate() {
            // SAFETY: d < dim, head < N.
            let q = unsafe { *q.get_unchecked(head * dim + d) };
            *sum = keys.mul_add(L::splat(q), *sum);
        }
    }
    stored(sums)
}

/// One register's worth of the values of a path, weighted for N heads and summed in path order.
#[inline(always)]
fn mix<L: Lanes, const N: usize>(
    weights: [&[f32]; N],
    values: Values<'_>,
    part: usize,
    path: &Path,
) -> [[f32; WIDTH]; N] {
    let mut sums = [L::splat(0.0); N];
    for slot in 0..path.prefix {
        add_value(&mut sums, weights, slot, &values.parts[slot * values.stride + part]);
    }
    for (i, slot) in path.extra.iter().enumerate() {
        add_value(&mut sums, weights, path.prefix + i, &values.parts[*slot as usize * values.stride + part]);
    }
    stored(sums)
}

#[inline(always)]
fn add_value<L: Lanes, const N: usize>(sums: &mut [L; N], weights: [&[f32]; N], at: usize, value: &[f32; WIDTH]) {
    let value = L::load(value);
    for (sum, weights) in sums.iter_mut().zip(weights) {
        *sum = value.mul_add(L::splat(weights[at]), *sum);
    }
}

#[inline(always)]
fn stored<L: Lanes, const N: usize>(sums: [L; N]) -> [[f32; WIDTH]; N] {
    let mut to = [[0.0; WIDTH]; N];
    for (to, sum) in to.iter_mut().zip(sums) {
        sum.store(to);
    }
    to
}

/// Replaces scores by exp(scale · (score − largest)) and returns their sum.
#[inline(always)]
fn exponentiate(scores: &mut [f32], scale: f32) -> f32 {
    // Eight comparisons at a time; the largest of all is the same in any order.
    let mut most = [f32::NEG_INFINITY; LANES];
    let (chunks, tail) = scores.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            most[i] = if chunk[i] > most[i] { chunk[i] } else { most[i] };
        }
    }
    let most = most.iter().chain(tail).copied().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
    for score in scores.iter_mut() {
        *score = exp((*score - most) * scale);
    }
    sum(scores)
}
