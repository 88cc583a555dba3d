//! A policy in a screenful: implement [`Acceptance`], [`Sampling`] or [`Stopping`] for a type, export it with the macro of
//! the same name, tell its configuration with [`export_schema!`], build for wasm32, and the host runs it. The interface is `wasm-plugins/wit/policy.wit`, with the laws.
//!
//! A policy is a value: [`Clone`] is what the host's `fork` does, and evaluation takes `&self`, so purity is checked by the
//! compiler. Panics reach the plugin's author through the host's log.

mod acceptance;
#[doc(hidden)]
pub mod bindings;
mod config;
mod opened;
mod sampling;
mod schema;
mod stopping;

pub use acceptance::Acceptance;
pub use bindings::acceptor::exports::specula::policy::acceptance::Window;
pub use bindings::offers::specula::policy::context;
pub use bindings::offers::specula::policy::rows;
pub use bindings::offers::specula::policy::types::{Fault, ModelInfo, Token};
pub use bindings::stopper::exports::specula::policy::stopping::Stop;
pub use config::Config;
pub use sampling::Sampling;
pub use stopping::Stopping;

#[doc(hidden)]
pub use acceptance::AcceptanceComponent;
#[doc(hidden)]
pub use opened::{Opened, Slot};
#[doc(hidden)]
pub use sampling::SamplingComponent;
#[doc(hidden)]
pub use stopping::StoppingComponent;

/// Code of a [`Fault`]: the configuration is wrong.
pub const BAD_CONFIG: u32 = 1;
/// Code of a [`Fault`]: the policy was not made for this model.
pub const MODEL_MISMATCH: u32 = 2;
