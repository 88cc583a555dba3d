//! What a draft would have had accepted: its guesses along texts that the target itself wrote. A draft token counts only
//! if all before it were the target's, so the target's text is all that is needed to know a round's outcome exactly.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, anyhow, bail};
use rayon::prelude::*;
use serde::Deserialize;
use specula_decoding::model::chain_nodes;
use specula_decoding::{Chain, Row, Sampling, TokenId};
use specula_models::{Batch, Model, Network, Streams};

/// Answers of the target that a draft or an exit is tried on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Trial {
    /// Prompts, taken from the validation conversations.
    pub(crate) prompts: usize,
    /// Most tokens of an answer.
    pub(crate) tokens: usize,
}

impl Default for Trial {
    fn default() -> Self {
        Self { prompts: 48, tokens: 64 }
    }
}

/// A text that the target wrote.
pub(crate) struct Written {
    pub(crate) prompt: usize,
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) sampling: Sampling,
}

impl Written {
    /// The chain that a draft or an exit guesses token `at` by.
    pub(crate) fn slack_chain(&self, at: usize) -> Chain {
        Chain::new(self.sampling.slack(), &self.tokens[..at], Vec::new())
    }
}

/// γ of the lengths told.
const WINDOWS: [usize; 4] = [2, 4, 6, 8];

/// Lets the target answer prompts, `most` tokens each, with a seed of its own for each.
pub(crate) fn write(
    target: &Model,
    prompts: &[Vec<TokenId>],
    sampling: &Sampling,
    most: usize,
    stop: &AtomicBool,
) -> Result<Vec<Written>> {
    let one = |(i, prompt): (usize, &Vec<TokenId>)| -> Result<Written> {
        let sampling = Sampling { seed: i as u64, ..sampling.clone() };
        let mut chain = Chain::new(sampling.clone(), prompt, Vec::new());
        let mut model = target.session()?;
        let (mut tokens, mut fed) = (prompt.clone(), 0);
        while tokens.len() < prompt.len() + most && tokens.len() < target.config().context_length {
            if stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            let rows = model.forward(&chain_nodes(&tokens[fed..], fed), None)?;
            fed = tokens.len();
            let mut row = Row::new(rows.row(rows.rows() - 1));
            chain.process(&[], 0, &mut [&mut row])?;
            let token = chain.draw(&row, 0)?;
            chain.commit(&[token])?;
            tokens.push(token);
            if target.config().end_tokens.contains(&token) {
                break;
            }
        }
        Ok(Written { prompt: prompt.len(), tokens, sampling })
    };
    prompts.par_iter().enumerate().map(one).collect()
}

/// Acceptance lengths of a draft over the target's texts, by window, with its streams used unchecked or without streams.
pub(crate) fn lengths(network: &Network, streams: Option<&Streams>, texts: &[Written]) -> Result<Vec<(usize, f64)>> {
    let (mut passes, mut committed) = ([0_usize; WINDOWS.len()], [0_usize; WINDOWS.len()]);
    for text in texts {
        let right = guesses(network, streams, text)?;
        let steps = right.len();
        for (w, window) in WINDOWS.into_iter().enumerate() {
            let mut at = text.prompt;
            while at < text.tokens.len() {
                // Token `at + i` is read from stream i mod (η + 1) of the row that precedes its group.
                let is_right = |i: &usize| {
                    let (group, stream) = (i / steps, i % steps);
                    right[stream].get(at + group * steps - text.prompt).copied().unwrap_or(false)
                };
                let accepted = (0..window).take_while(is_right).count();
                passes[w] += 1;
                committed[w] += (accepted + 1).min(text.tokens.len() - at);
                at += accepted + 1;
            }
        }
    }
    Ok(WINDOWS.into_iter().zip(committed.into_iter().zip(passes).map(|(c, p)| c as f64 / p as f64)).collect())
}

/// For the main stream and each other: whether what it reads after token `prompt − 1 + i` is the target's.
fn guesses(network: &Network, streams: Option<&Streams>, text: &Written) -> Result<Vec<Vec<bool>>> {
    let batch = Batch::new(&[vec![&text.tokens]], text.tokens.len(), 0);
    let first = text.prompt - 1;
    let mut right = Vec::new();
    for (ahead, states) in network.states(&batch, streams)?.iter().enumerate() {
        let rows = text.tokens.len().saturating_sub(first + 1 + ahead);
        if rows == 0 {
            right.push(Vec::new());
            continue;
        }
        let logits = network.logits(&states.narrow(0, first, rows)?.detach())?.detach().to_vec2::<f32>()?;
        let read = logits.iter().enumerate().map(|(i, logits)| {
            let at = first + 1 + i + ahead;
            let mut chain = text.slack_chain(at);
            let mut row = Row::new(logits);
            chain.process(&[], 0, &mut [&mut row]).map_err(|e| anyhow!(e))?;
            Ok(chain.draw(&row, 0)? == text.tokens[at])
        });
        right.push(read.collect::<Result<_>>()?);
    }
    Ok(right)
}
