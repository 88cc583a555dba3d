//! Makes the learned parts of speculative decoding for any target: early exits, distilled drafts with speculative streams;
//! and small targets with their tokenizers. On candle, over the layers that inference uses.
//!
//! Shape letters: **B** sequences of a batch, **T** tokens of a sequence, **R** rows with a loss, **m** tokens of a
//! teacher's row that are known one by one, **V** vocabulary, **η** streams.

mod coverage;
mod data;
mod draft;
mod exit;
mod files;
mod loss;
mod model;
mod optimiser;
mod order;
mod progress;
mod recipe;
mod run;
mod target;
mod teacher;
mod tokenizer;
mod trial;

pub use draft::train_draft;
pub use exit::train_exit;
pub use run::{Outcome, Place};
pub use target::train_target;
pub use tokenizer::train_tokenizer;
