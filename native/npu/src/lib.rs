//! Drafts on accelerators, by way of ONNX Runtime. [`export`] writes a draft as graphs of static shapes, one for each
//! [`Bucket`]; [`Graphs`] compiles and runs them on a [`Provider`]; a [`Device`]'s sequences are language models like any
//! other. [`admission`] finds out whether a device may draft, and [`Guarded`] goes on without one that fails or hangs later.
//!
//! Shape letters: **q** new tokens of a pass, **f** rows of streams beside them, **T** slots of the cache, **K** key/value
//! heads, **D** head size, **V** vocabulary.

pub mod admission;
mod bucket;
mod caller;
mod columns;
pub mod export;
mod folder;
mod graph;
mod graphs;
mod handover;
mod inputs;
mod kept;
pub mod onnx;
mod patience;
mod provider;
mod runtime;
mod session;
mod shared;
mod variant;
mod weights;

pub use bucket::Bucket;
pub use folder::{EMBEDDINGS, GraphFile, MANIFEST, Manifest, write_folder};
pub use graphs::{Graphs, Place};
pub use handover::{Guarded, Sessions};
pub use patience::Patience;
pub use provider::Provider;
pub use runtime::{Libraries, Runtime, leave};
pub use session::Device;
pub use variant::Variant;
