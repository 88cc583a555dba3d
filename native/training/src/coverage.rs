//! What an early exit covers: how often the target's own next token is among its top κ.

use anyhow::Result;
use candle_core::Tensor;
use rayon::prelude::*;
use serde::Serialize;
use specula_decoding::{Row, Sampling, TokenId};
use specula_models::{Head, LoadedModel};

use crate::trial::Written;

/// An exit's adapter.
pub(crate) struct Exit {
    pub(crate) layer: usize,
    pub(crate) weights: Tensor,
    pub(crate) bias: Tensor,
}

/// κ of the table.
pub(crate) const TOPS: [usize; 5] = [1, 2, 4, 8, 16];

/// Coverage at one setting of the sampler.
#[derive(Debug, Serialize)]
pub(crate) struct Coverage {
    temperature: f32,
    top_p: f32,
    /// Tokens of the target's texts.
    tokens: usize,
    /// Of them, those the draft guessed otherwise; `None` without a draft.
    rejected: Option<usize>,
    exits: Vec<OfExit>,
}

/// Coverage of one exit read in one way.
#[derive(Debug, Serialize)]
struct OfExit {
    layer: usize,
    /// Whether the adapter was used, or the bare norm and head.
    adapter: bool,
    /// Whether candidates were ranked with the noise that the target draws with.
    noise_aware: bool,
    /// κ and the part of tokens that are among the top κ.
    overall: Vec<(usize, f64)>,
    /// The same where the draft's guess was wrong, which is then no candidate.
    given_rejection: Vec<(usize, f64)>,
}

/// Ranks that one token had: with the noise and without, each among all and among all but the draft's guess.
#[derive(Clone, Copy)]
struct Ranks {
    all: [usize; 2],
    /// Only where the draft was wrong.
    rest: Option<[usize; 2]>,
}

impl Coverage {
    /// Measures exits, with their adapters and bare, over texts that the target wrote.
    pub(crate) fn of(
        (target, head): (&LoadedModel, &Head),
        draft: Option<&LoadedModel>,
        exits: &[Exit],
        written: &[Written],
        sampling: &Sampling,
    ) -> Result<Self> {
        let per_text: Vec<Vec<Vec<Ranks>>> =
            written.par_iter().map(|text| ranks((target, head), draft, exits, text)).collect::<Result<_>>()?;
        let merged =
            |exit: usize| -> Vec<Ranks> { per_text.iter().flat_map(|text| text[exit].iter().copied()).collect() };
        let mut told = Vec::new();
        for (i, exit) in exits.iter().enumerate() {
            for adapter in [true, false] {
                let ranks = merged(2 * i + usize::from(!adapter));
                for (way, noise_aware) in [true, false].into_iter().enumerate() {
                    let overall: Vec<usize> = ranks.iter().map(|r| r.all[way]).collect();
                    let rest: Vec<usize> = ranks.iter().filter_map(|r| Some(r.rest?[way])).collect();
                    let layer = exit.layer;
                    let (overall, given_rejection) = (within(&overall), within(&rest));
                    told.push(OfExit { layer, adapter, noise_aware, overall, given_rejection });
                }
            }
        }
        let first = merged(0);
        Ok(Self {
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            tokens: first.len(),
            rejected: draft.map(|_| first.iter().filter(|r| r.rest.is_some()).count()),
            exits: told,
        })
    }
}

/// Part of ranks (0-based) below each κ.
fn within(ranks: &[usize]) -> Vec<(usize, f64)> {
    let part = |top: usize| ranks.iter().filter(|rank| **rank < top).count() as f64 / ranks.len().max(1) as f64;
    TOPS.into_iter().map(|top| (top, part(top))).collect()
}

