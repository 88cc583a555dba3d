//! Weights of GGUF's K-quants: whole numbers, with a scale (and for Q4_K and Q5_K a least value) for every 16 or 32 inputs of an
//! output. They are kept exactly and widened where they are multiplied, `w = s · q − m`, to the very f32 that the format
//! stands for; products are those of dense weights. Layouts: `block_q4_K`, `block_q5_K` and `block_q6_K` in
//! <https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h>.

use half::f16;

use crate::dense::Strip;
use crate::memory::{AHEAD, LINE, Memory, ask_ahead};
use crate::q8::{STRIP, TILE};

/// Inputs of a block in GGUF.
pub(crate) const SUPER: usize = 256;

/// What a format is like in GGUF.
pub(crate) trait Layout {
    /// Bytes of a block.
    const BYTES: usize;
    /// Inputs that share a scale.
    const SHARED: usize;
    /// Values in a byte of packed memory.
    const IN_BYTE: usize;

    /// Numbers q, scales s and least values m of a block.
    fn unpack(block: &[u8]) -> Unpacked;

    /// Of the number that a byte holds for input `column`.
    fn number(byte: u8, column: usize) -> f32;

    /// The byte with the number `q` for input `column` added.
    fn packed(byte: u8, q: u8, column: usize) -> u8;
}

/// A block in the clear; entries of `scales` and `least` beyond the format's number are unused.
pub(crate) struct Unpacked {
    q: [u8; SUPER],
    scales: [f32; 16],
    least: [f32; 16],
}

/// Four bits, 0…15; scales and least values are products of six bits and the block's own.
pub(crate) struct Q4K;

impl Layout for Q4K {
    const BYTES: usize = 144;
    const SHARED: usize = 32;
    const IN_BYTE: usize = 2;

    fn unpack(block: &[u8]) -> Unpacked {
        let mut unpacked = six_bit_scales(block);
        for (i, q) in unpacked.q.iter_mut().enumerate() {
            *q = four_bits(&block[16..144], i);
        }
        unpacked
    }

    #[inline(always)]
    fn number(byte: u8, column: usize) -> f32 {
        f32::from(byte >> (column % 2 * 4) & 15)
    }

    fn packed(byte: u8, q: u8, column: usize) -> u8 {
        byte | q << (column % 2 * 4)
    }
}

/// Five bits, 0…31; otherwise as [`Q4K`].
pub(crate) struct Q5K;

impl Layout for Q5K {
    const BYTES: usize = 176;
    const SHARED: usize = 32;
    const IN_BYTE: usize = 1;

    fn unpack(block: &[u8]) -> Unpacked {
        let (high, low) = (&block[16..48], &block[48..176]);
        let mut unpacked = six_bit_scales(block);
        for (i, q) in unpacked.q.iter_mut().enumerate() {
            // Each thirty-two inputs have a bit of `high` of their own.
            *q = four_bits(low, i) | (high[i % 32] >> (i / 32) & 1) << 4;
        }
        unpacked
    }

    #[inline(always)]
    fn number(byte: u8, _: usize) -> f32 {
        f32::from(byte)
    }

    fn packed(_: u8, q: u8, _: usize) -> u8 {
        q
    }
}

/// A block's scales and least values as Q4_K and Q5_K have them: eight of each in six bits, and two halves.
fn six_bit_scales(block: &[u8]) -> Unpacked {
    let (d, least, six) = (half_at(block, 0), half_at(block, 2), &block[4..16]);
    let mut unpacked = Unpacked { q: [0; SUPER], scales: [0.0; 16], least: [0.0; 16] };
    for i in 0..8 {
        let (s, m) = match i {
            0..4 => (six[i] & 63, six[i + 4] & 63),
            _ => (six[i + 4] & 15 | six[i - 4] >> 6 << 4, six[i + 4] >> 4 | six[i] >> 6 << 4),
        };
        unpacked.scales[i] = d * f32::from(s);
        unpacked.least[i] = least * f32::from(m);
    }
    unpacked
}

/// Sixty-four inputs share 32 bytes: the first half of them the low bits, the second the high ones.
fn four_bits(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15
}

/// Six bits, −32…31; scales are products of eight bits and the block's own.
pub(crate) struct Q6K;

impl Layout for Q6K {
    const BYTES: usize = 210;
    const SHARED: usize = 16;
    const IN_BYTE: usize = 1;

