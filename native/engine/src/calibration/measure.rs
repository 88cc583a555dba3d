//! Passes over made-up tokens, timed.

use std::time::{Duration, Instant};

use specula_decoding::model::chain_nodes;
use specula_decoding::{LanguageModel, Look, ModelError, Noise, Reduction, Rows, TokenId};

use specula_models::Model;

use crate::by_rows::ByRows;
use crate::clock::exact_micros;

/// Rows that are timed.
const ROWS: [usize; 6] = [1, 2, 3, 5, 9, 17];
/// Tokens in the cache meanwhile.
const CONTEXT: usize = 48;
/// Passes of each count of rows, of which the middle one counts.
const TIMES: usize = 5;
/// What each measurement may take; what is not measured by then is reckoned from what is.
const MOST: Duration = Duration::from_millis(150);

/// A target's passes: on all cores, on those that the draft leaves, and there with an exit.
#[derive(Debug, Clone, Default)]
pub(crate) struct TargetCosts {
    pub(crate) alone: ByRows,
    pub(crate) beside: ByRows,
    pub(crate) with_exit: ByRows,
}

/// Times a target's passes. For the thread that computes.
pub(crate) fn target_costs(target: &Model, exit_layer: usize) -> Result<TargetCosts, ModelError> {
    let mut session = target.session()?;
    let model = &mut *session;
    if target.cannot_speculate().is_some() {
        return Ok(TargetCosts { alone: time_one_row(model)?, ..TargetCosts::default() });
    }
    let mut ranked = 0;
    let with_exit = |model: &mut dyn LanguageModel, tokens: &[TokenId]| {
        let (nodes, plain) = (chain_nodes(tokens, model.linear()), plain(model.linear(), tokens.len()));
        let mut on_exit = |rows: Rows| ranked += rows.count();
        let look = Look { layer: exit_layer, reduction: Some(plain.clone()), on_exit: &mut on_exit };
        model.forward_reduced(&nodes, Some(&plain), Some(look)).map(drop)
    };
    target.spread(true);
    let alone = time(model, without_exit)?;
    target.spread(false);
    Ok(TargetCosts { alone, beside: time(model, without_exit)?, with_exit: time(model, with_exit)? })
}

/// Times a draft's steps.
pub(crate) fn draft_costs(model: &mut dyn LanguageModel) -> Result<ByRows, ModelError> {
    time(model, without_exit)
}

fn without_exit(model: &mut dyn LanguageModel, tokens: &[TokenId]) -> Result<(), ModelError> {
    let plain = plain(model.linear(), tokens.len());
    model.forward_reduced(&chain_nodes(tokens, model.linear()), Some(&plain), None).map(drop)
}

/// What most requests need of their rows.
fn plain(first: usize, rows: usize) -> Reduction {
    let positions = (first..first + rows).map(|position| position as u32 + 1).collect();
    Reduction { temperature: 1.0, noise: Noise::new(0, 0), positions, ranked: 1, top: 0 }
}

/// All that a model is asked for whose cache cannot be cut back.
fn time_one_row(model: &mut dyn LanguageModel) -> Result<ByRows, ModelError> {
    let deadline = Instant::now() + MOST;
    let mut took = Vec::new();
    while took.is_empty() || took.len() < TIMES && Instant::now() < deadline {
        let begin = Instant::now();
        without_exit(model, &[0])?;
        took.push(exact_micros(begin.elapsed()));
    }
    took.sort_by(f64::total_cmp);
    let mut costs = ByRows::default();
    costs.learn(1, took[took.len() / 2]);
    Ok(costs)
}

fn time(
    model: &mut dyn LanguageModel,
    mut pass: impl FnMut(&mut dyn LanguageModel, &[TokenId]) -> Result<(), ModelError>,
) -> Result<ByRows, ModelError> {
    let deadline = Instant::now() + MOST;
    let most = model.context_length();
    let context = CONTEXT.min(most / 2);
    let token = |i: usize| (i * 37 % model.vocab_size()) as TokenId;
    let tokens: Vec<TokenId> = (0..context + ROWS[ROWS.len() - 1]).map(token).collect();
    model.keep(0, &[])?;
    model.prefill(&tokens[..context])?;
    let mut costs = ByRows::default();
    for rows in ROWS.into_iter().filter(|rows| context + rows <= most) {
        let mut took = Vec::new();
        while took.len() < TIMES && (took.is_empty() || Instant::now() < deadline) {
            let begin = Instant::now();
            pass(model, &tokens[context..context + rows])?;
            took.push(exact_micros(begin.elapsed()));
            model.keep(context, &[])?;
        }
        took.sort_by(f64::total_cmp);
        costs.learn(rows, took[took.len() / 2]);
        // Two counts of rows make a line; a slow model gets no more.
        if rows > 1 && Instant::now() >= deadline {
            break;
        }
    }
    Ok(costs)
}
