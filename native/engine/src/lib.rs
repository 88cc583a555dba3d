//! The threads that own models: admission, rounds, the draft worker. Knows no HTTP.
//!
//! [`Engine::check`] turns what was asked ([`RequestSpec`]) into a checked [`Request`]; [`Engine::submit`] admits it and
//! returns a bounded stream of [`Event`]s, whose dropping cancels the generation within a round.

mod admission;
mod check;
mod clock;
mod draft_worker;
mod drafting;
mod engine;
mod event;
mod plugins;
mod report;
mod request;
mod sequence;
mod settings;
mod target_thread;

pub use engine::{
    Engine, EngineConfig, EventStream, MAX_WINDOW, Metrics, ModelFacts, PluginFacts, Refused, StartError,
};
pub use event::{Event, Failure, Finished, LaneKind, Origin, PromptToken, Round, Span, Started, Token};
pub use report::{Offered, PluginCost, Report, Totals, Warning};
pub use request::{LogProbsSpec, PluginSpec, Request, RequestError, RequestSpec};
pub use settings::{LookAhead, Method, Roots, Settings, SettingsSpec, allocation_name};
