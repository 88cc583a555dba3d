//! AVX-512 VNNI: `vpdpbusd` multiplies unsigned by signed, so weights lie as w + 128, and every sum begins with
//! −128 · Σx.

use std::arch::x86_64::*;

use super::{AHEAD, BLOCK, PACKED, QUAD, SCALE, STRIP, TILE, Tile};
use crate::memory::ask_ahead;
use crate::product::for_each_count;

/// A register each; enough sums to hide each other's latency.
const STRIPS: usize = TILE / STRIP;

impl Tile<'_> {
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) fn avx512(&self, to: &mut [[f32; TILE]]) {
        for_each_count!(to, ROWS of 1 2 3 4 5 6 7 8 => self.rows_avx512::<ROWS>());
    }

    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
    #[inline]
    fn rows_avx512<const ROWS: usize>(&self) -> [[f32; TILE]; ROWS] {
        let blocks = self.blocks;
        assert!(self.weights.len() == blocks * PACKED);
        assert!(self.x.len() == ROWS * blocks * BLOCK && self.x_scales.len() == ROWS * blocks);
        assert!(self.x_offsets.len() == ROWS * blocks);
        let mut y = [[_mm512_setzero_ps(); STRIPS]; ROWS];
        for block in 0..blocks {
            let mut sums = [[_mm512_setzero_si512(); STRIPS]; ROWS];
            for (row, sums) in sums.iter_mut().enumerate() {
                // SAFETY: inside `x_offsets`.
                *sums = [_mm512_set1_epi32(unsafe { *self.x_offsets.get_unchecked(row * blocks + block) }); STRIPS];
            }
            for quad in 0..BLOCK / QUAD {
                let w: [__m512i; STRIPS] = std::array::from_fn(|strip| {
                    let at = block * PACKED + (quad * TILE + strip * STRIP) * QUAD;
                    // SAFETY: strip < 2, block < blocks and quad < 8, so 64 bytes from here lie inside `weights`.
                    let line = unsafe { self.weights.as_ptr().add(at) };
                    ask_ahead(line, AHEAD);
                    // SAFETY: as said.
                    unsafe { _mm512_loadu_si512(line.cast()) }
                });
                for (row, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: four bytes inside row `row` of `x`.
                    let x = unsafe {
                        let at = self.x.as_ptr().add((row * blocks + block) * BLOCK + quad * QUAD);
                        _mm512_set1_epi32(at.cast::<i32>().read_unaligned())
                    };
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = _mm512_dpbusd_epi32(*sum, w, x);
                    }
                }
            }
            // SAFETY: the block's scales lie inside `weights`.
            let scales = unsafe { self.weights.as_ptr().add(block * PACKED + TILE * BLOCK) };
            ask_ahead(scales, AHEAD);
            for strip in 0..STRIPS {
                // SAFETY: sixteen scales of the block's.
                let scales = unsafe { _mm256_loadu_si256(scales.add(strip * STRIP * SCALE).cast()) };
                let scales = _mm512_cvtph_ps(scales);
                for row in 0..ROWS {
                    // SAFETY: inside `x_scales`.
                    let x_scale = unsafe { *self.x_scales.get_unchecked(row * blocks + block) };
                    let scale = _mm512_mul_ps(scales, _mm512_set1_ps(x_scale));
                    y[row][strip] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[row][strip]), scale, y[row][strip]);
                }
            }
        }
        let mut out = [[0.0; TILE]; ROWS];
        for (out, y) in out.iter_mut().zip(y) {
            for (out, y) in out.as_chunks_mut::<STRIP>().0.iter_mut().zip(y) {
                // SAFETY: sixteen floats in `out`.
                unsafe { _mm512_storeu_ps(out.as_mut_ptr(), y) };
            }
        }
        out
    }
}
