//! The server: OpenAI-compatible HTTP, a WebSocket, metrics and the page. The only room that knows HTTP; it knows nothing
//! of models: requests become [`specula_engine::RequestSpec`]s and answers are folded from the engine's events.
//!
//! A request's way: [`Server`] accepts (`connections`), `gate` judges who asks (`origin`, `visitors`), `routes` finds the handler, `body` and
//! `decode` read what is asked, `generation` checks and admits it, and `whole`, `sse` or `websocket` send the events on.
//! Every fault becomes an answer in one place, `errors`.

mod answer;
mod app;
mod assets;
mod body;
mod choices;
mod config;
mod connections;
mod decode;
mod errors;
mod gate;
mod generation;
mod json;
mod logprobs;
mod metrics;
mod openapi;
mod origin;
mod patient;
mod pieces;
mod plugins;
mod request_id;
mod routes;
mod running;
mod seam;
mod serve;
mod sse;
#[cfg(test)]
mod tests;
mod tokens;
mod visitors;
mod websocket;
mod whole;
pub mod wire;

pub use assets::Assets;
pub use config::ServerConfig;
pub use serve::{ServeError, Server};
pub use visitors::{Key, Visitors};
