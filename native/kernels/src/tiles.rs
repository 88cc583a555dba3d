//! Products of bf16 with f32 sums on AMX tiles (Intel's Architecture Instruction Set Extensions, chapter 3), for training:
//! a core does several times what it does in f32. Operands are rounded to bf16, sums are taken in f32 in the order of the
//! inner dimension, pairs first, so a product has the same bits whoever computes which of its rows.

mod pack;

use std::sync::OnceLock;

use crate::memory::Memory;
use pack::pack;

/// Rows of a tile, and 32-bit columns of one.
const TILE: usize = 16;
/// Values of the inner dimension that a tile holds: two bf16 a column.
const DEPTH: usize = 2 * TILE;
/// Rows and columns of what is summed at a time: two tiles by two.
const BLOCK: usize = 2 * TILE;
/// Words of one step of a panel: its two tiles.
const STEP: usize = 2 * TILE * TILE;
/// Steps that a panel of the right operand takes before the next panel's turn: as many as stay in the first cache.
const STEPS_AT_ONCE: usize = 16;

/// A proof that this machine has tiles, that the system lets this process use them, and that they multiply right.
#[derive(Debug, Clone, Copy)]
pub struct Tiles(());

/// A matrix `[rows, columns]` as it lies in memory.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    /// Whether it lies there as `[columns, rows]`.
    transposed: bool,
}

/// A left or right operand in bf16: panels of [`BLOCK`] rows (columns of a right one), each a run of steps over the inner
/// dimension, filled up with zeros.
pub struct Packed {
    words: Memory<u32>,
    /// Rows of a left operand, columns of a right one.
    outer: usize,
    /// Steps of each panel.
    steps: usize,
}

impl<'a> View<'a> {
    /// A matrix `[rows, columns]`.
    ///
    /// # Panics
    /// If there are not as many values.
    pub fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(values.len(), rows * columns, "values of a matrix [{rows}, {columns}]");
        Self { values, rows, columns, transposed: false }
    }

    /// Its rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Its columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The same matrix transposed.
    pub fn t(self) -> Self {
        Self { rows: self.columns, columns: self.rows, transposed: !self.transposed, ..self }
    }
}

impl Tiles {
    /// Those of this machine, if it has any.
    pub fn here() -> Option<Self> {
        static CHECKED: OnceLock<Option<Tiles>> = OnceLock::new();
        *CHECKED.get_or_init(|| available().then_some(Self(())).filter(|tiles| tiles.multiply_right()))
    }

    /// Rows `from..from + count` of a left operand `[M, I]`, those that there are.
    pub fn left(self, a: View<'_>, from: usize, count: usize) -> Packed {
        pack(a, from, count, true)
    }

    /// A right operand `[I, N]`.
    pub fn right(self, b: View<'_>) -> Packed {
        pack(b.t(), 0, b.columns, false)
    }

    /// `c = a b`, `[M, N]`.
    ///
    /// # Panics
    /// If shapes do not fit.
    pub fn multiply(self, a: &Packed, b: &Packed, c: &mut [f32]) {
        assert_eq!(a.steps, b.steps, "inner dimensions");
        assert_eq!(c.len(), a.outer * b.outer, "values of a product [{}, {}]", a.outer, b.outer);
        let width = b.outer;
        configured(|| {
            for first in (0..a.steps).step_by(STEPS_AT_ONCE) {
                let steps = STEPS_AT_ONCE.min(a.steps - first);
                for column in (0..width).step_by(BLOCK) {
                    for row in (0..a.outer).step_by(BLOCK) {
                        let (left, right) = (a.panel(row, first, steps), b.panel(column, first, steps));
                        if row + BLOCK <= a.outer && column + BLOCK <= width {
                            sum(left, right, &mut c[row * width + column..], width, first > 0);
                        } else {
                            at_the_edge(left, right, c, (row, column), width, first > 0);
                        }
                    }
                }
            }
        });
    }

