//! Weights of a linear map in any format.

use half::{bf16, f16};

use crate::blocks::{Blocks, Layout, Q4K, Q5K, Q6K, SUPER};
use crate::dense::{Bf16, Dense, F16, multiply_tile};
use crate::isa::Isa;
use crate::q8::{Q8, TILE};
use crate::quantize::{BLOCK, Quantized};

/// Weights `[out, in]`, packed once.
pub struct Matrix(Format);

enum Format {
    Q8(Q8),
    Q4K(Blocks<Q4K>),
    Q5K(Blocks<Q5K>),
    Q6K(Blocks<Q6K>),
    F32(Dense<f32>),
    F16(Dense<F16>),
    Bf16(Dense<Bf16>),
}

/// Weights that do not have the shape they should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeError(String);

impl std::fmt::Display for ShapeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ShapeError {}

/// What a product reads of its rows.
pub(crate) struct Rows<'a> {
    /// `[L, in]`.
    pub(crate) floats: &'a [f32],
    /// The same in int8, if [`Matrix::wants_quantized`].
    pub(crate) quantized: &'a Quantized,
}

macro_rules! each {
    ($self:expr, $w:ident => $what:expr) => {
        match &$self.0 {
            Format::Q8($w) => $what,
            Format::Q4K($w) => $what,
            Format::Q5K($w) => $what,
            Format::Q6K($w) => $what,
            Format::F32($w) => $what,
            Format::F16($w) => $what,
            Format::Bf16($w) => $what,
        }
    };
}

impl Matrix {
    /// From GGUF's Q8_0 blocks, row by row.
    ///
    /// # Errors
    /// If `input` is not a multiple of 32 or there are not `out · input / 32` blocks.
    pub fn q8_0(out: usize, input: usize, bytes: &[u8]) -> Result<Self, ShapeError> {
        if input == 0 || !input.is_multiple_of(BLOCK) {
            return Err(ShapeError(format!("Q8_0 rows of {input} values: not a multiple of {BLOCK}")));
        }
        expect(out, input / BLOCK * (2 + BLOCK), bytes.len(), "bytes of Q8_0")?;
        Ok(Self(Format::Q8(Q8::pack(out, input, bytes))))
    }

    /// From GGUF's Q4_K blocks, row by row; computed in f32.
    ///
    /// # Errors
    /// If `input` is not a multiple of 256 or there are not `out · input / 256` blocks.
    pub fn q4_k(out: usize, input: usize, bytes: &[u8]) -> Result<Self, ShapeError> {
        expect_blocks::<Q4K>(out, input, bytes, "Q4_K")?;
        Ok(Self(Format::Q4K(Blocks::pack(out, input, bytes))))
    }

    /// From GGUF's Q5_K blocks, likewise.
    ///
    /// # Errors
    /// As for [`Matrix::q4_k`].
    pub fn q5_k(out: usize, input: usize, bytes: &[u8]) -> Result<Self, ShapeError> {
        expect_blocks::<Q5K>(out, input, bytes, "Q5_K")?;
        Ok(Self(Format::Q5K(Blocks::pack(out, input, bytes))))
    }

    /// From GGUF's Q6_K blocks, likewise.
    ///
    /// # Errors
    /// As for [`Matrix::q4_k`].
    pub fn q6_k(out: usize, input: usize, bytes: &[u8]) -> Result<Self, ShapeError> {
        expect_blocks::<Q6K>(out, input, bytes, "Q6_K")?;
        Ok(Self(Format::Q6K(Blocks::pack(out, input, bytes))))
    }

    /// From f32, row-major.
    ///
    /// # Errors
    /// If there are not `out · input` values.
    pub fn f32(out: usize, input: usize, weights: &[f32]) -> Result<Self, ShapeError> {
        expect(out, input, weights.len(), "f32 weights")?;
        Ok(Self(Format::F32(Dense::pack(out, input, weights.iter().copied()))))
    }

    /// From f16, row-major; computed in f32.
    ///
    /// # Errors
    /// As for [`Matrix::f32`].
    pub fn f16(out: usize, input: usize, weights: &[f16]) -> Result<Self, ShapeError> {
        expect(out, input, weights.len(), "f16 weights")?;
        Ok(Self(Format::F16(Dense::pack(out, input, weights.iter().copied().map(F16::from)))))
    }

