//! AVX2: |w| · sign(x, w) by `vpmaddubsw`, whose 16-bit pair sums cannot saturate (128·127·2 < 2¹⁵), then `vpmaddwd`.
//! Its registers hold the sums of one strip and four rows.

use std::arch::x86_64::*;

use super::{AHEAD, BLOCK, FLIP, PACKED, QUAD, SCALE, STRIP, TILE, Tile};
use crate::memory::ask_ahead;
use crate::product::for_each_count;

/// Lanes of a register.
const LANES: usize = 8;
/// Registers of a strip.
const PARTS: usize = STRIP / LANES;
const MOST_ROWS: usize = 4;

impl Tile<'_> {
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn avx2(&self, to: &mut [[f32; TILE]]) {
        let count = to.len();
        // As even as can be.
        let most = count.div_ceil(count.div_ceil(MOST_ROWS));
        for first in (0..count).step_by(most) {
            let to = &mut to[first..count.min(first + most)];
            for_each_count!(to, ROWS of 1 2 3 4 => {
                let mut rows = [[0.0; TILE]; ROWS];
                for strip in 0..TILE / STRIP {
                    let sums = self.rows_avx2::<ROWS>(first, strip);
                    for (to, sums) in rows.iter_mut().zip(sums) {
                        to[strip * STRIP..(strip + 1) * STRIP].copy_from_slice(&sums);
                    }
                }
                rows
            });
        }
    }

    /// Outputs of a strip for rows `first..`.
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    fn rows_avx2<const ROWS: usize>(&self, first: usize, strip: usize) -> [[f32; STRIP]; ROWS] {
        let blocks = self.blocks;
        assert!(self.weights.len() == blocks * PACKED && strip < TILE / STRIP);
        let x = &self.x[first * blocks * BLOCK..][..ROWS * blocks * BLOCK];
        let x_scales = &self.x_scales[first * blocks..][..ROWS * blocks];
        let (ones, flip) = (_mm256_set1_epi16(1), _mm256_set1_epi8(FLIP as i8));
        // Hidden from the compiler, which else unrolls the loop over quads until the registers of several rows spill.
        let quads = if ROWS == 1 { BLOCK / QUAD } else { std::hint::black_box(BLOCK / QUAD) };
        let mut y = [[_mm256_setzero_ps(); PARTS]; ROWS];
        for block in 0..blocks {
            let mut sums = [[_mm256_setzero_si256(); PARTS]; ROWS];
            for quad in 0..quads {
                let at = block * PACKED + (quad * TILE + strip * STRIP) * QUAD;
                ask_ahead(self.weights.as_ptr().wrapping_add(at), AHEAD);
                let w: [__m256i; PARTS] = std::array::from_fn(|part| {
                    let at = at + part * LANES * QUAD;
                    // SAFETY: block < blocks, quad < 8, strip < 2 and part < 2, so 32 bytes from here lie inside `weights`.
                    let flipped = unsafe { _mm256_loadu_si256(self.weights.as_ptr().add(at).cast()) };
                    _mm256_xor_si256(flipped, flip)
                });
                let magnitudes = w.map(|w| _mm256_abs_epi8(w));
                for (row, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: four bytes inside row `row` of `x`.
                    let x = unsafe {
                        let at = x.as_ptr().add((row * blocks + block) * BLOCK + quad * QUAD);
                        _mm256_set1_epi32(at.cast::<i32>().read_unaligned())
                    };
                    for part in 0..PARTS {
                        let pairs = _mm256_maddubs_epi16(magnitudes[part], _mm256_sign_epi8(x, w[part]));
                        sums[part] = _mm256_add_epi32(sums[part], _mm256_madd_epi16(pairs, ones));
                    }
                }
            }
            for part in 0..PARTS {
                let at = block * PACKED + TILE * BLOCK + (strip * STRIP + part * LANES) * SCALE;
                // SAFETY: eight scales inside `weights`.
                let scales = _mm256_cvtph_ps(unsafe { _mm_loadu_si128(self.weights.as_ptr().add(at).cast()) });
                for row in 0..ROWS {
                    // SAFETY: inside `x_scales`.
                    let x_scale = unsafe { *x_scales.get_unchecked(row * blocks + block) };
                    let scale = _mm256_mul_ps(scales, _mm256_set1_ps(x_scale));
                    y[row][part] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[row][part]), scale, y[row][part]);
                }
            }
        }
        let mut out = [[0.0; STRIP]; ROWS];
        for (out, y) in out.iter_mut().zip(y) {
            // SAFETY: sixteen floats in `out`.
            unsafe {
                _mm256_storeu_ps(out.as_mut_ptr(), y[0]);
                _mm256_storeu_ps(out.as_mut_ptr().add(LANES), y[1]);
            }
        }
        out
    }
}
