//! Sums in one stated order, and eˣ.

/// Lanes of every interleaved sum.
pub(crate) const LANES: usize = 16;

/// Sums lanes pairwise: the first half of them and the second, until one is left.
#[inline(always)]
pub(crate) fn reduce(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Σ x², summed in sixteen interleaved lanes, then pairwise.
#[inline(always)]
pub(crate) fn sum_of_squares(x: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = chunk[i].mul_add(chunk[i], lanes[i]);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *lane = x.mul_add(*x, *lane);
    }
    reduce(lanes)
}

/// Σ x, in the same order.
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += chunk[i];
        }
    }
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *lane += x;
    }
    reduce(lanes)
}

/// eˣ within 2 ulp for −87 ≤ x ≤ 88 (Cephes `expf` without its branches, so that it vectorises); beyond that the value
/// at the bound.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Written so that each is one instruction, and that NaN stays what it is.
    let x = if -87.0 > x { -87.0 } else { x };
    let x = if 88.0 < x { 88.0 } else { x };
    // Adding and subtracting 1.5·2²³ rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let rounded = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4_f32;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p.mul_add(r, c);
    }
    let y = (p * r).mul_add(r, r) + 1.0;
    // n lies in −126…127, so the power is a normal number; it is what the lowest bits of its sum with 1.5·2²³ hold.
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    y * power
}

/// Replaces scores by exp(scale · (score − largest)) and returns their sum, in the order of [`sum_of_squares`].
#[inline(always)]
pub(crate) fn exponentiate(scores: &mut [f32], scale: f32) -> f32 {
    let (chunks, tail) = scores.as_chunks::<LANES>();
    // The largest of all is the same in any order.
    let mut most = [f32::NEG_INFINITY; LANES];
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp() {
        for i in -87_000..88_000 {
            let x = i as f32 / 1000.0;
            let want = f64::from(x).exp();
            assert!((f64::from(exp(x)) - want).abs() <= want * 2.4e-7, "exp({x})");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NEG_INFINITY) < 2e-38 && exp(f32::INFINITY).is_finite());
    }

    #[test]
    fn sums_take_the_tail() {
        let x: Vec<f32> = (0..21).map(|i| i as f32).collect();
        let mut ones = [3.0; 21];
        assert_eq!(exponentiate(&mut ones, 2.0), 21.0);
        assert_eq!(ones, [1.0; 21]);
        assert_eq!(sum_of_squares(&x), 2870.0);
    }
}
