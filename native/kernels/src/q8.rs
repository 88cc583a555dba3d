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
use crate::memory::{self, Memory};
use crate::quantize::{BLOCK, Quantized};

/// Outputs that are computed together, and whose weights lie side by side: two strips.
pub(crate) const TILE: usize = 2 * STRIP;
/// Outputs of a register of AVX-512.
pub(crate) const STRIP: usize = 16;
/// Inputs that one 32-bit lane holds.
const QUAD: usize = 4;
/// Bytes of a block in GGUF: an f16 scale, then the values.
const BLOCK_BYTES: usize = 2 + BLOCK;
/// Bytes of a tile's block: the values, then the scales. In one stream, which is read from beginning to end, memory gives
/// most.
const PACKED: usize = TILE * BLOCK + TILE * SCALE;
/// Bytes of a scale.
const SCALE: usize = size_of::<f16>();
/// Twice as far as for wider weights: with several rows as much time goes by for half the bytes.
const AHEAD: usize = 2 * memory::AHEAD;
/// Turns an int8 into the byte that is 128 more, and back.
const FLIP: u8 = 0x80;

/// Weights `[out, in]`, packed in tiles of 32 outputs; the last tile is filled up with zeros.
pub(crate) struct Q8 {
    out: usize,
    input: usize,
    /// `[tile][in / 32]` of w + 128, as AVX-512's unsigned operand wants it, `[8][32][4]`, and f16 scales, `[32]`.
    packed: Memory<u8>,
}

impl Q8 {
    /// Packs GGUF's Q8_0 blocks, `[out][in / 32]`; the length was checked.
    pub(crate) fn pack(out: usize, input: usize, bytes: &[u8]) -> Self {
        let blocks = input / BLOCK;
        let mut packed = Self { out, input, packed: Memory::zeroed(out.div_ceil(TILE) * blocks * PACKED) };
        for (at, block) in bytes.chunks_exact(BLOCK_BYTES).enumerate() {
            let (row, block_of_row) = (at / blocks, at % blocks);
            let at = packed.scale_at(row, block_of_row);
            packed.packed[at..at + SCALE].copy_from_slice(&block[..SCALE]);
            for (i, value) in block[SCALE..].iter().enumerate() {
                let at = packed.at(row, block_of_row * BLOCK + i);
                packed.packed[at] = *value ^ FLIP;
            }
        }
        packed
    }

    fn block_at(&self, row: usize, block: usize) -> usize {
        (row / TILE * (self.input / BLOCK) + block) * PACKED
    }

    fn at(&self, row: usize, column: usize) -> usize {
        let lane = column % BLOCK / QUAD * TILE + row % TILE;
        self.block_at(row, column / BLOCK) + lane * QUAD + column % QUAD
    }

    fn scale_at(&self, row: usize, block: usize) -> usize {
        self.block_at(row, block) + TILE * BLOCK + row % TILE * SCALE
    }

    pub(crate) fn out(&self) -> usize {
        self.out
    }

    pub(crate) fn input(&self) -> usize {
        self.input
    }

    pub(crate) fn bytes(&self) -> usize {
        self.packed.len()
    }

    /// One row of weights in f32.
    pub(crate) fn row(&self, row: usize, to: &mut [f32]) {
        for (column, to) in to.iter_mut().enumerate() {
            let at = self.scale_at(row, column / BLOCK);
            let scale = f16::from_le_bytes([self.packed[at], self.packed[at + 1]]);
            *to = scale.to_f32() * f32::from(unflipped(self.packed[self.at(row, column)]));
        }
    }

    /// Outputs of tile `tile` for rows `from..from + to.len()`, at most [`MOST_ROWS`].
    pub(crate) fn tile(&self, isa: Isa, tile: usize, x: &Quantized, from: usize, to: &mut [[f32; TILE]]) {
        let blocks = self.input / BLOCK;
        let rows = from..from + to.len();
        let tile = Tile {
            weights: &self.packed[tile * blocks * PACKED..(tile + 1) * blocks * PACKED],
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
    /// `[in / 32][PACKED]`.
    weights: &'a [u8],
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
        for (row, to) in to.iter_mut().enumerate() {
            *to = [0.0; TILE];
            for (block, weights) in self.weights.as_chunks::<PACKED>().0.iter().enumerate() {
                let at = row * self.blocks + block;
                let x = self.x[at * BLOCK..(at + 1) * BLOCK].as_chunks::<QUAD>().0;
                let (values, scales) = weights.split_at(TILE * BLOCK);
                let mut sums = [0_i32; TILE];
                for (x, weights) in x.iter().zip(values.as_chunks::<{ TILE * QUAD }>().0) {
                    for (sum, w) in sums.iter_mut().zip(weights.as_chunks::<QUAD>().0) {
                        for i in 0..QUAD {
                            *sum += i32::from(unflipped(w[i])) * i32::from(x[i]);
                        }
                    }
                }
                for ((to, sum), scale) in to.iter_mut().zip(sums).zip(scales.as_chunks::<SCALE>().0) {
                    let scale = f16::from_le_bytes(*scale).to_f32();
                    *to = (sum as f32).mul_add(scale * self.x_scales[at], *to);
                }
            }
        }
    }
}
