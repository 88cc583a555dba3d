//! Products with Q8_0 weights: blocks of 32 int8 with one f16 scale, kept exactly, against rows in int8.
//!
//! `y = Σ over blocks b, in order, of fma(i_b, w_b · x_b, y)`, with i_b the integer dot product of the block and w_b, x_b
//! the scales of weights and row. The integers are exact (|i_b| ≤ 32·128·127 < 2²⁴), so every way to get them gives the
//! same bits.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use half::f16;

use crate::isa::{Isa, Level};
use crate::memory::Memory;
use crate::quantize::{BLOCK, Quantized};

/// Outputs that are computed together: two strips.
pub(crate) const TILE: usize = 2 * STRIP;
/// Outputs whose weights lie side by side: a register of AVX-512.
pub(crate) const STRIP: usize = 16;
/// Inputs that one 32-bit lane holds.
const QUAD: usize = 4;
/// Bytes of a block in GGUF: an f16 scale, then the values.
const BLOCK_BYTES: usize = 2 + BLOCK;
/// Turns an int8 into the byte that is 128 more, and back.
const FLIP: u8 = 0x80;

/// Weights `[out, in]`, packed in strips of 16 outputs; the last tile is filled up with zeros.
pub(crate) struct Q8 {
    out: usize,
    input: usize,
    /// w + 128, as AVX-512's unsigned operand wants it: `[strip][in / 4][16][4]`.
    values: Memory<u8>,
    /// f16 bits, `[strip][in / 32][16]`.
    scales: Memory<u16>,
}

impl Q8 {
    /// Packs GGUF's Q8_0 blocks, `[out][in / 32]`; the length was checked.
    pub(crate) fn pack(out: usize, input: usize, bytes: &[u8]) -> Self {
        let blocks = input / BLOCK;
        let padded = out.next_multiple_of(TILE);
        let mut packed =
            Self { out, input, values: Memory::zeroed(padded * input), scales: Memory::zeroed(padded * blocks) };
        for (at, block) in bytes.chunks_exact(BLOCK_BYTES).enumerate() {
            let (row, block_of_row) = (at / blocks, at % blocks);
            let at = packed.scale_at(row, block_of_row);
            packed.scales[at] = u16::from_le_bytes([block[0], block[1]]);
            for (i, value) in block[2..].iter().enumerate() {
                let at = packed.at(row, block_of_row * BLOCK + i);
                packed.values[at] = *value ^ FLIP;
            }
        }
        packed
    }

    fn at(&self, row: usize, column: usize) -> usize {
        (row / STRIP * (self.input / QUAD) + column / QUAD) * STRIP * QUAD + row % STRIP * QUAD + column % QUAD
    }

    fn scale_at(&self, row: usize, block: usize) -> usize {
        (row / STRIP * (self.input / BLOCK) + block) * STRIP + row % STRIP
    }

    pub(crate) fn out(&self) -> usize {
        self.out
    }

    pub(crate) fn input(&self) -> usize {
        self.input
    }

    pub(crate) fn bytes(&self) -> usize {
        self.values.len() + 2 * self.scales.len()
    }

    /// One row of weights in f32.
    pub(crate) fn row(&self, row: usize, to: &mut [f32]) {
        for (column, to) in to.iter_mut().enumerate() {
            let scale = self.scales[self.scale_at(row, column / BLOCK)];
            *to = f16::from_bits(scale).to_f32() * f32::from(unflipped(self.values[self.at(row, column)]));
        }
    }

    /// Outputs of tile `tile` for rows `from..from + to.len()`, at most [`MOST_ROWS`].
    pub(crate) fn tile(&self, isa: Isa, tile: usize, x: &Quantized, from: usize, to: &mut [[f32; TILE]]) {
        let blocks = self.input / BLOCK;
        let rows = from..from + to.len();
        let tile = Tile {
            values: &self.values[tile * TILE * self.input..(tile + 1) * TILE * self.input],
            scales: &self.scales[tile * TILE * blocks..(tile + 1) * TILE * blocks],
            x: &x.values[rows.start * self.input..rows.end * self.input],
            x_scales: &x.scales[rows.start * blocks..rows.end * blocks],
            x_offsets: &x.offsets[rows.start * blocks..rows.end * blocks],
            blocks,
        };
        match isa.level() {
            Level::Portable => tile.portable(to),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` proves that its instructions were detected.
            Level::Avx2 => unsafe { tile.avx2(to) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx512 => unsafe { tile.avx512(to) },
        }
    }
}

/// Rows that one call may take.
pub(crate) const MOST_ROWS: usize = 8;

fn unflipped(byte: u8) -> i8 {
    (byte ^ FLIP) as i8
}

/// What a kernel reads: a tile of weights and some rows.
struct Tile<'a> {
    /// `[strip][in / 4][16][4]`.
    values: &'a [u8],
    /// f16 bits, `[strip][in / 32][16]`.
    scales: &'a [u16],
    /// `[rows, in]`.
    x: &'a [i8],
    /// `[rows, in / 32]`.
    x_scales: &'a [f32],
    /// `[rows, in / 32]`.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    x_offsets: &'a [i32],
    blocks: usize,
}

impl Tile<'_> {
    fn portable(&self, to: &mut [[f32; TILE]]) {
        let quads = self.values.as_chunks::<{ STRIP * QUAD }>().0;
        for (row, to) in to.iter_mut().enumerate() {
            *to = [0.0; TILE];
            for (strip, to) in to.as_chunks_mut::<STRIP>().0.iter_mut().enumerate() {
                for block in 0..self.blocks {
                    let at = row * self.blocks + block;
                    let x = self.x[at * BLOCK..(at + 1) * BLOCK].as_chunks::<QUAD>().0;
                    let block = strip * self.blocks + block;
                    let mut sums = [0_i32; STRIP];
                    for (x, weights) in x.iter().zip(&quads[block * BLOCK / QUAD..]) {
                        for (sum, w) in sums.iter_mut().zip(weights.as_chunks::<QUAD>().0) {
                            for i in 0..QUAD {
                                *sum += i32::from(unflipped(w[i])) * i32::from(x[i]);
                            }
                        }
                    }
                    for (i, to) in to.iter_mut().enumerate() {
                        let scale = f16::from_bits(self.scales[block * STRIP + i]).to_f32();
                        *to = (sums[i] as f32).mul_add(scale * self.x_scales[at], *to);
                    }
                }
            }
        }
    }
}
