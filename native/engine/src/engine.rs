//! The handle that the rest of the process holds: facts, checks, admission.

use specula_decoding::TokenId;

use crate::event::Event;
use crate::report::Totals;
use crate::request::{Request, RequestError, RequestSpec};
use crate::settings::{Method, Settings};

/// Facts about what is served.
#[derive(Debug, Clone)]
pub struct ModelFacts {
    /// Name of the target.
    pub name: String,
    /// Most tokens of prompt and answer together.
    pub context_length: usize,
    /// V.
    pub vocab_size: usize,
    /// N.
    pub layers: usize,
    /// Whether a row's bits do not depend on what is computed with it.
    pub row_invariant: bool,
    /// Name of the draft model, if one is loaded.
    pub draft: Option<String>,
    /// Methods on offer with their default settings.
    pub methods: Vec<Settings>,
    /// The method used when a request names none.
    pub default_method: Method,
    /// Largest window.
    pub max_window: usize,
}

/// Counters since the start, and what is going on now.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Generations waiting for a place.
    pub queued: u64,
    /// Generations running.
    pub running: u64,
    /// Generations admitted.
    pub admitted: u64,
    /// Generations refused because the queue was full.
    pub refused: u64,
    /// Generations that reached their end.
    pub finished: u64,
    /// Generations cancelled or whose client went away.
    pub cancelled: u64,
    /// Generations that failed.
    pub failed: u64,
    /// Tokens of prompts prefilled.
    pub prompt_tokens: u64,
    /// Sums over all rounds by method, in the order of [`Method::ALL`].
    pub methods: Vec<(Method, Totals)>,
    /// Per plugin name: calls, fuel, microseconds, failures.
    pub plugins: Vec<(String, [u64; 4])>,
}

/// Why a checked request was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Running and waiting places are taken.
    #[error("all {places} places are taken; try again in {retry_after_s} s")]
    Full {
        /// Running and waiting places together.
        places: usize,
        /// Estimate of when one is free.
        retry_after_s: u64,
    },
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Draining,
}

/// The engine's handle; cheap to clone.
#[derive(Clone)]
pub struct Engine {}

/// The events of one generation. Dropping it cancels the generation within a round.
pub struct EventStream {}

impl EventStream {
    /// The next event; `None` after `Finished` or `Failed`.
    pub async fn next(&mut self) -> Option<Event> {
        unimplemented!()
    }
    /// [`EventStream::next`] for callers without a runtime.
    pub fn blocking_next(&mut self) -> Option<Event> {
        unimplemented!()
    }
    /// Ends the generation within a round; its `Finished` (with `reason: None`) still comes.
    pub fn cancel(&self) {
        unimplemented!()
    }
}

impl Engine {
    /// Facts about what is served.
    pub fn facts(&self) -> &ModelFacts {
        unimplemented!()
    }
    /// Tokens of a chat, by the model's template, user text with special tokens switched off.
    ///
    /// # Errors
    /// Names the message at fault.
    pub fn encode_chat(&self, _messages: &[(String, String)]) -> Result<Vec<TokenId>, RequestError> {
        unimplemented!()
    }
    /// Tokens of a plain text, special tokens switched off.
    ///
    /// # Errors
    /// Names the field.
    pub fn encode_text(&self, _text: &str) -> Result<Vec<TokenId>, RequestError> {
        unimplemented!()
    }
    /// Checks a request against the model and its limits.
    ///
    /// # Errors
    /// Names field, bound, value and remedy.
    pub fn check(&self, _spec: RequestSpec) -> Result<Request, RequestError> {
        unimplemented!()
    }
    /// Admits a generation.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn submit(&self, _request: Request) -> Result<EventStream, Refused> {
        unimplemented!()
    }
    /// Loaded plugins.
    pub fn plugins(&self) -> Vec<PluginFacts> {
        unimplemented!()
    }
    /// Counters.
    pub fn metrics(&self) -> Metrics {
        unimplemented!()
    }
    /// Admits nothing more; what runs goes on.
    pub fn drain(&self) {
        unimplemented!()
    }
}

/// A loaded plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginFacts {
    /// Name for requests.
    pub name: String,
    /// `acceptance`, `sampling`, `stopping`.
    pub kinds: Vec<&'static str>,
    /// `sha256:…`.
    pub digest: String,
    /// Size in bytes.
    pub bytes: usize,
}