    fn multiply_right(self) -> bool {
        let (m, k, n) = (BLOCK + 3, DEPTH + 5, BLOCK + 1);
        let value = |i: usize| ((i * 37 + 11) % 29) as f32 - 14.0;
        let (a, b): (Vec<f32>, Vec<f32>) = ((0..m * k).map(value).collect(), (0..k * n).map(value).collect());
        let mut c = vec![0.0; m * n];
        self.multiply(&self.left(View::new(&a, m, k), 0, m), &self.right(View::new(&b, k, n)), &mut c);
        // Small integers are exact.
        (0..m * n).all(|i| c[i] == (0..k).map(|p| a[i / n * k + p] * b[p * n + i % n]).sum::<f32>())
    }
}

impl Packed {
    /// Some steps of the panel that begins with a row (column).
    fn panel(&self, row: usize, first: usize, steps: usize) -> &[u32] {
        let start = (row / BLOCK * self.steps + first) * STEP;
        &self.words[start..start + steps * STEP]
    }
}

/// A block that reaches over the product's edge, by way of one that does not.
fn at_the_edge(left: &[u32], right: &[u32], c: &mut [f32], (row, column): (usize, usize), width: usize, add: bool) {
    let mut block = [0.0; BLOCK * BLOCK];
    let columns = BLOCK.min(width - column);
    let rows = c.chunks_exact_mut(width).skip(row).take(BLOCK);
    if add {
        for (row, block) in rows.zip(block.chunks_exact_mut(BLOCK)) {
            block[..columns].copy_from_slice(&row[column..column + columns]);
        }
    }
    sum(left, right, &mut block, BLOCK, add);
    let rows = c.chunks_exact_mut(width).skip(row).take(BLOCK);
    for (row, block) in rows.zip(block.chunks_exact(BLOCK)) {
        row[column..column + columns].copy_from_slice(&block[..columns]);
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod machine {
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid_count, __get_cpuid_max};

    use super::{BLOCK, STEP, TILE};

    /// Whether the processor has tiles of bf16 and the system lets this process use them.
    pub(super) fn available() -> bool {
        const TILES_AND_BF16: u32 = 1 << 24 | 1 << 22;
        const REQUEST: libc::c_long = 0x1023;
        const TILE_DATA: libc::c_long = 18;
        __get_cpuid_max(0).0 >= 7
            && __cpuid_count(7, 0).edx & TILES_AND_BF16 == TILES_AND_BF16
            // SAFETY: asks the system for more state to be kept of each thread; no memory is handed over.
            && unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) } == 0
    }

    /// All eight tiles with 16 rows of 64 bytes.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        first_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    const ALL: Configuration = Configuration {
        palette: 1,
        first_row: 0,
        reserved: [0; 14],
        row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
        rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
    };

    /// Runs `body` on a thread whose tiles are set up.
    pub(super) fn configured(body: impl FnOnce()) {
        // SAFETY: there are tiles, as `Tiles` proves; nobody else on this thread uses them.
        unsafe { asm!("ldtilecfg [{0}]", in(reg) &ALL, options(nostack, readonly)) };
        body();
        // SAFETY: as above.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }

    /// `c` = or += a block's sum over the panels; the rows of `c` are `width` apart. Inside [`configured`].
    pub(super) fn sum(left: &[u32], right: &[u32], c: &mut [f32], width: usize, add: bool) {
        assert!(left.len() == right.len() && !left.is_empty() && left.len().is_multiple_of(STEP), "whole steps");
        assert!(c.len() >= (BLOCK - 1) * width + BLOCK, "a block's rows");
        let stride = width * size_of::<f32>();
        let lower = c.as_mut_ptr().wrapping_add(TILE * width);
        // SAFETY: each step reads 2 KB of either panel, of which there are as many; a block's rows lie in `c`.
        unsafe {
            if add {
                asm!(
                    "tileloadd tmm0, [{c} + {stride}*1]",
                    "tileloadd tmm1, [{c} + {stride}*1 + 64]",
                    "tileloadd tmm2, [{d} + {stride}*1]",
                    "tileloadd tmm3, [{d} + {stride}*1 + 64]",
                    c = in(reg) c.as_ptr(), d = in(reg) lower, stride = in(reg) stride,
                    options(nostack, readonly),
                );
            } else {
                asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack, nomem));
            }
            asm!(
                "2:",
                "tileloadd tmm4, [{a} + {line}*1]",
                "tileloadd tmm6, [{b} + {line}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {line}*1 + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a} + {line}*1 + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 2048",
                "add {b}, 2048",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{c} + {stride}*1], tmm0",
                "tilestored [{c} + {stride}*1 + 64], tmm1",
                "tilestored [{d} + {stride}*1], tmm2",
                "tilestored [{d} + {stride}*1 + 64], tmm3",
                a = inout(reg) left.as_ptr() => _, b = inout(reg) right.as_ptr() => _,
                steps = inout(reg) left.len() / STEP => _, line = in(reg) 64_usize,
                c = in(reg) c.as_mut_ptr(), d = in(reg) lower, stride = in(reg) stride,
                options(nostack),
            );
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod machine {
    pub(super) fn available() -> bool {
        false
    }

    pub(super) fn configured(_: impl FnOnce()) {
        unreachable!("no tiles")
    }

    pub(super) fn sum(_: &[u32], _: &[u32], _: &mut [f32], _: usize, _: bool) {
        unreachable!("no tiles")
    }
}