    /// From bf16, row-major; computed in f32.
    ///
    /// # Errors
    /// As for [`Matrix::f32`].
    pub fn bf16(out: usize, input: usize, weights: &[bf16]) -> Result<Self, ShapeError> {
        expect(out, input, weights.len(), "bf16 weights")?;
        Ok(Self(Format::Bf16(Dense::pack(out, input, weights.iter().copied().map(Bf16::from)))))
    }

    /// The same weights in int8 with a scale a block of 32, as Q8_0 has them: cheaper to read, and near enough for what
    /// only ranks. `None` if they are in int8 already, or rows are no multiple of 32.
    pub fn in_int8(&self) -> Option<Self> {
        let (out, input) = (self.out(), self.input());
        if self.wants_quantized() || !input.is_multiple_of(BLOCK) {
            return None;
        }
        let mut bytes = Vec::with_capacity(out * input / BLOCK * (2 + BLOCK));
        let mut row = vec![0.0; input];
        for index in 0..out {
            self.row(index, &mut row);
            for block in row.chunks_exact(BLOCK) {
                let scale = f16::from_f32(block.iter().fold(0.0_f32, |most, x| most.max(x.abs())) / 127.0);
                let inverse = if scale > f16::ZERO { 1.0 / scale.to_f32() } else { 0.0 };
                bytes.extend(scale.to_le_bytes());
                bytes.extend(block.iter().map(|x| (x * inverse).round().clamp(-127.0, 127.0) as i8 as u8));
            }
        }
        Self::q8_0(out, input, &bytes).ok()
    }

    /// Number of outputs.
    pub fn out(&self) -> usize {
        each!(self, w => w.out())
    }

    /// Number of inputs.
    pub fn input(&self) -> usize {
        each!(self, w => w.input())
    }

    /// Bytes that one product reads of it.
    pub fn bytes(&self) -> usize {
        each!(self, w => w.bytes())
    }

    /// The weights of one output in f32: how an embedding is looked up.
    ///
    /// # Panics
    /// If `row` lies outside, or `to` is not as long as a row.
    pub fn row(&self, row: usize, to: &mut [f32]) {
        assert!(row < self.out() && to.len() == self.input(), "row {row} of {}", self.out());
        each!(self, w => w.row(row, to));
    }

    pub(crate) fn wants_quantized(&self) -> bool {
        matches!(self.0, Format::Q8(_))
    }

    pub(crate) fn tiles(&self) -> usize {
        self.out().div_ceil(TILE)
    }

    /// Outputs of tile `tile` for rows `from..from + to.len()`.
    pub(crate) fn tile(&self, isa: Isa, tile: usize, x: &Rows<'_>, from: usize, to: &mut [[f32; TILE]]) {
        let floats = || &x.floats[from * self.input()..(from + to.len()) * self.input()];
        match &self.0 {
            Format::Q8(w) => w.tile(isa, tile, x.quantized, from, to),
            Format::Q4K(w) => multiply_tile(isa, [w.strip(2 * tile), w.strip(2 * tile + 1)], floats(), to),
            Format::Q5K(w) => multiply_tile(isa, [w.strip(2 * tile), w.strip(2 * tile + 1)], floats(), to),
            Format::Q6K(w) => multiply_tile(isa, [w.strip(2 * tile), w.strip(2 * tile + 1)], floats(), to),
            Format::F32(w) => multiply_tile(isa, [w.strip(2 * tile), w.strip(2 * tile + 1)], floats(), to),
            Format::F16(w) => multiply_tile(isa, [w.strip(2 * tile), w.strip(2 * tile + 1)], floats(), to),
            Format::Bf16(w) => multiply_tile(isa, [w.strip(2 * tile), w.strip(2 * tile + 1)], floats(), to),
        }
    }
}

fn expect_blocks<F: Layout>(out: usize, input: usize, bytes: &[u8], name: &str) -> Result<(), ShapeError> {
    if input == 0 || !input.is_multiple_of(SUPER) {
        return Err(ShapeError(format!("{name} rows of {input} values: not a multiple of {SUPER}")));
    }
    expect(out, input / SUPER * F::BYTES, bytes.len(), &format!("bytes of {name}"))
}

fn expect(rows: usize, width: usize, found: usize, what: &str) -> Result<(), ShapeError> {
    let wanted = rows.checked_mul(width).filter(|n| *n > 0);
    if wanted == Some(found) { Ok(()) } else { Err(ShapeError(format!("{found} {what} for {rows} rows of {width}"))) }
}
