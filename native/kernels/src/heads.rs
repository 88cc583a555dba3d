//! What happens to queries and keys between their product and attention: bias, norm, rotation, and into the cache.

use crate::cache::KeyValues;
use crate::isa::{Isa, compiled_for_each_isa};
use crate::norm::{add_rows, factor};

/// Norm of every query and key head.
#[derive(Clone, Copy)]
pub struct HeadNorm<'a> {
    /// `[D]`.
    pub query: &'a [f32],
    /// `[D]`.
    pub key: &'a [f32],
    /// ε.
    pub epsilon: f32,
}

/// What each row's position and the layer's weights do to its heads.
#[derive(Clone, Copy)]
pub struct Turn<'a> {
    /// Added to a row first, `[(H + 2 K) · D]`.
    pub bias: Option<&'a [f32]>,
    /// Then the norm.
    pub norm: Option<HeadNorm<'a>>,
    /// Cosines of the rows' rotary angles, `[L, D / 2]`. Dimension i turns with dimension i + D / 2.
    pub cos: &'a [f32],
    /// Sines, likewise.
    pub sin: &'a [f32],
}

/// Adds biases to rows `[q | k | v]`, x being `[L, (H + 2 K) · D]`, norms and turns queries and keys, all in place, and
/// stores keys and values in slots `first..`.
///
/// # Panics
/// If shapes do not fit.
pub fn turn_heads(isa: Isa, x: &mut [f32], how: Turn<'_>, cache: &mut KeyValues, first: usize) {
    let shape = cache.shape();
    let (queries, keys, half) = (shape.query_width(), shape.key_width(), shape.dim / 2);
    let rows = x.len() / (queries + 2 * keys);
    assert_eq!(x.len(), rows * (queries + 2 * keys), "queries, keys and values");
    assert!(how.cos.len() == rows * half && how.sin.len() == rows * half, "angles of {rows} rows");
    for (i, row) in x.chunks_exact_mut(queries + 2 * keys).enumerate() {
        if let Some(bias) = how.bias {
            add_rows(isa, row, bias);
        }
        let angles = (&how.cos[i * half..(i + 1) * half], &how.sin[i * half..(i + 1) * half]);
        let (q, rest) = row.split_at_mut(queries);
        let (k, v) = rest.split_at_mut(keys);
        turn(isa, q, shape.dim, how.norm.map(|n| (n.query, n.epsilon)), angles);
        turn(isa, k, shape.dim, how.norm.map(|n| (n.key, n.epsilon)), angles);
        cache.store(first + i, k, v);
    }
}

compiled_for_each_isa! {
    fn turn(heads: &mut [f32], dim: usize, norm: Option<(&[f32], f32)>, angles: (&[f32], &[f32])) = turn_body;
}

#[inline(always)]
fn turn_body(heads: &mut [f32], dim: usize, norm: Option<(&[f32], f32)>, (cos, sin): (&[f32], &[f32])) {
    for head in heads.chunks_exact_mut(dim) {
        if let Some((weight, epsilon)) = norm {
            let factor = factor(head, epsilon);
            for (x, weight) in head.iter_mut().zip(weight) {
                *x = *x * factor * weight;
            }
        }
        let (first, second) = head.split_at_mut(dim / 2);
        for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
        }
    }
}
