//! Loops over many values that are worth the widest instructions a machine has. They give the same bits with any: each value
//! is worked on by itself, and the largest of some does not depend on the order.

use multiversion::multiversion;

/// Values that are compared side by side: one after the other, each comparison would wait for the one before.
const LANES: usize = 16;

/// The largest of some values; −∞ if there is none.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(crate) fn largest(values: &[f32]) -> f32 {
    let (whole, rest) = values.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in whole {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    let mut largest = f32::NEG_INFINITY;
    for value in lanes.iter().chain(rest) {
        largest = largest.max(*value);
    }
    largest
}

/// How many values are not below `floor`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(crate) fn count_from(values: &[f32], floor: f32) -> u32 {
    let mut count = 0;
    for value in values {
        count += u32::from(*value >= floor);
    }
    count
}

/// Adds `noise` to those scores that are not below `floor`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(crate) fn add_from(scores: &mut [f32], noise: &[f32], floor: f32) {
    for (score, noise) in scores.iter_mut().zip(noise) {
        *score += if *score >= floor { *noise } else { 0.0 };
    }
}
