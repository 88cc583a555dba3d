//! The threads that own models: admission, rounds, the draft worker. Knows no HTTP.
//!
//! [`Engine::check`] turns what was asked ([`RequestSpec`]) into a checked [`Request`]; [`Engine::submit`] admits it and
//! returns a bounded stream of [`Event`]s, whose dropping cancels the generation within a round.

mod admission;
mod auto;
mod by_rows;
mod calibration;
mod check;
mod clock;
mod draft_worker;
mod drafting;
mod engine;
mod event;
mod failure;
mod learned;
mod patience;
mod plugins;
mod rates;
mod recorder;
mod report;
mod request;
mod sequence;
mod settings;
mod target_thread;
mod trusts;
mod worth;

pub use by_rows::ByRows;
pub use calibration::{Costs, Coverage, Plan, Reckoned};
pub use draft_worker::ModelFactory;
pub use engine::{DraftDevice, Engine, EngineConfig, EventStream, Metrics, ModelFacts, Refused, StartError};
pub use event::{
    Event, Failure, Finished, LaneKind, Message, MessageKind, Origin, PromptToken, Round, Span, Started, Token,
};
pub use failure::OnFailure;
pub use report::{Offered, PluginCost, Report, Totals, Warning};
pub use request::{LogProbsSpec, OutputFormat, PluginSpec, Request, RequestError, RequestSpec, Tenant};
pub use settings::{LookAhead, MAX_WINDOW, Method, Roots, Settings, SettingsSpec, allocation_name};
