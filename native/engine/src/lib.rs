//! The threads that own models: admission, rounds, the draft worker. Knows no HTTP.
//!
//! [`Engine::check`] turns what was asked ([`RequestSpec`]) into a checked [`Request`]; [`Engine::submit`] admits it and
//! returns a bounded stream of [`Event`]s, whose dropping cancels the generation within a round.

mod engine;
mod event;
mod report;
mod request;
mod settings;

pub use engine::{Engine, EventStream, Metrics, ModelFacts, PluginFacts, Refused};
pub use event::{Event, Failure, Finished, LaneKind, Origin, Round, Span, Started, Token};
pub use report::{Offered, PluginCost, Report, Totals, Warning};
pub use request::{PluginSpec, Request, RequestError, RequestSpec};
pub use settings::{allocation_name, Method, Roots, Settings, SettingsSpec};
