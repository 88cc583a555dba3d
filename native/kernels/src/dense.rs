//! Products with f32, f16 or bf16 weights: `y = Σ over inputs, in order, of fma(w, x, y)`, in f32.

use half::{bf16, f16};

use crate::isa::compiled_for_each_isa;
use crate::lanes::Lanes;
use crate::memory::{AHEAD, LINE, Memory, Plain, ask_ahead};
use crate::product::for_each_count;
use crate::q8::{STRIP, TILE};

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

/// Weights `[out, in]` in strips of 16 outputs; the last tile is filled up with zeros.
pub(crate) struct Dense<T> {
    out: usize,
    input: usize,
    /// `[strip][in][16]`.
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
        (row / STRIP * self.input + column) * STRIP + row % STRIP
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

    pub(crate) fn strip(&self, strip: usize) -> &[[T; STRIP]] {
        self.values[strip * STRIP * self.input..(strip + 1) * STRIP * self.input].as_chunks().0
    }
}

/// The weights of sixteen outputs.
pub(crate) trait Strip: Copy {
    /// Number of inputs.
    fn width(self) -> usize;

    /// The weights of one input.
    ///
    /// # Safety
    /// `column` is less than the width.
    unsafe fn column(self, column: usize) -> [f32; STRIP];
}

impl<T: Weight> Strip for &[[T; STRIP]] {
    fn width(self) -> usize {
        self.len()
    }

    #[inline(always)]
    unsafe fn column(self, column: usize) -> [f32; STRIP] {
        // SAFETY: the caller's promise.
        let weights = unsafe { self.get_unchecked(column) };
        for line in weights.chunks(LINE / size_of::<T>()) {
            ask_ahead(line.as_ptr(), AHEAD);
        }
        let mut wide = [0.0; STRIP];
        for (wide, weight) in wide.iter_mut().zip(weights) {
            *wide = weight.widen();
        }
        wide
    }
}

compiled_for_each_isa! {
    /// Outputs of a tile for rows of x `[to.len(), in]`, at most [`MOST_ROWS`](crate::q8::MOST_ROWS).
    pub(crate) fn multiply_tile<S: Strip>(strips: [S; 2], x: &[f32], to: &mut [[f32; TILE]]) = lanes tile_body;
}

#[inline(always)]
fn tile_body<L: Lanes, S: Strip>(strips: [S; 2], x: &[f32], to: &mut [[f32; TILE]]) {
    if L::MANY {
        for_each_count!(to, ROWS of 1 2 3 4 5 6 7 8 => {
            let mut rows = [[0.0; TILE]; ROWS];
            sums::<L, S, ROWS, 2>(strips, x, &mut rows, 0);
            rows
        });
        return;
    }
    // One strip and four rows, as even as can be.
    let (count, input) = (to.len(), strips[0].width());
    let most = count.div_ceil(count.div_ceil(4));
    for from in (0..count).step_by(most) {
        let to = &mut to[from..count.min(from + most)];
        let x = &x[from * input..][..to.len() * input];
        for_each_count!(to, ROWS of 1 2 3 4 => {
            let mut rows = [[0.0; TILE]; ROWS];
            sums::<L, S, ROWS, 1>([strips[0]], x, &mut rows, 0);
            sums::<L, S, ROWS, 1>([strips[1]], x, &mut rows, STRIP);
            rows
        });
    }
}

/// Outputs of strips for ROWS rows, from output `first` of the tile on.
#[inline(always)]
fn sums<L: Lanes, S: Strip, const ROWS: usize, const STRIPS: usize>(
    strips: [S; STRIPS],
    x: &[f32],
    to: &mut [[f32; TILE]; ROWS],
    first: usize,
) {
    let width = strips[0].width();
    assert!(x.len() == ROWS * width && strips.iter().all(|s| s.width() == width), "values of {ROWS} rows");
    let mut y = [[L::splat(0.0); STRIPS]; ROWS];
    // Two at a time: where a byte holds two, the compiler sees which one is meant.
    for pair in 0..width.div_ceil(2) {
        for column in 2 * pair..(2 * pair + 2) {
            if column == width {
                break;
            }
            let mut weights = [L::splat(0.0); STRIPS];
            for (weights, strip) in weights.iter_mut().zip(strips) {
                // SAFETY: every strip is `width` long.
                *weights = L::load(&unsafe { strip.column(column) });
            }
            for (row, y) in y.iter_mut().enumerate() {
                // SAFETY: column < width, row < ROWS.
                let x = L::splat(unsafe { *x.get_unchecked(row * width + column) });
                for (y, weights) in y.iter_mut().zip(weights) {
                    *y = weights.mul_add(x, *y);
                }
            }
        }
    }
    for (to, y) in to.iter_mut().zip(y) {
        for (to, y) in to[first..].as_chunks_mut::<STRIP>().0.iter_mut().zip(y) {
            y.store(to);
        }
    }
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
