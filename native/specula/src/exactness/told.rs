//! What a generation told, to be compared whole.

use std::thread;

use anyhow::{Result, anyhow, bail};
use specula_decoding::{FinishReason, LogProbs, TokenId};
use specula_engine::{Engine, Event, EventStream, PromptToken, RequestSpec};

/// All of an answer that may not depend on who speculated, or on the company.
#[derive(Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) tokens: Vec<TokenId>,
    /// The text that each token completed, so that hold-back is compared as well.
    pub(crate) texts: Vec<String>,
    pub(crate) reason: Option<FinishReason>,
    pub(crate) prompt_tokens: usize,
    logprobs: Vec<Option<LogProbs>>,
    echo: Option<Vec<PromptToken>>,
    lossless: bool,
}

impl Told {
    pub(crate) fn text(&self) -> String {
        self.texts.concat()
    }

    /// Where another answer goes its own way, in words.
    pub(crate) fn difference(&self, other: &Self) -> String {
        match self.tokens.iter().zip(&other.tokens).position(|(a, b)| a != b) {
            Some(at) => format!("token {at} is {} instead of {}", other.tokens[at], self.tokens[at]),
            None if self.tokens.len() != other.tokens.len() => {
                format!("{} tokens instead of {}", other.tokens.len(), self.tokens.len())
            }
            None if self.reason != other.reason => format!("ends by {:?} instead of {:?}", other.reason, self.reason),
            None if self.texts != other.texts => format!("text {:?} instead of {:?}", other.text(), self.text()),
            None if self.lossless != other.lossless => "not lossless by its own report".to_owned(),
            None => "log-probabilities or echo".to_owned(),
        }
    }
}

/// Generates one answer.
pub(crate) fn generate(engine: &Engine, spec: &RequestSpec) -> Result<Told> {
    listen(engine.submit(engine.check(spec.clone())?)?)
}

/// Generates several at the same time.
pub(crate) fn generate_together(engine: &Engine, specs: &[RequestSpec]) -> Result<Vec<Told>> {
    let requests = specs.iter().map(|spec| engine.check(spec.clone())).collect::<Result<_, _>>()?;
    let streams = engine.submit_all(requests)?;
    // A thread each, for a stream that is not read is waited for, and fails in the end.
    thread::scope(|scope| {
        let threads: Vec<_> = streams.into_iter().map(|events| scope.spawn(|| listen(events))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a reader panicked"))?).collect()
    })
}

/// Starts a generation that is cancelled after so many rounds, while others run.
pub(crate) fn cancel_after(engine: &Engine, spec: &RequestSpec, rounds: usize) -> Result<thread::JoinHandle<()>> {
    let mut events = engine.submit(engine.check(spec.clone())?)?;
    Ok(thread::spawn(move || {
        let mut seen = 0;
        while let Some(event) = events.blocking_next() {
            seen += usize::from(matches!(event, Event::Round(_)));
            if seen == rounds {
                events.cancel();
            }
        }
    }))
}

fn listen(mut events: EventStream) -> Result<Told> {
    let (mut tokens, mut texts, mut logprobs, mut echo) = (Vec::new(), Vec::new(), Vec::new(), None);
    while let Some(event) = events.blocking_next() {
        match event {
            Event::Started(_) => {}
            Event::Prompt(prompt) => echo = Some(prompt),
            Event::Round(round) => {
                for token in round.tokens {
                    tokens.push(token.id);
                    texts.push(token.text);
                    logprobs.push(token.logprobs);
                }
            }
            Event::Finished(finished) => {
                return Ok(Told {
                    tokens,
                    texts,
                    logprobs,
                    echo,
                    prompt_tokens: finished.prompt_tokens,
                    lossless: finished.report.lossless(),
                    reason: finished.reason,
                });
            }
            Event::Failed(failure) => bail!(failure),
        }
    }
    bail!("the engine ended an answer without saying why")
}
