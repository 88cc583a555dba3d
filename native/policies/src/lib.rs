//! The wasmtime host: a component becomes a decoding rule. The only room that knows wasmtime.
//!
//! A [`Registry`] checks, compiles and holds plugins. A [`Plugin`] opens as [`specula_decoding::Acceptance`],
//! [`specula_decoding::Rule`] or [`specula_decoding::Stopping`]: one instance a request and kind, in a store of its own.
//! Guests are hostile: every call has a budget of fuel and time ([`Limits`]), whatever they answer is checked, and an
//! instance that traps or breaks the contract is dropped. The interface is `wasm-plugins/wit/policy.wit`.
//!
//! An upload's way: `registry` asks who may use the name, `store` writes the file down, `workshop` has it examined in a
//! process of its own (`examine`: checks, compiler, a recorded window, the reference set), `store` points the name at it,
//! and `code_cache` keeps what was compiled for the next start.

mod acceptance;
mod busy;
mod card;
mod checks;
mod class;
mod code_cache;
mod digest;
mod examine;
mod explain;
mod facts;
mod host;
pub mod laws;
mod limits;
mod load_error;
mod plugin;
mod recording;
mod reference;
mod registry;
mod replay;
mod sampling;
mod sandbox;
mod schema;
mod session;
mod stamp;
mod stopping;
mod store;
mod text;
mod ticker;
mod uploads;
mod usage;
mod versions;
mod workshop;
mod world;
mod wrap;

pub use card::{Card, UploadCard, VersionCard};
pub use class::{Class, ExamLimits};
pub use examine::Examined;
pub use facts::{CallCost, Facts, Stamp};
pub use limits::{Budget, Limits};
pub use load_error::LoadError;
pub use plugin::{Kind, ModelInfo, Opened, Plugin, PluginInfo};
pub use recording::{BadRecording, RecordedRound, RecordedRow, Recording};
pub use reference::is_name;
pub use registry::Registry;
pub use replay::{Call, costs, replay};
pub use store::record::Visibility;
pub use store::{Quota, StoreError};
pub use uploads::{Upload, UploadError, UploadSettings};
pub use usage::PluginUse;
pub use workshop::{Refusal, Workshop, at_the_bench};
