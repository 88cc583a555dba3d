//! Rows in int8: blocks of 32 with one f32 scale, as products with int8 weights want them.

use crate::isa::{Isa, Level};
use crate::team::{Parts, Team};

/// Weights and activations of a block.
pub(crate) const BLOCK: usize = 32;

/// Quantised rows `[L, width]`; buffers are reused.
#[derive(Default)]
pub(crate) struct Quantized {
    /// `[L, width]`, each in −127…127.
    pub(crate) values: Vec<i8>,
    /// `[L, width / 32]`.
    pub(crate) scales: Vec<f32>,
    /// `[L, width / 32]`: −128 · the sum of each block's values, which products with weights that are 128 too large add.
    pub(crate) offsets: Vec<i32>,
}

impl Quantized {
    /// Takes rows `[L, width]` in; width is a multiple of 32.
    pub(crate) fn fill(&mut self, team: &Team, rows: &[f32], width: usize) {
        let (count, blocks) = (rows.len() / width, width / BLOCK);
        self.values.resize(count * width, 0);
        self.scales.resize(count * blocks, 0.0);
        self.offsets.resize(count * blocks, 0);
        let (values, scales, offsets) =
            (Parts::new(&mut self.values), Parts::new(&mut self.scales), Parts::new(&mut self.offsets));
        team.run(count, 2, &|range| {
            let of = |width: usize| range.start * width..range.end * width;
            // SAFETY: each row is one task's.
            let (values, scales, offsets) =
                unsafe { (values.part(of(width)), scales.part(of(blocks)), offsets.part(of(blocks))) };
            quantize(team.isa(), &rows[of(width)], values, scales, offsets);
        });
    }
}

/// Nearest multiple of the block's largest magnitude over 127, ties to even.
fn quantize(isa: Isa, x: &[f32], values: &mut [i8], scales: &mut [f32], offsets: &mut [i32]) {
    let (x, values) = (x.as_chunks::<BLOCK>().0, values.as_chunks_mut::<BLOCK>().0);
    for (((x, values), scale), offset) in x.iter().zip(values).zip(scales).zip(offsets) {
        let sum;
        (*scale, sum) = match isa.level() {
            Level::Portable => quantize_block(x, values),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` proves that its instructions were detected.
            Level::Avx2 | Level::Avx512 => unsafe { quantize_block_avx2(x, values) },
        };
        *offset = -128 * sum;
    }
}

/// Scale, and what to multiply by to get whole numbers.
#[inline(always)]
fn scale_and_inverse(most: f32) -> (f32, f32) {
    (most / 127.0, if most > 0.0 { 127.0 / most } else { 0.0 })
}

/// Adding 1.5·2²³ leaves the nearest integer, ties to even, in the lowest bits.
const ROUND: f32 = 12_582_912.0;

fn quantize_block(x: &[f32; BLOCK], values: &mut [i8; BLOCK]) -> (f32, i32) {
    // Magnitudes compare like their bits; a NaN is the largest and spoils the block, as it should.
    let most = x.iter().fold(0, |most, x| (x.to_bits() & i32::MAX as u32).max(most));
    let (scale, inverse) = scale_and_inverse(f32::from_bits(most));
    let mut sum = 0;
    for (value, x) in values.iter_mut().zip(x) {
        *value = (x * inverse + ROUND).to_bits() as i8;
        sum += i32::from(*value);
    }
    (scale, sum)
}

/// The same, eight at a time.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn quantize_block_avx2(x: &[f32; BLOCK], values: &mut [i8; BLOCK]) -> (f32, i32) {
    use std::arch::x86_64::*;
    // SAFETY: eight floats inside `x` each.
    let x: [__m256; 4] = std::array::from_fn(|i| unsafe { _mm256_loadu_ps(x.as_ptr().add(8 * i)) });
    let magnitude = |x| _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(i32::MAX));
    let most = _mm256_max_epi32(
        _mm256_max_epi32(magnitude(x[0]), magnitude(x[1])),
        _mm256_max_epi32(magnitude(x[2]), magnitude(x[3])),
    );
    let most = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256::<1>(most));
    let most = _mm_max_epi32(most, _mm_shuffle_epi32::<0b01_00_11_10>(most));
    let most = _mm_max_epi32(most, _mm_shuffle_epi32::<0b10_11_00_01>(most));
    let (scale, inverse) = scale_and_inverse(f32::from_bits(_mm_cvtsi128_si32(most) as u32));
    let (inverse, round) = (_mm256_set1_ps(inverse), _mm256_set1_ps(ROUND));
    // Sign-extending the lowest byte does what the cast to i8 does.
    let whole = |x| {
        let bits = _mm256_castps_si256(_mm256_add_ps(_mm256_mul_ps(x, inverse), round));
        _mm256_srai_epi32::<24>(_mm256_slli_epi32::<24>(bits))
    };
    let whole = [whole(x[0]), whole(x[1]), whole(x[2]), whole(x[3])];
    let sum = _mm256_add_epi32(_mm256_add_epi32(whole[0], whole[1]), _mm256_add_epi32(whole[2], whole[3]));
    let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b01_00_11_10>(sum));
    let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b10_11_00_01>(sum));
    // Packing works within halves of a register; the permutation puts the quarters back in order.
    let words = [_mm256_packs_epi32(whole[0], whole[1]), _mm256_packs_epi32(whole[2], whole[3])];
    let bytes = _mm256_packs_epi16(words[0], words[1]);
    let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    // SAFETY: 32 bytes in `values`.
    unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), bytes) };
    (scale, _mm_cvtsi128_si32(sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_within_half_a_step() {
        let x: Vec<f32> = (0..64).map(|i| if i < 32 { (i as f32 - 11.3) * 0.37 } else { 0.0 }).collect();
        let mut q = Quantized::default();
        q.fill(&Team::alone(Isa::PORTABLE), &x, 64);
        for (i, x) in x.iter().enumerate() {
            let scale = q.scales[i / BLOCK];
            assert!((f32::from(q.values[i]) * scale - x).abs() <= scale * 0.5001);
        }
        assert_eq!(q.values[31], 127);
        assert_eq!((q.scales[1], q.offsets[1]), (0.0, 0));
        assert_eq!(q.offsets[0], -128 * q.values[..32].iter().map(|v| i32::from(*v)).sum::<i32>());
    }
}
