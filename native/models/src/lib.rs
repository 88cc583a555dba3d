//! Transformers: weights, tokenizers, chat templates, caches that can be cut back, every row's logits. Two decoders
//! compute the same: [`fast`] on the CPU kernels, and [`transformer`] on candle, the reference. What neither has may be
//! [`borrowed`].
//!
//! Shape letters: **L** new tokens of a pass, **S** cache slots, **H** heads, **K** key/value heads, **D** head size,
//! **V** vocabulary. Row-invariance (a row's bits depend on its own path alone) is what exactness rests on; see
//! [`linear`] and [`attention`] for how it is kept, and `tests/row_invariance.rs` for the proof.

mod accelerator;
mod attention;
mod batch_attention;
mod borrowed;
mod cache;
mod config;
mod cores;
#[cfg(feature = "cuda")]
mod cuda;
mod dense;
mod device_rows;
mod exit;
mod export;
mod fast;
mod floats;
mod gated;
mod gguf;
mod linear;
mod load;
mod masked;
mod mixed;
mod model;
mod network;
mod norm;
mod padding;
mod pair;
mod random_weights;
mod resized;
mod rotary;
mod seeing;
mod session;
mod simulated;
mod slots;
mod streams;
mod template;
mod threads;
mod tokenizer;
mod transformer;
mod weights;

pub use accelerator::Accelerator;
pub use config::{Activation, Architecture, ModelConfig, NormKind};
pub use cores::{Cores, available_cores};
pub use dense::DenseWeights;
pub use exit::Exits;
pub use export::write_gguf;
pub use load::{Head, LoadError, LoadedModel, ModelFolder, read_dense, read_dense_gguf};
pub use mixed::Precision;
pub use model::{Compute, Form, Model};
pub use network::{Batch, Network};
pub use norm::Norm;
pub use pair::{check_pair, check_pair_of};
pub use resized::Resized;
pub use session::{PREFILL_ROWS, Trace, new_paths, stream_nodes};
pub use simulated::{Latency, Simulated};
pub use slots::Slots;
pub use specula_kernels::Path;
pub use streams::Streams;
pub use template::{ChatMessage, ChatTemplate, TemplateError};
pub use threads::{ModelThread, limit_candle_threads};
pub use tokenizer::Tokenizer;
pub use weights::{TensorSource, folder_name};