use machine::{available, configured, sum};

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    fn values(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// Every shape and every order in memory, against sums of rounded values in f64.
    #[test]
    fn products_are_those_of_rounded_values() {
        let Some(tiles) = Tiles::here() else { return };
        let rounded = |x: f32| f64::from(bf16::from_f32(x).to_f32());
        for (m, k, n) in [(1, 1, 1), (32, 32, 32), (33, 31, 65), (64, 1100, 40), (7, 513, 96), (100, 64, 31)] {
            let (a, b) = (values(m * k, 1), values(k * n, 2));
            let transposed = |x: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                (0..rows * columns).map(|i| x[i % rows * columns + i / rows]).collect()
            };
            let (a_t, b_t) = (transposed(&a, m, k), transposed(&b, k, n));
            let mut first: Option<Vec<f32>> = None;
            for left in [View::new(&a, m, k), View::new(&a_t, k, m).t()] {
                for right in [View::new(&b, k, n), View::new(&b_t, n, k).t()] {
                    let mut c = vec![f32::NAN; m * n];
                    tiles.multiply(&tiles.left(left, 0, m), &tiles.right(right), &mut c);
                    for (i, got) in c.iter().enumerate() {
                        let terms = (0..k).map(|p| rounded(a[i / n * k + p]) * rounded(b[p * n + i % n]));
                        let want: f64 = terms.sum();
                        assert!((f64::from(*got) - want).abs() < 1e-4, "[{m}, {k}, {n}], {i}: {got} for {want}");
                    }
                    let first = first.get_or_insert_with(|| c.clone());
                    assert!(first.iter().zip(&c).all(|(a, b)| a.to_bits() == b.to_bits()), "same bits");
                    // Rows of another part of the matrix.
                    if m > BLOCK {
                        let mut rest = vec![0.0; (m - BLOCK) * n];
                        tiles.multiply(&tiles.left(left, BLOCK, m), &tiles.right(right), &mut rest);
                        assert_eq!(rest, c[BLOCK * n..]);
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let Some(tiles) = Tiles::here() else { return };
        let a = [f32::from_bits(0x7FFF_FFFF), f32::INFINITY];
        let mut c = [0.0; 2];
        tiles.multiply(&tiles.left(View::new(&a, 2, 1), 0, 2), &tiles.right(View::new(&[1.0], 1, 1)), &mut c);
        assert!(c[0].is_nan() && c[1] == f32::INFINITY, "{c:?}");
    }
}
