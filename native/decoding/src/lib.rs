//! Speculative decoding itself: pure, no candle, tokio, wasmtime, clock, file or thread; no hidden randomness.
//!
//! One **round**: a drafter proposes a [`TokenTree`] after the committed text `y` (a *window* of γ draft tokens is a
//! chain); the **target** runs once over the last committed token and the tree, so that row `j` is the distribution of
//! the token after `y ŷ₁…ŷ_j`; the request's [`Chain`] of sampling rules is applied to each row; the target draws its
//! **own draw** from every row it reaches ([`draw::own_draw`]); [`verify::verify`] keeps draft tokens as long as they
//! equal the own draws; the first that differs is replaced by the draw (*correction*), and if none differs the last
//! row's draw is the *bonus*. The text is therefore, token for token, what plain decoding (window 0) with the same seed
//! gives, whatever drafts.
//!
//! Letters: `p` the target's row, `q` the draft's, γ the window, τ the draft tokens accepted in a round, **V** the
//! vocabulary, **N** tree nodes. *Acceptance length* = τ + 1. "Mirror-SD" is arXiv:2510.13161; "drafter-invariant
//! sampling" arXiv:2408.07978.

pub mod acceptance;
pub mod branches;
pub mod chain;
pub mod draw;
pub mod ends;
pub mod logprobs;
pub mod lookup;
pub mod model;
pub mod noise;
pub mod noise_rows;
pub mod recycling;
pub mod reduced;
pub mod reduced_draw;
pub mod row;
pub mod rules;
pub mod tree;
pub mod verify;
mod wide;

pub use acceptance::{Acceptance, WindowStats};
pub use chain::{Chain, Penalties, Sampling};
pub use ends::{EndConditions, Ends, FinishReason, Stop, Stopping, TokenBytes};
pub use logprobs::LogProbs;
pub use model::{ExitRows, LanguageModel, Logits, Look, ModelError, NewNode};
pub use noise::Noise;
pub use noise_rows::NoiseRows;
pub use recycling::Recycling;
pub use reduced::{Fetch, Reduced, Reduction, Rows};
pub use row::Row;
pub use rules::{PolicyError, Rule};
pub use tree::TokenTree;
pub use verify::{Next, Verdict};

/// Index into the vocabulary.
pub type TokenId = u32;
