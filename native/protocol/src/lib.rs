//! What client and server say to each other: serde types only, nothing computes. Also compiles to wasm32 for the page.
//!
//! [`request`] is what clients send (OpenAI's chat and text completions with Specula's extensions), [`response`] what
//! they get back over HTTP, [`tokens`] texts as tokens, [`stream`] the WebSocket's frames, [`report`] the extension `specula` of an answer.

pub mod report;
pub mod request;
pub mod response;
pub mod stream;
pub mod tokens;

pub use report::{EffectiveSettings, PluginCost, PluginStop, Report, Warning};
pub use request::{
    GenerateRequest, JsonSchemaFormat, LogProbsAsked, Message, PluginChoice, Prompt, ResponseFormat, Speculation, Stop,
    StreamOptions,
};
pub use response::{
    ApiError, ErrorBody, ModelCard, ModelList, PluginCallCost, PluginCard, PluginDeleted, PluginList, PluginReport,
    PluginStamp, PluginVersion, Usage,
};
pub use stream::{ClientFrame, Lane, LaneSpan, Origin, RoundToken, ServerFrame, Source};
