//! f32 to panels of bf16, from either order in memory.

use super::{BLOCK, DEPTH, Packed, STEP, TILE, View};
use crate::isa::{Isa, compiled_for_each_isa};
use crate::memory::Memory;

/// Rows `from..from + count` of a matrix whose columns are the inner dimension. In tiles of a left operand a line is a
/// row, in those of a right one (given transposed) a line is a pair of the inner dimension.
pub(super) fn pack(matrix: View<'_>, from: usize, count: usize, lines_are_rows: bool) -> Packed {
    let outer = count.min(matrix.rows.saturating_sub(from));
    let steps = matrix.columns.div_ceil(DEPTH);
    let mut words = Memory::zeroed(outer.div_ceil(BLOCK) * steps * STEP);
    fill(Isa::best(), matrix, from, lines_are_rows, &mut words);
    Packed { words, outer, steps }
}

compiled_for_each_isa! {
    fn fill(matrix: View<'_>, from: usize, lines_are_rows: bool, words: &mut [u32]) = fill_body;
}

#[inline(always)]
fn fill_body(matrix: View<'_>, from: usize, lines_are_rows: bool, words: &mut [u32]) {
    let steps = matrix.columns.div_ceil(DEPTH);
    for (at, tile) in words.chunks_exact_mut(TILE * TILE).enumerate() {
        let (panel, step, half) = (at / 2 / steps, at / 2 % steps, at % 2);
        let (row, column) = (from + panel * BLOCK + half * TILE, step * DEPTH);
        // Lines of the tile as they come from memory: rows, or pairs of columns.
        let mut lines = [[0_u32; TILE]; TILE];
        if row + TILE <= matrix.rows && column + DEPTH <= matrix.columns {
            inside(matrix, row, column, &mut lines);
        } else {
            at_the_edge(matrix, row, column, &mut lines);
        }
        for (i, word) in tile.iter_mut().enumerate() {
            *word = match matrix.transposed == lines_are_rows {
                true => lines[i % TILE][i / TILE],
                false => lines[i / TILE][i % TILE],
            };
        }
    }
}

#[inline(always)]
fn inside(matrix: View<'_>, row: usize, column: usize, lines: &mut [[u32; TILE]; TILE]) {
    for (i, line) in lines.iter_mut().enumerate() {
        if matrix.transposed {
            let at = |column: usize| &matrix.values[column * matrix.rows + row..][..TILE];
            let (low, high) = (at(column + 2 * i), at(column + 2 * i + 1));
            for j in 0..TILE {
                line[j] = bits(low[j]) | bits(high[j]) << 16;
            }
        } else {
            let values = &matrix.values[(row + i) * matrix.columns + column..][..DEPTH];
            for j in 0..TILE {
                line[j] = bits(values[2 * j]) | bits(values[2 * j + 1]) << 16;
            }
        }
    }
}

/// What lies outside is 0.
#[inline(always)]
fn at_the_edge(matrix: View<'_>, row: usize, column: usize, lines: &mut [[u32; TILE]; TILE]) {
    let value = |row: usize, column: usize| match (row < matrix.rows, column < matrix.columns) {
        (true, true) if matrix.transposed => bits(matrix.values[column * matrix.rows + row]),
        (true, true) => bits(matrix.values[row * matrix.columns + column]),
        _ => 0,
    };
    for (i, line) in lines.iter_mut().enumerate() {
        for (j, word) in line.iter_mut().enumerate() {
            let (row, pair) = if matrix.transposed { (row + j, i) } else { (row + i, j) };
            *word = value(row, column + 2 * pair) | value(row, column + 2 * pair + 1) << 16;
        }
    }
}

/// The nearest bf16's bits, ties to even.
#[inline(always)]
fn bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    // The carry would make a number of what is none.
    if bits & 0x7FFF_FFFF > 0x7F80_0000 { bits >> 16 | 0x40 } else { nearest }
}
