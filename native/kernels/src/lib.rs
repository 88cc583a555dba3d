//! CPU kernels of a transformer: products with packed weights, norms, rotary positions, gates, attention over a cache.
//!
//! **Row-invariant by construction**: a row's bits depend on that row alone, not on how many rows are computed with it,
//! not on tiles, threads or the instruction set. Every sum has one stated order; integer sums are exact; a product that
//! feeds a sum is fused into it (`mul_add`) on every path or on none. So the portable code is the reference, and the
//! code for AVX2 and AVX-512 must equal it bit for bit (`tests/same_bits.rs`). [`Tiles`] alone
//! are another matter: they round, only some machines have them, and only training uses them.
//!
//! Shape letters: **L** rows, **H** heads, **K** key/value heads, **D** head size. Matrices are row-major.
//!
//! `unsafe` stays inside this crate: its functions check shapes at the border and panic on a mismatch, which is a defect
//! of the caller.

mod attention;
mod blocks;
mod cache;
mod dense;
mod gate;
mod heads;
mod isa;
mod lanes;
pub mod limits;
mod math;
mod matrix;
mod memory;
mod norm;
mod product;
mod q8;
mod quantize;
mod team;
mod tiles;

pub use attention::{Path, attend};
pub use cache::{HeadShape, KeyValues};
pub use gate::{gate, gate_row, gate_slopes, relu};
pub use heads::{HeadNorm, Turn, turn_heads};
pub use isa::Isa;
pub use matrix::{Matrix, ShapeError};
pub use norm::{add_rows, add_to_rows, layer_norm_rows, norm_rows};
pub use product::{Scratch, products};
pub use team::Team;
pub use tiles::{Packed, Tiles, View};
