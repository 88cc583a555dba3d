//! Softmax(q kᵀ / √D) v over a cache with a tree on top. Each row sums over its own path, in path order, whatever else is
//! in the cache or in the pass.
//!
//! Queries that read the same keys – the heads of a group, in several rows – share what they read: keys and values come
//! from memory once a task, and into registers once for four queries. What one query sums, and in which order, does not
//! depend on its company.

mod sums;

use std::cell::RefCell;
use std::ops::Range;

use crate::cache::{GROUP, KeyValues};
use crate::isa::compiled_for_each_isa;
use crate::lanes::Lanes;
use crate::math::exponentiate;
use crate::team::{Parts, Team};
use sums::{Run, add_values, dot_keys};

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

    /// One more than the last of its slots in the cache.
    fn end(&self) -> usize {
        self.extra.iter().map(|slot| *slot as usize + 1).fold(self.prefix, usize::max)
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
        let end = path.end();
        assert!(!path.is_empty() && end <= cache.capacity(), "a path to slot {end} of {}", cache.capacity());
    }
    let rows = rows_of_a_task(team, paths.len() * shape.kv_heads, shape.group());
    let to = Parts::new(to);
    team.run(paths.len().div_ceil(rows) * shape.kv_heads, 1, &|range| {
        for task in range {
            let (first, kv_head) = (task / shape.kv_heads * rows, task % shape.kv_heads);
            let paths = &paths[first..paths.len().min(first + rows)];
            let queries = Queries { x: &x[first * stride..], stride, cache, kv_head, paths };
            SCRATCH.with_borrow_mut(|scratch| {
                attend_queries(team.isa(), &queries, scratch);
                for (query, result) in scratch.chunks_exact(shape.padded()).take(queries.count()).enumerate() {
                    let (row, head) = queries.place(query);
                    let start = (first + row) * width + head * shape.dim;
                    // SAFETY: each row's heads are one task's.
                    unsafe { to.part(start..start + shape.dim) }.copy_from_slice(&result[..shape.dim]);
                }
            });
        }
    });
}

/// As many as share keys well, but not those that another thread could take.
fn rows_of_a_task(team: &Team, rows_and_heads: usize, group: usize) -> usize {
    const QUERIES: usize = 32;
    let fair = if team.threads() == 1 { rows_and_heads } else { rows_and_heads.div_ceil(2 * team.threads()) };
    fair.min(QUERIES / group).max(1)
}

thread_local! {
    /// What a task computes, its results first; kept so that passes do not allocate.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// The queries that read one key/value head: those of its group, row by row.
struct Queries<'a> {
    /// The rows, `[L, stride]`.
    x: &'a [f32],
    stride: usize,
    cache: &'a KeyValues,
    kv_head: usize,
    /// The rows'.
    paths: &'a [Path],
}

impl Queries<'_> {
    fn count(&self) -> usize {
        self.paths.len() * self.cache.shape().group()
    }

    /// Row and head of a query.
    fn place(&self, query: usize) -> (usize, usize) {
        let group = self.cache.shape().group();
        (query / group, self.kv_head * group + query % group)
    }

    fn path(&self, query: usize) -> &Path {
        &self.paths[self.place(query).0]
    }

    /// N of them.
    fn some<const N: usize>(&self, first: usize) -> [&[f32]; N] {
        let dim = self.cache.shape().dim;
        std::array::from_fn(|i| {
            let (row, head) = self.place(first + i);
            &self.x[row * self.stride + head * dim..][..dim]
        })
    }

    /// Slots from the first on that are in all their paths.
    fn common(&self, block: &Range<usize>) -> usize {
        block.clone().map(|query| self.path(query).prefix).fold(usize::MAX, usize::min)
    }
}

/// Slots that all queries visit before they go on: few enough for the nearest cache.
const SPAN: usize = 4 * GROUP;

/// Evaluates `$body` with constants for the number of queries and for how many sums of each are kept going at once.
macro_rules! by_registers {
    ($lanes:ident, $queries:expr, $n:ident, $sums:ident => $body:expr) => {
        match ($lanes::MANY, $queries) {
            (false, 1) => by_registers!(@ 1, 4, $n, $sums => $body),
            (false, 2) => by_registers!(@ 2, 2, $n, $sums => $body),
            (false, 3) => by_registers!(@ 3, 1, $n, $sums => $body),
            (false, 4) => by_registers!(@ 4, 1, $n, $sums => $body),
            (true, 1) => by_registers!(@ 1, 4, $n, $sums => $body),
            (true, 2) => by_registers!(@ 2, 4, $n, $sums => $body),
            (true, 3) => by_registers!(@ 3, 4, $n, $sums => $body),
            (true, 4) => by_registers!(@ 4, 4, $n, $sums => $body),
            (true, 5) => by_registers!(@ 5, 2, $n, $sums => $body),
            (true, 6) => by_registers!(@ 6, 2, $n, $sums => $body),
            (true, 7) => by_registers!(@ 7, 2, $n, $sums => $body),
            (true, 8) => by_registers!(@ 8, 2, $n, $sums => $body),
            (_, more) => unreachable!("{more} queries at once"),
        }
    };
    (@ $count:literal, $each:literal, $n:ident, $sums:ident => $body:expr) => {{
        const $n: usize = $count;
        const $sums: usize = $each;
        $body
    }};
}

