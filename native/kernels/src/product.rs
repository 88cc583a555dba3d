//! `y = x Wᵀ` for one or several matrices that read the same rows.

use half::f16;

use crate::isa::Isa;
use crate::matrix::{Matrix, Rows};
use crate::q8::{MOST_ROWS, TILE};
use crate::quantize::Quantized;
use crate::team::{Parts, Team};

/// Buffers of a product, reused from one to the next.
#[derive(Default)]
pub struct Scratch {
    quantized: Quantized,
}

/// Pieces that each thread finds on average: enough that one which comes late delays nobody.
const PIECES: usize = 8;

/// Multiplies rows `x` `[L, in]` by every matrix; `y` `[L, Σ out]` holds their outputs side by side.
///
/// # Panics
/// If shapes do not fit.
pub fn products(team: &Team, matrices: &[&Matrix], x: &[f32], scratch: &mut Scratch, y: &mut [f32]) {
    let Some(first) = matrices.first() else { return };
    let (input, width) = (first.input(), matrices.iter().map(|m| m.out()).sum::<usize>());
    let rows = x.len() / input;
    assert!(matrices.iter().all(|m| m.input() == input), "matrices of one product read rows of one width");
    assert!(x.len() == rows * input && y.len() == rows * width, "{} → {} values, rows {rows}", x.len(), y.len());
    if matrices.iter().any(|m| m.wants_quantized()) {
        scratch.quantized.fill(team, x, input);
    }
    let x = Rows { floats: x, quantized: &scratch.quantized };
    let tiles: usize = matrices.iter().map(|m| m.tiles()).sum();
    let y = Parts::new(y);
    // As even as can be, where they are more than a tile takes at a time.
    let at_once = rows.div_ceil(rows.div_ceil(MOST_ROWS).max(1)).max(1);
    let grain = (tiles / (PIECES * team.threads())).max(1);
    team.run(tiles, grain, &|range| {
        // `before` tiles and `column` outputs belong to the matrices before this one.
        let (mut before, mut column) = (0, 0);
        for matrix in matrices {
            for tile in range.start.max(before)..range.end.min(before + matrix.tiles()) {
                let outputs = tile * TILE..matrix.out().min((tile - before + 1) * TILE);
                let outputs = outputs.start - before * TILE..outputs.end;
                for from in (0..rows).step_by(at_once) {
                    let mut sums = [[0.0; TILE]; MOST_ROWS];
                    let sums = &mut sums[..at_once.min(rows - from)];
                    matrix.tile(team.isa(), tile - before, &x, from, sums);
                    for (row, sums) in sums.iter().enumerate() {
                        let start = (from + row) * width + column;
                        // SAFETY: every tile's outputs are one task's.
                        let to = unsafe { y.part(start + outputs.start..start + outputs.end) };
                        to.copy_from_slice(&sums[..to.len()]);
                    }
                }
            }
            before += matrix.tiles();
            column += matrix.out();
        }
    });
}

/// Fills `$to`, whose length is one of some, with what `$body` gives for that many, known to the compiler as `$count`.
macro_rules! for_each_count {
    ($to:expr, $count:ident of $($n:literal)* => $body:expr) => {
        match $to.len() {
            0 => {}
            $($n => {
                const $count: usize = $n;
                $to.copy_from_slice(&$body);
            })*
            more => unreachable!("{more} rows at once"),
        }
    };
}
pub(crate) use for_each_count;

/// Whether an instruction set's products equal the portable ones on random input, extremes included.
pub(crate) fn self_check(isa: Isa) -> bool {
    const OUT: usize = TILE + 3;
    const INPUT: usize = 96;
    const ROWS: usize = 23;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut blocks = Vec::new();
    for _ in 0..OUT * INPUT / 32 {
        let scale = f16::from_f32((random() % 1000) as f32 * 1e-4);
        blocks.extend(scale.to_le_bytes());
        // Every byte is an int8, −128 too.
        blocks.extend((0..32).map(|_| if random() % 4 == 0 { 128 } else { random() as u8 }));
    }
    let floats: Vec<f32> = (0..OUT * INPUT).map(|_| (random() % 2001) as f32 * 1e-3 - 1.0).collect();
    let x: Vec<f32> = (0..ROWS * INPUT).map(|_| ((random() % 2001) as f32 * 1e-3 - 1.0).signum() * 2.0).collect();
    let halves: Vec<f16> = floats.iter().map(|x| f16::from_f32(*x)).collect();
    let matrices =
        [Matrix::q8_0(OUT, INPUT, &blocks), Matrix::f32(OUT, INPUT, &floats), Matrix::f16(OUT, INPUT, &halves)];
    matrices.into_iter().flatten().all(|matrix| {
        let run = |isa| {
            let mut y = vec![0.0; ROWS * OUT];
            products(&Team::alone(isa), &[&matrix], &x, &mut Scratch::default(), &mut y);
            y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        run(isa) == run(Isa::PORTABLE)
    })
}
