//! What a generation tells its owner, in order: `Started`, `Prompt` if asked for, any number of `Round`s, then `Finished` or `Failed`.

use specula_decoding::branches::Source;
use specula_decoding::{FinishReason, LogProbs, TokenId};

use crate::report::Report;
use crate::settings::Settings;

/// One step of a generation.
#[derive(Debug, Clone)]
pub enum Event {
    /// The generation left the queue.
    Started(Started),
    /// The prompt's tokens, once all are prefilled.
    Prompt(Vec<PromptToken>),
    /// One pass of the target and what it committed.
    Round(Round),
    /// The text ended; no event follows.
    Finished(Box<Finished>),
    /// The generation could not go on; no event follows.
    Failed(Failure),
}

/// Facts known when a generation begins.
#[derive(Debug, Clone)]
pub struct Started {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Seed in force.
    pub seed: u64,
    /// Settings in force.
    pub settings: Settings,
}

/// A token of the prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptToken {
    /// Its id.
    pub id: TokenId,
    /// By the raw row before it, if asked for; the first token has none.
    pub logprobs: Option<LogProbs>,
}

/// One round.
#[derive(Debug, Clone)]
pub struct Round {
    /// Tokens committed, in order.
    pub tokens: Vec<Token>,
    /// Draft tokens verified.
    pub window: usize,
    /// Draft tokens accepted.
    pub accepted: usize,
    /// Whether the window had been rolled out in time; `None` for methods that do not roll out and in the first round.
    pub hit: Option<bool>,
    /// Who had guessed the outcome whose branch became the window; `None` without a hit.
    pub source: Option<Source>,
    /// What both devices did.
    pub lanes: Vec<Span>,
    /// What they told each other.
    pub messages: Vec<Message>,
}

/// A committed token.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// Text that it makes showable; may be empty, may include text held back before.
    pub text: String,
    /// Where it came from.
    pub origin: Origin,
    /// If asked for; never with the end token, which is no part of the text.
    pub logprobs: Option<LogProbs>,
}

/// Where a committed token came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Drawn by the target without speculation (window 0).
    Plain,
    /// Accepted from a window drafted serially or looked up.
    Draft,
    /// Accepted from a rolled-out branch.
    Mirror,
    /// The target's own draw where a draft token differed.
    Correction,
    /// The target's own draw after a fully accepted window.
    Bonus,
}

/// Which device, doing what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LaneKind {
    /// Target, the prompt.
    Prefill,
    /// Target, layers 1…e.
    TargetPrefix,
    /// Target, early exit's head and ranking.
    Exit,
    /// Target, layers e+1…N and head; all layers for methods without an exit.
    TargetSuffix,
    /// Target's thread: rules, draws, acceptance, commit.
    Accept,
    /// Target's thread, in rules that plugins are among, within [`LaneKind::Accept`].
    Policy,
    /// Draft, serial drafting that the target waits for.
    DraftSerial,
    /// Draft, rolling out branches.
    DraftRollout,
}

/// One stretch of work, in microseconds since the generation was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// What was done.
    pub kind: LaneKind,
    /// Begin.
    pub start_us: u64,
    /// End.
    pub end_us: u64,
}

/// A message between target and draft, in microseconds since the generation was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// What was said.
    pub kind: MessageKind,
    /// When it was sent.
    pub sent_us: u64,
    /// When the other side took it up.
    pub taken_us: u64,
}

/// What target and draft tell each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// Target: draft a window now.
    Ask,
    /// Target: a pass began.
    PassBegan,
    /// Target: the early exit's candidates.
    Exit,
    /// Target: what was accepted, and the token that follows.
    Verdict,
    /// Draft: the next window.
    Proposal,
}

/// How a generation ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Why; `None` if it was cancelled through [`crate::EventStream::cancel`].
    pub reason: Option<FinishReason>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated, the one that ended the text included.
    pub completion_tokens: usize,
    /// What speculation did.
    pub report: Report,
}

/// Why a generation could not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The request asked for something impossible that shows only while decoding (`empty_support`), or its plugin
    /// failed with failure policy `fail`: the client's to mend.
    #[error("{message}")]
    Request {
        /// Stable code.
        code: String,
        /// Names cause and remedy.
        message: String,
    },
    /// The client read too slowly for too long.
    #[error("the event stream was full for {seconds} s; read faster or ask for fewer tokens")]
    SlowReader {
        /// The bound.
        seconds: u64,
    },
    /// The engine's own failure.
    #[error("internal failure: {0}")]
    Engine(String),
}