compiled_for_each_isa! {
    fn attend_queries(queries: &Queries<'_>, scratch: &mut Vec<f32>) = lanes attend_body;
}

/// Leaves results `[query][D]`, D padded, at the start of `scratch`.
#[inline(always)]
fn attend_body<L: Lanes>(queries: &Queries<'_>, scratch: &mut Vec<f32>) {
    let (cache, kv_head) = (queries.cache, queries.kv_head);
    let shape = cache.shape();
    let (count, padded) = (queries.count(), shape.padded());
    // Queries that read keys and values together.
    let at_once = if L::MANY { 8 } else { 4 };
    let blocks = || (0..count).step_by(at_once).map(|first| first..count.min(first + at_once));
    let end = queries.paths.iter().map(Path::end).fold(0, usize::max);
    let extra = queries.paths.iter().map(|path| path.extra.len()).fold(0, usize::max);
    let stride = end.next_multiple_of(GROUP) + extra;
    let needed = count * (padded + stride + 1) + extra;
    if scratch.len() < needed {
        scratch.resize(needed, 0.0);
    }
    let (results, scratch) = scratch.split_at_mut(count * padded);
    let (scores, scratch) = scratch.split_at_mut(count * stride);
    let (totals, picked) = scratch.split_at_mut(count);

    // Scores by slot, those off the path too.
    for from in (0..end).step_by(SPAN) {
        let groups = from / GROUP..end.min(from + SPAN).div_ceil(GROUP);
        for block in blocks() {
            let (first, groups) = (block.start, groups.clone());
            let scores = &mut scores[first * stride..block.end * stride];
            by_registers!(L, block.len(), N, G => {
                dot_keys::<L, N, G>(queries.some(first), (cache, kv_head), groups, scores)
            });
        }
    }

    // Weights by place in the path, not yet divided by their total.
    let scale = 1.0 / (shape.dim as f32).sqrt();
    for (query, scores) in scores.chunks_exact_mut(stride).enumerate() {
        let path = queries.path(query);
        for (picked, slot) in picked.iter_mut().zip(&path.extra) {
            *picked = scores[*slot as usize];
        }
        let weights = &mut scores[..path.len()];
        weights[path.prefix..].copy_from_slice(&picked[..path.extra.len()]);
        totals[query] = exponentiate(weights, scale);
    }

    // Values: of the slots that a block has in common together, then of each query's own.
    results.fill(0.0);
    let prefix = queries.paths.iter().map(|path| path.prefix).fold(0, usize::max);
    for from in (0..prefix).step_by(SPAN) {
        for block in blocks() {
            let runs = runs(from..queries.common(&block).min(from + SPAN));
            let weights = &scores[block.start * stride..block.end * stride];
            let results = &mut results[block.start * padded..block.end * padded];
            by_registers!(L, block.len(), N, P => add_values::<L, N, P>(weights, (cache, kv_head), runs, results));
        }
    }
    for block in blocks() {
        let common = queries.common(&block);
        for query in block {
            let Path { prefix, extra } = queries.path(query);
            let single =
                |(i, slot): (usize, &u32)| Run { place: prefix + i, slots: *slot as usize..*slot as usize + 1 };
            let own = runs(common..*prefix).chain(extra.iter().enumerate().map(single));
            let weights = &scores[query * stride..(query + 1) * stride];
            let result = &mut results[query * padded..(query + 1) * padded];
            add_values::<L, 1, 4>(weights, (cache, kv_head), own, result);
        }
    }
    for (result, total) in results.chunks_exact_mut(padded).zip(totals) {
        result.iter_mut().for_each(|x| *x /= *total);
    }
}

/// Slots that lie at their own places in a path, as runs.
#[inline(always)]
fn runs(slots: Range<usize>) -> impl Iterator<Item = Run> + Clone {
    let groups = slots.start / GROUP..slots.end.div_ceil(GROUP);
    groups.map(move |group| {
        let slots = slots.start.max(group * GROUP)..slots.end.min((group + 1) * GROUP);
        Run { place: slots.start, slots }
    })
}