/// For each exit, with its adapter and bare: ranks of every token after the prompt.
fn ranks(
    (target, head): (&LoadedModel, &Head),
    draft: Option<&LoadedModel>,
    exits: &[Exit],
    text: &Written,
) -> Result<Vec<Vec<Ranks>>> {
    let vocab = target.model.config().vocab_size;
    let hidden = target.model.config().hidden;
    let trace = target.model.trace(&text.tokens)?;
    let guesses: Option<Vec<TokenId>> = draft.map(|draft| guesses(draft, text)).transpose()?;
    let (first, rows) = (text.prompt - 1, text.tokens.len() - text.prompt);
    let mut told = Vec::new();
    for exit in exits {
        let states = &trace.states[exit.layer - 1][first * hidden..(first + rows) * hidden];
        let bare = Tensor::from_slice(states, (rows, hidden), head.weights.device())?;
        let adapted = (&bare + bare.matmul(&exit.weights.t()?)?)?.broadcast_add(&exit.bias)?;
        for states in [adapted, bare] {
            let normed = head.norm.forward(&states.detach())?;
            let logits = normed.matmul(&head.weights.t()?)?.flatten_all()?.to_vec1::<f32>()?;
            let rank = |i: usize| -> Result<Ranks> {
                let at = text.prompt + i;
                let mut chain = text.slack_chain(at);
                let mut row = Row::new(&logits[i * vocab..(i + 1) * vocab]);
                chain.process(&[], 0, &mut [&mut row])?;
                let most = TOPS[TOPS.len() - 1] + 1;
                let ranked = [chain.ranked(&row, 0, most), row.top(most)];
                let (drawn, guess) = (text.tokens[at], guesses.as_ref().map(|g| g[i]));
                let place = |ranked: &[(TokenId, f32)], without: Option<TokenId>| {
                    let others = ranked.iter().filter(|(token, _)| Some(*token) != without);
                    others.take_while(|(token, _)| *token != drawn).count()
                };
                let all = [place(&ranked[0], None), place(&ranked[1], None)];
                let rest = guess.filter(|guess| *guess != drawn);
                Ok(Ranks { all, rest: rest.map(|guess| [0, 1].map(|way| place(&ranked[way], Some(guess)))) })
            };
            told.push((0..rows).map(rank).collect::<Result<_>>()?);
        }
    }
    Ok(told)
}

/// The draft's guess of every token after the prompt.
fn guesses(draft: &LoadedModel, text: &Written) -> Result<Vec<TokenId>> {
    let vocab = draft.model.config().vocab_size;
    let logits = draft.model.trace(&text.tokens)?.logits;
    let guess = |at: usize| {
        let mut chain = text.slack_chain(at);
        let mut row = Row::new(&logits[(at - 1) * vocab..at * vocab]);
        chain.process(&[], 0, &mut [&mut row])?;
        Ok(chain.draw(&row, 0)?)
    };
    (text.prompt..text.tokens.len()).map(guess).collect()
}

/// The tables for people.
pub(crate) fn table(measured: &[Coverage]) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for m in measured {
        let rejected = m.rejected.map_or_else(String::new, |n| format!(", {n} of them guessed otherwise by the draft"));
        let _ = writeln!(out, "Temperature {}, top-p {}: {} tokens{rejected}\n", m.temperature, m.top_p, m.tokens);
        let heads = |what: &str| TOPS.map(|top| format!("{what} κ={top}")).join(" | ");
        let _ = writeln!(out, "| exit after | read with | ranked | {} | {} |", heads("all"), heads("rejected"));
        let _ = writeln!(out, "|---|---|---{}|", "|---".repeat(2 * TOPS.len()));
        for exit in &m.exits {
            let cells = |part: &[(usize, f64)]| {
                part.iter().map(|(_, p)| format!("{:.1} %", 100.0 * p)).collect::<Vec<_>>().join(" | ")
            };
            let read = if exit.adapter { "adapter" } else { "bare head" };
            let ranked = if exit.noise_aware { "with the noise" } else { "plainly" };
            let (all, rest) = (cells(&exit.overall), cells(&exit.given_rejection));
            let _ = writeln!(out, "| {} | {read} | {ranked} | {all} | {rest} |", exit.layer);
        }
        out.push('\n');
    }
    out
}
