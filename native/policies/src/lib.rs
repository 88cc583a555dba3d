//! The wasmtime host: a component becomes a decoding rule. The only room that knows wasmtime.
//!
//! A [`Registry`] checks, compiles and holds plugins. A [`Plugin`] opens as [`specula_decoding::Acceptance`],
//! [`specula_decoding::Rule`] or [`specula_decoding::Stopping`]: one instance a request and kind, in a store of its own.
//! Guests are hostile: every call has a budget of fuel and time ([`Limits`]), whatever they answer is checked, and an
//! instance that traps or breaks the contract is dropped. The interface is `wasm-plugins/wit/policy.wit`.

mod acceptance;
mod checks;
mod explain;
mod host;
pub mod laws;
mod limits;
mod load_error;
mod plugin;
mod registry;
mod sampling;
mod sandbox;
mod schema;
mod session;
mod stopping;
mod text;
mod ticker;
mod usage;
mod versions;
mod world;
mod wrap;

pub use limits::{Budget, Limits};
pub use load_error::LoadError;
pub use plugin::{Kind, ModelInfo, Opened, Plugin, PluginInfo};
pub use registry::Registry;
pub use usage::PluginUse;