    fn unpack(block: &[u8]) -> Unpacked {
        let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
        let d = half_at(block, 208);
        let mut unpacked = Unpacked { q: [0; SUPER], scales: [0.0; 16], least: [0.0; 16] };
        for (scale, eight) in unpacked.scales.iter_mut().zip(scales) {
            *scale = d * f32::from(*eight as i8);
        }
        for (i, q) in unpacked.q.iter_mut().enumerate() {
            // Each half of the block: four times 32 inputs; of the first two the low bits of `low`, then the high ones.
            let (part, quarter, l) = (i / 128, i % 128 / 32, i % 32);
            let four = low[part * 64 + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15;
            let two = high[part * 32 + l] >> (quarter * 2) & 3;
            *q = (four | two << 4).wrapping_sub(32);
        }
        unpacked
    }

    #[inline(always)]
    fn number(byte: u8, _: usize) -> f32 {
        f32::from(byte as i8)
    }

    fn packed(_: u8, q: u8, _: usize) -> u8 {
        q
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Weights `[out, in]` of a format, packed in strips of 16 outputs; the last tile is filled up with zeros.
pub(crate) struct Blocks<F> {
    out: usize,
    input: usize,
    /// `[strip][in / IN_BYTE][16]`.
    numbers: Memory<u8>,
    /// Scale and least value, `[strip][in / SHARED][2][16]`.
    scales: Memory<f32>,
    format: std::marker::PhantomData<F>,
}

impl<F: Layout> Blocks<F> {
    /// Packs GGUF's blocks, `[out][in / 256]`; the length was checked.
    pub(crate) fn pack(out: usize, input: usize, bytes: &[u8]) -> Self {
        let padded = out.next_multiple_of(TILE);
        let mut packed = Self {
            out,
            input,
            numbers: Memory::zeroed(padded * input / F::IN_BYTE),
            scales: Memory::zeroed(padded * input / F::SHARED * 2),
            format: std::marker::PhantomData,
        };
        for (at, block) in bytes.chunks_exact(F::BYTES).enumerate() {
            let (row, first) = (at / (input / SUPER), at % (input / SUPER) * SUPER);
            let Unpacked { q, scales, least } = F::unpack(block);
            for (i, q) in q.into_iter().enumerate() {
                let at = packed.at(row, first + i);
                packed.numbers[at] = F::packed(packed.numbers[at], q, first + i);
            }
            for (i, (scale, least)) in scales.into_iter().zip(least).take(SUPER / F::SHARED).enumerate() {
                let at = packed.scale_at(row, first + i * F::SHARED);
                packed.scales[at] = scale;
                packed.scales[at + STRIP] = least;
            }
        }
        packed
    }

    fn at(&self, row: usize, column: usize) -> usize {
        (row / STRIP * (self.input / F::IN_BYTE) + column / F::IN_BYTE) * STRIP + row % STRIP
    }

    fn scale_at(&self, row: usize, column: usize) -> usize {
        (row / STRIP * (self.input / F::SHARED) + column / F::SHARED) * 2 * STRIP + row % STRIP
    }

    pub(crate) fn out(&self) -> usize {
        self.out
    }

    pub(crate) fn input(&self) -> usize {
        self.input
    }

    pub(crate) fn bytes(&self) -> usize {
        self.numbers.len() + size_of::<f32>() * self.scales.len()
    }

    /// One row of weights in f32.
    pub(crate) fn row(&self, row: usize, to: &mut [f32]) {
        for (column, to) in to.iter_mut().enumerate() {
            let at = self.scale_at(row, column);
            *to = F::number(self.numbers[self.at(row, column)], column) * self.scales[at] - self.scales[at + STRIP];
        }
    }

    pub(crate) fn strip(&self, strip: usize) -> BlockStrip<'_, F> {
        let (numbers, scales) = (STRIP * self.input / F::IN_BYTE, 2 * STRIP * self.input / F::SHARED);
        BlockStrip {
            numbers: self.numbers[strip * numbers..(strip + 1) * numbers].as_chunks().0,
            scales: self.scales[strip * scales..(strip + 1) * scales].as_chunks().0,
            format: std::marker::PhantomData,
        }
    }
}

/// The weights of sixteen outputs.
pub(crate) struct BlockStrip<'a, F> {
    numbers: &'a [[u8; STRIP]],
    /// Scale and least value in turn.
    scales: &'a [[f32; STRIP]],
    format: std::marker::PhantomData<F>,
}

impl<F> Clone for BlockStrip<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for BlockStrip<'_, F> {}

impl<F: Layout> Strip for BlockStrip<'_, F> {
    fn width(self) -> usize {
        self.numbers.len() * F::IN_BYTE
    }

    #[inline(always)]
    unsafe fn column(self, column: usize) -> [f32; STRIP] {
        // SAFETY: the caller stays inside the width; each of these covers it.
        let (numbers, scales, least) = unsafe {
            let at = column / F::SHARED * 2;
            let numbers = self.numbers.get_unchecked(column / F::IN_BYTE);
            (numbers, self.scales.get_unchecked(at), self.scales.get_unchecked(at + 1))
        };
        if column.is_multiple_of(LINE / STRIP * F::IN_BYTE) {
            ask_ahead(numbers, AHEAD);
        }
        let mut wide = [0.0; STRIP];
        for i in 0..STRIP {
            wide[i] = F::number(numbers[i], column) * scales[i] - least[i];
        }
        wide
    }
}
