//! What this machine can do at most, measured: the scale that kernels are read on.

use std::hint::black_box;
use std::time::Instant;

use crate::isa::{Isa, Level, compiled_for_each_isa};
use crate::lanes::{Lanes, WIDTH};
use crate::memory::Memory;
use crate::team::Team;

/// Best of as many tries.
const TRIES: usize = 7;

/// Bytes a second that a team reads from memory of `bytes` bytes.
pub fn read_bytes_per_second(team: &Team, bytes: usize) -> f64 {
    const PIECE: usize = 1 << 16;
    let mut held = Memory::<f32>::zeroed(bytes / size_of::<f32>());
    held.fill(1.0);
    let pieces: Vec<&[f32]> = held.chunks(PIECE).collect();
    best(bytes as f64, || team.run(pieces.len(), 1, &|range| pieces[range].iter().for_each(|p| sum(team.isa(), p))))
}

compiled_for_each_isa! {
    fn sum(values: &[f32]) = lanes sum_body;
}

#[inline(always)]
fn sum_body<L: Lanes>(values: &[f32]) {
    let (one, mut sums) = (L::splat(1.0), [L::splat(0.0); 8]);
    for chunk in values.as_chunks::<WIDTH>().0.as_chunks::<8>().0 {
        for (sum, values) in sums.iter_mut().zip(chunk) {
            *sum = L::load(values).mul_add(one, *sum);
        }
    }
    keep(sums);
}

/// Writes sums where the compiler must believe that they are read.
#[inline(always)]
fn keep<L: Lanes, const N: usize>(sums: [L; N]) {
    let mut to = [0.0; WIDTH];
    for sum in sums {
        sum.store(&mut to);
        black_box(&mut to);
    }
}

/// Operations of a fused multiplication and addition.
const OPERATIONS: usize = 2;
/// Sums that one thread keeps going at once: enough to hide an instruction's latency.
const SUMS: usize = 12;
const STEPS: usize = 1 << 20;

/// Operations on f32 a second that one thread does in registers.
pub fn float_operations_per_second(isa: Isa) -> f64 {
    best((OPERATIONS * WIDTH * SUMS * STEPS) as f64, || multiply(isa, black_box(1.0)))
}

compiled_for_each_isa! {
    fn multiply(x: f32) = lanes multiply_body;
}

#[inline(always)]
fn multiply_body<L: Lanes>(x: f32) {
    if L::MANY {
        multiply_sums::<L, SUMS>(x, STEPS);
    } else {
        // Two registers each.
        multiply_sums::<L, { SUMS / 2 }>(x, 2 * STEPS);
    }
}

#[inline(always)]
fn multiply_sums<L: Lanes, const N: usize>(x: f32, steps: usize) {
    let (x, mut sums) = (L::splat(x), [L::splat(0.0); N]);
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = x.mul_add(x, *sum);
        }
    }
    keep(sums);
}

/// Operations on int8 a second, summed in 32 bits, that one thread does in registers; `None` for portable code, which has
/// no instruction for them.
pub fn int8_operations_per_second(isa: Isa) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    let rate = |bytes: usize, run: &dyn Fn()| Some(best((OPERATIONS * bytes * SUMS * STEPS) as f64, run));
    match isa.level() {
        Level::Portable => None,
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Isa` proves that its instructions were detected.
        Level::Avx2 => rate(32, &|| unsafe { int8_avx2(black_box(1)) }),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx512 => rate(64, &|| unsafe { int8_avx512(black_box(1)) }),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn int8_avx2(x: i8) {
    use std::arch::x86_64::*;
    let (x, ones, mut sums) = (_mm256_set1_epi8(x), _mm256_set1_epi16(1), [_mm256_setzero_si256(); SUMS]);
    for _ in 0..STEPS {
        for sum in &mut sums {
            // Another operand every time, else one product would do for all.
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_maddubs_epi16(x, *sum), ones));
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn int8_avx512(x: i8) {
    use std::arch::x86_64::*;
    let (x, mut sums) = (_mm512_set1_epi8(x), [_mm512_setzero_si512(); SUMS]);
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, x, x);
        }
    }
    black_box(sums);
}

fn best(amount: f64, mut run: impl FnMut()) -> f64 {
    let rate = |_| {
        let begin = Instant::now();
        run();
        amount / begin.elapsed().as_secs_f64()
    };
    (0..TRIES).map(rate).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_finite_rates() {
        for isa in Isa::available() {
            assert!(read_bytes_per_second(&Team::alone(isa), 4 << 20).is_normal());
            assert_eq!(int8_operations_per_second(isa).is_some(), isa != Isa::PORTABLE);
        }
    }
}
