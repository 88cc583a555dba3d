//! Norms of rows, and their sums.

use crate::isa::{Isa, compiled_for_each_isa};
use crate::math::{sum, sum_of_squares};

/// `to = x / √(mean(x²) + ε) · weight` for every row of x `[L, width]`, width being that of `weight`.
///
/// # Panics
/// If `to` is not as long as `x`, or `x` does not consist of whole rows.
pub fn norm_rows(isa: Isa, x: &[f32], weight: &[f32], epsilon: f32, to: &mut [f32]) {
    assert!(x.len() == to.len() && x.len().is_multiple_of(weight.len()), "{} values to norm", x.len());
    norm(isa, x, weight, epsilon, to);
}

compiled_for_each_isa! {
    fn norm(x: &[f32], weight: &[f32], epsilon: f32, to: &mut [f32]) = norm_body;
}

#[inline(always)]
fn norm_body(x: &[f32], weight: &[f32], epsilon: f32, to: &mut [f32]) {
    for (x, to) in x.chunks_exact(weight.len()).zip(to.chunks_exact_mut(weight.len())) {
        let factor = factor(x, epsilon);
        for ((to, x), weight) in to.iter_mut().zip(x).zip(weight) {
            *to = x * factor * weight;
        }
    }
}

/// Layer norm (arXiv:1607.06450): `to = (x − mean(x)) / √(var(x) + ε) · weight + bias` for every row of x `[L, width]`, width
/// being that of `weight` and of `bias`.
///
/// # Panics
/// As for [`norm_rows`], or if `weight` and `bias` differ in length.
pub fn layer_norm_rows(isa: Isa, x: &[f32], (weight, bias): (&[f32], &[f32]), epsilon: f32, to: &mut [f32]) {
    assert!(x.len() == to.len() && x.len().is_multiple_of(weight.len()), "{} values to norm", x.len());
    assert_eq!(weight.len(), bias.len(), "weights and biases of a norm");
    layer_norm(isa, x, weight, bias, epsilon, to);
}

compiled_for_each_isa! {
    fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, to: &mut [f32]) = layer_norm_body;
}

#[inline(always)]
fn layer_norm_body(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, to: &mut [f32]) {
    for (x, to) in x.chunks_exact(weight.len()).zip(to.chunks_exact_mut(weight.len())) {
        let mean = sum(x) / x.len() as f32;
        for (to, x) in to.iter_mut().zip(x) {
            *to = x - mean;
        }
        let factor = factor(to, epsilon);
        for ((to, weight), bias) in to.iter_mut().zip(weight).zip(bias) {
            *to = *to * factor * weight + bias;
        }
    }
}

/// 1 / √(mean(x²) + ε).
#[inline(always)]
pub(crate) fn factor(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (sum_of_squares(x) / x.len() as f32 + epsilon).sqrt()
}

/// `x += row` for every row of x `[L, width]`, width being that of `row`.
///
/// # Panics
/// If x does not consist of whole rows.
pub fn add_to_rows(isa: Isa, x: &mut [f32], row: &[f32]) {
    assert!(x.len().is_multiple_of(row.len()), "{} values of rows of {}", x.len(), row.len());
    x.chunks_exact_mut(row.len()).for_each(|x| add(isa, x, row));
}

/// `x += y`.
///
/// # Panics
/// If the lengths differ.
pub fn add_rows(isa: Isa, x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len(), "sums of rows");
    add(isa, x, y);
}

compiled_for_each_isa! {
    fn add(x: &mut [f32], y: &[f32]) = add_body;
}

#[inline(always)]
fn add_body(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
