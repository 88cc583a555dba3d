//! AVX-512 VNNI: `vpdpbusd` multiplies unsigned by signed, so weights are taken as w + 128 and 128 · Σx is taken off
//! again, at the start of every sum.

use std::arch::x86_64::*;

use super::{BLOCK, QUAD, TILE, Tile};

impl Tile<'_> {
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) fn avx512(&self, to: &mut [[f32; TILE]]) {
        match to {
            [] => {}
            [a] => *a = self.rows_avx512::<1>()[0],
            [a, b] => [*a, *b] = self.rows_avx512(),
            [a, b, c] => [*a, *b, *c] = self.rows_avx512(),
            [a, b, c, d] => [*a, *b, *c, *d] = self.rows_avx512(),
            _ => unreachable!("at most four rows a call"),
        }
    }

    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
    #[inline]
    fn rows_avx512<const ROWS: usize>(&self) -> [[f32; TILE]; ROWS] {
        let blocks = self.blocks;
        assert!(self.values.len() == blocks * BLOCK * TILE && self.scales.len() == blocks * TILE);
        assert!(self.x.len() == ROWS * blocks * BLOCK && self.x_scales.len() == ROWS * blocks);
        assert!(self.x_sums.len() == ROWS * blocks);
        let flip = _mm512_set1_epi8(-128);
        let mut y = [_mm512_setzero_ps(); ROWS];
        for block in 0..blocks {
            let mut sums = [_mm512_setzero_si512(); ROWS];
            for (row, sum) in sums.iter_mut().enumerate() {
                // SAFETY: inside `x_sums`.
                *sum = _mm512_set1_epi32(unsafe { -128 * *self.x_sums.get_unchecked(row * blocks + block) });
            }
            for quad in 0..BLOCK / QUAD {
                // SAFETY: block < blocks and quad < 8, so 64 bytes from here lie inside `values`.
                let w = unsafe {
                    _mm512_loadu_si512(self.values.as_ptr().add((block * BLOCK + quad * QUAD) * TILE).cast())
                };
                // Flipping the sign bit adds 128 and makes the byte unsigned.
                let w = _mm512_xor_si512(w, flip);
                for (row, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: four bytes inside row `row` of `x`.
                    let x = unsafe {
                        let at = self.x.as_ptr().add((row * blocks + block) * BLOCK + quad * QUAD);
                        _mm512_set1_epi32(at.cast::<i32>().read_unaligned())
                    };
                    *sum = _mm512_dpbusd_epi32(*sum, w, x);
                }
            }
            // SAFETY: sixteen scales inside `scales`.
            let scales = unsafe { _mm256_loadu_si256(self.scales.as_ptr().add(block * TILE).cast()) };
            let scales = _mm512_cvtph_ps(scales);
            for row in 0..ROWS {
                // SAFETY: inside `x_scales`.
                let x_scale = unsafe { *self.x_scales.get_unchecked(row * blocks + block) };
                let scale = _mm512_mul_ps(scales, _mm512_set1_ps(x_scale));
                y[row] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[row]), scale, y[row]);
            }
        }
        let mut out = [[0.0; TILE]; ROWS];
        for (out, y) in out.iter_mut().zip(y) {
            // SAFETY: sixteen floats in `out`.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), y) };
        }
        out
    }
}
