//! AVX2: |w| · sign(x, w) by `vpmaddubsw`, whose 16-bit pair sums cannot saturate (128·127·2 < 2¹⁵), then `vpmaddwd`.

use std::arch::x86_64::*;

use super::{BLOCK, QUAD, TILE, Tile};

impl Tile<'_> {
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn avx2(&self, to: &mut [[f32; TILE]]) {
        match to {
            [] => {}
            [a] => *a = self.rows_avx2::<1>()[0],
            [a, b] => [*a, *b] = self.rows_avx2(),
            [a, b, c] => [*a, *b, *c] = self.rows_avx2(),
            [a, b, c, d] => [*a, *b, *c, *d] = self.rows_avx2(),
            _ => unreachable!("at most four rows a call"),
        }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    fn rows_avx2<const ROWS: usize>(&self) -> [[f32; TILE]; ROWS] {
        let blocks = self.blocks;
        assert!(self.values.len() == blocks * BLOCK * TILE && self.scales.len() == blocks * TILE);
        assert!(self.x.len() == ROWS * blocks * BLOCK && self.x_scales.len() == ROWS * blocks);
        let ones = _mm256_set1_epi16(1);
        // Hidden from the compiler, which else unrolls the loop over quads until the registers of several rows spill.
        let quads = if ROWS == 1 { BLOCK / QUAD } else { std::hint::black_box(BLOCK / QUAD) };
        let mut y = [[_mm256_setzero_ps(); 2]; ROWS];
        for block in 0..blocks {
            let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
            for quad in 0..quads {
                // SAFETY: block < blocks and quad < 8, so 64 bytes from here lie inside `values`.
                let w = unsafe {
                    let at = self.values.as_ptr().add((block * BLOCK + quad * QUAD) * TILE);
                    [_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast())]
                };
                let magnitudes = [_mm256_abs_epi8(w[0]), _mm256_abs_epi8(w[1])];
                for (row, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: four bytes inside row `row` of `x`.
                    let x = unsafe {
                        let at = self.x.as_ptr().add((row * blocks + block) * BLOCK + quad * QUAD);
                        _mm256_set1_epi32(at.cast::<i32>().read_unaligned())
                    };
                    for half in 0..2 {
                        let pairs = _mm256_maddubs_epi16(magnitudes[half], _mm256_sign_epi8(x, w[half]));
                        sums[half] = _mm256_add_epi32(sums[half], _mm256_madd_epi16(pairs, ones));
                    }
                }
            }
            for half in 0..2 {
                // SAFETY: eight scales inside `scales`.
                let scales = unsafe { _mm_loadu_si128(self.scales.as_ptr().add(block * TILE + half * 8).cast()) };
                let scales = _mm256_cvtph_ps(scales);
                for row in 0..ROWS {
                    // SAFETY: inside `x_scales`.
                    let x_scale = unsafe { *self.x_scales.get_unchecked(row * blocks + block) };
                    let scale = _mm256_mul_ps(scales, _mm256_set1_ps(x_scale));
                    y[row][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[row][half]), scale, y[row][half]);
                }
            }
        }
        let mut out = [[0.0; TILE]; ROWS];
        for (out, y) in out.iter_mut().zip(y) {
            // SAFETY: sixteen floats in `out`.
            unsafe {
                _mm256_storeu_ps(out.as_mut_ptr(), y[0]);
                _mm256_storeu_ps(out.as_mut_ptr().add(8), y[1]);
            }
        }
        out
    }
}
