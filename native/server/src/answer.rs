//! What all pieces of one answer have in common.

use std::sync::Arc;

use specula_decoding::TokenBytes;
use specula_engine::Finished;
use specula_protocol::Usage;
use specula_protocol::response::{Choice, Completion};

use crate::app::{App, now_s};
use crate::generation::{Endpoint, Form};
use crate::pieces::PieceWriter;

/// An answer's head, and the form its choices take.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) chat: bool,
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
    /// Choices, over all prompts.
    pub(crate) choices: usize,
    /// Choices of each prompt.
    pub(crate) per_prompt: usize,
    /// Whether log-probabilities are told.
    pub(crate) logprobs: bool,
    pub(crate) token_bytes: Arc<TokenBytes>,
}

impl Answer {
    pub(crate) fn new(app: &App, endpoint: Endpoint, form: &Form, choices: usize) -> Self {
        let chat = endpoint == Endpoint::Chat;
        Self {
            chat,
            id: app.next_id(if chat { "chatcmpl" } else { "cmpl" }),
            created: now_s(),
            model: app.engine.facts().name.clone(),
            choices,
            per_prompt: form.per_prompt,
            logprobs: form.logprobs,
            token_bytes: app.engine.token_bytes().clone(),
        }
    }

    /// A writer for one of its choices.
    pub(crate) fn writer(&self) -> PieceWriter {
        PieceWriter::new(self.chat, self.logprobs, &self.token_bytes)
    }

    /// Adds a choice's tokens; a prompt is counted with the first of its choices.
    pub(crate) fn count(&self, usage: &mut Usage, index: usize, finished: &Finished) {
        if index.is_multiple_of(self.per_prompt) {
            usage.prompt_tokens += finished.prompt_tokens as u64;
        }
        usage.completion_tokens += finished.completion_tokens as u64;
        usage.total_tokens = usage.prompt_tokens + usage.completion_tokens;
    }

    /// The answer, or a piece of it, with these choices.
    pub(crate) fn completion(&self, object: &str, choices: Vec<Choice>) -> Completion {
        Completion {
            id: self.id.clone(),
            object: object.into(),
            created: self.created,
            model: self.model.clone(),
            choices,
            usage: None,
            specula: None,
        }
    }
}

/// A choice without content.
pub(crate) fn choice(index: usize, finish_reason: Option<&str>) -> Choice {
    Choice {
        index: index as u32,
        message: None,
        delta: None,
        text: None,
        logprobs: None,
        finish_reason: finish_reason.map(str::to_owned),
        specula: None,
    }
}
