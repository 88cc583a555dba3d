//! Products with f32, f16 or bf16 weights: `y = Σ over inputs, in order, of fma(w, x, y)`, in f32.

use half::{bf16, f16};

use crate::isa::{Isa, compiled_for_each_isa};
use crate::lanes::Lanes;
use crate::memory::{Memory, Plain};
use crate::q8::TILE;

/// A weight as it lies in memory.
pub(crate) trait Weight: Plain + Send + Sync {
    fn widen(self) -> f32;
}

impl Weight for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

/// bf16 bits.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Bf16(u16);
// SAFETY: an integer.
unsafe impl Plain for Bf16 {}

impl From<bf16> for Bf16 {
    fn from(x: bf16) -> Self {
        Self(x.to_bits())
    }
}

impl Weight for Bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

/// f16 bits.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct F16(u16);
// SAFETY: an integer.
unsafe impl Plain for F16 {}

impl From<f16> for F16 {
    fn from(x: f16) -> Self {
        Self(x.to_bits())
    }
}

impl Weight for F16 {
    /// Exact, by integer operations that vectorise: the exponent is moved by a multiplication, which takes care of
    /// subnormal numbers; infinities and NaN keep theirs.
    #[inline(always)]
    fn widen(self) -> f32 {
        let bits = u32::from(self.0);
        let magnitude = (bits & 0x7fff) << 13;
        let finite = f32::from_bits(magnitude) * f32::from_bits((254 - 15) << 23);
        let special = f32::from_bits(magnitude | 0x7f80_0000);
        let value = if bits & 0x7c00 == 0x7c00 { special } else { finite };
        f32::from_bits(value.to_bits() | (bits & 0x8000) << 16)
    }
}

/// Weights `[out, in]` in tiles of 16 outputs; the last tile is filled with zeros.
pub(crate) struct Dense<T> {
    out: usize,
    input: usize,
    /// `[tile][in][16]`.
    values: Memory<T>,
}

impl<T: Weight> Dense<T> {
    /// Packs row-major weights; the length was checked.
    pub(crate) fn pack(out: usize, input: usize, weights: impl Iterator<Item = T>) -> Self {
        let mut packed = Self { out, input, values: Memory::zeroed(out.next_multiple_of(TILE) * input) };
        for (at, weight) in weights.enumerate() {
            let to = packed.at(at / input, at % input);
            packed.values[to] = weight;
        }
        packed
    }

    fn at(&self, row: usize, column: usize) -> usize {
        (row / TILE * self.input + column) * TILE + row % TILE
    }

    pub(crate) fn out(&self) -> usize {
        self.out
    }

    pub(crate) fn input(&self) -> usize {
        self.input
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of::<T>() * self.values.len()
    }

    /// One row of weights in f32.
    pub(crate) fn row(&self, row: usize, to: &mut [f32]) {
        for (column, to) in to.iter_mut().enumerate() {
            *to = self.values[self.at(row, column)].widen();
        }
    }

    /// Outputs of tile `tile` for rows of x `[to.len(), in]`, at most [`MOST_ROWS`](crate::q8::MOST_ROWS).
    pub(crate) fn tile(&self, isa: Isa, tile: usize, x: &[f32], to: &mut [[f32; TILE]]) {
        let weights = &self.values[tile * TILE * self.input..(tile + 1) * TILE * self.input];
        tile_rows(isa, weights, x, to);
    }
}

compiled_for_each_isa! {
    fn tile_rows<T: Weight>(weights: &[T], x: &[f32], to: &mut [[f32; TILE]]) = lanes tile_rows_body;
}

#[inline(always)]
fn tile_rows_body<L: Lanes, T: Weight>(weights: &[T], x: &[f32], to: &mut [[f32; TILE]]) {
    match to {
        [] => {}
        [a] => [*a] = sums::<L, T, 1>(weights, x),
        [a, b] => [*a, *b] = sums::<L, T, 2>(weights, x),
        [a, b, c] => [*a, *b, *c] = sums::<L, T, 3>(weights, x),
        [a, b, c, d] => [*a, *b, *c, *d] = sums::<L, T, 4>(weights, x),
        _ => unreachable!("at most four rows a call"),
    }
}

#[inline(always)]
fn sums<L: Lanes, T: Weight, const ROWS: usize>(weights: &[T], x: &[f32]) -> [[f32; TILE]; ROWS] {
    let weights = weights.as_chunks::<TILE>().0;
    let width = weights.len();
    assert_eq!(x.len(), ROWS * width, "values of {ROWS} rows");
    let mut y = [L::splat(0.0); ROWS];
    for (column, weights) in weights.iter().enumerate() {
        let mut wide = [0.0; TILE];
        for (wide, weight) in wide.iter_mut().zip(weights) {
            *wide = weight.widen();
        }
        let weights = L::load(&wide);
        for (row, y) in y.iter_mut().enumerate() {
            // SAFETY: column < width, row < ROWS.
            let x = unsafe { *x.get_unchecked(row * width + column) };
            *y = weights.mul_add(L::splat(x), *y);
        }
    }
    let mut to = [[0.0; TILE]; ROWS];
    for (to, y) in to.iter_mut().zip(y) {
        y.store(to);
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_floats_widen_exactly() {
        for bits in 0..=u16::MAX {
            let (mine, want) = (F16(bits).widen(), f16::from_bits(bits).to_f32());
            assert!(mine.to_bits() == want.to_bits() || (mine.is_nan() && want.is_nan()), "{bits:#x}");
            let (mine, want) = (Bf16(bits).widen(), bf16::from_bits(bits).to_f32());
            assert!(mine.to_bits() == want.to_bits() || (mine.is_nan() && want.is_nan()), "{bits:#x}");
        }
    }
}
