//! Whether a device's rows are the same in every pass, and as the CPU has them: the embedded target's greedy answers.

use anyhow::Result;
use serde::Serialize;
use specula_decoding::model::chain_nodes;
use specula_decoding::{LanguageModel, Row, TokenId};
use specula_models::{Compute, Form, LoadedModel};

use crate::{prompts, startup};

const QUESTIONS: usize = 8;
const TOKENS: usize = 48;
/// Rows of the passes that single rows are compared with.
const WINDOW: usize = 8;

#[derive(Serialize)]
pub(super) struct Exactness {
    pub(super) rows: usize,
    /// As `/v1/models` says.
    pub(super) row_invariant: bool,
    /// Single rows against those of windows.
    pub(super) windows: Compared,
    /// Single rows against the CPU's.
    pub(super) cpu: Compared,
}

#[derive(Default, Serialize)]
pub(super) struct Compared {
    /// Rows whose bits differ.
    pub(super) differing: usize,
    /// Largest difference of two logits.
    pub(super) largest_gap: f32,
    /// Rows whose best token differs.
    pub(super) other_tokens: usize,
    /// The first of those.
    pub(super) first: Option<Divergence>,
}

/// Where two rows choose another token.
#[derive(Serialize)]
pub(super) struct Divergence {
    pub(super) question: usize,
    /// Tokens of the answer before it.
    pub(super) place: usize,
    /// What the first row chooses by this much.
    pub(super) logit_gap: f32,
}

pub(super) fn measure(device: Compute) -> Result<Exactness> {
    let open =
        |compute| LoadedModel::from_gguf_bytes_as("target", startup::TARGET, Form { compute, ..Form::default() });
    let (device, cpu) = (open(device)?, open(Compute::Kernels)?);
    let row_invariant = device.model.row_invariant();
    let mut found = Exactness { rows: 0, row_invariant, windows: Compared::default(), cpu: Compared::default() };
    for (question, (_, text)) in prompts::questions(QUESTIONS)?.into_iter().enumerate() {
        let prompt = device.tokenizer.encode_text(&text).map_err(anyhow::Error::msg)?;
        let (answer, single) = greedy(&mut *device.model.session()?, &prompt)?;
        for (compared, model, window) in [(&mut found.windows, &device, WINDOW), (&mut found.cpu, &cpu, 1)] {
            for (place, (a, b)) in
                single.iter().zip(fed(&mut *model.model.session()?, &prompt, &answer, window)?).enumerate()
            {
                compared.add((question, place), a, &b);
            }
        }
        found.rows += single.len();
    }
    Ok(found)
}

/// A greedy answer by passes of one row, and the rows it was read from.
fn greedy(model: &mut dyn LanguageModel, prompt: &[TokenId]) -> Result<(Vec<TokenId>, Vec<Vec<f32>>)> {
    let (mut next, mut answer, mut rows) = (prompt.to_vec(), Vec::new(), Vec::new());
    while answer.len() < TOKENS {
        if next.len() > 1 {
            model.prefill(&next[..next.len() - 1])?;
        }
        let row = model.forward(&chain_nodes(&next[next.len() - 1..], model.linear()), None)?;
        next = Row::new(row.row(0)).top(1).iter().map(|best| best.0).collect();
        answer.extend(&next);
        rows.push(row.row(0).to_vec());
    }
    Ok((answer, rows))
}

/// The rows of an answer that is fed in windows.
fn fed(model: &mut dyn LanguageModel, prompt: &[TokenId], answer: &[TokenId], window: usize) -> Result<Vec<Vec<f32>>> {
    let Some((last, before)) = prompt.split_last() else { return Ok(Vec::new()) };
    model.prefill(before)?;
    let tokens: Vec<TokenId> = std::iter::once(*last).chain(answer.iter().copied()).take(answer.len()).collect();
    let mut rows = Vec::new();
    for window in tokens.chunks(window) {
        let passed = model.forward(&chain_nodes(window, model.linear()), None)?;
        rows.extend((0..passed.rows()).map(|i| passed.row(i).to_vec()));
    }
    Ok(rows)
}

impl Compared {
    fn add(&mut self, (question, place): (usize, usize), a: &[f32], b: &[f32]) {
        self.differing += usize::from(a.iter().zip(b).any(|(a, b)| a.to_bits() != b.to_bits()));
        self.largest_gap = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(self.largest_gap, f32::max);
        let best = |row: &[f32]| Row::new(row).top(1).first().map_or(0, |best| best.0 as usize);
        let (ours, theirs) = (best(a), best(b));
        if ours != theirs {
            self.other_tokens += 1;
            self.first.get_or_insert(Divergence { question, place, logit_gap: a[ours] - a[theirs] });
        }
    }
}
