//! What the target says of every learnt token: its rows' most likely tokens, computed once and kept.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use specula_decoding::{Row, TokenId};
use specula_models::Model;

use crate::data::Text;
use crate::files;
use crate::loss::Goals;
use crate::progress::bar;

/// Rows of a target over some texts.
pub(crate) struct Teacher {
    top: usize,
    /// `[R, m]`.
    tokens: Vec<TokenId>,
    /// `[R, m]`.
    probabilities: Vec<f32>,
    /// Of each text: index of its first row. Rows stand for learnt tokens, in order.
    first: Vec<usize>,
}

impl Teacher {
    /// Asks the target, or takes what `cache` holds if that was computed for the same.
    pub(crate) fn ask(model: &Model, texts: &[Text], top: usize, cache: &Path, stop: &AtomicBool) -> Result<Self> {
        let top = top.min(model.config().vocab_size);
        let mut first = Vec::with_capacity(texts.len());
        let mut rows = 0;
        for text in texts {
            first.push(rows);
            rows += text.learnt.iter().filter(|l| **l).count();
        }
        let key = key(model, texts, top)?;
        if let Some((tokens, probabilities)) = restore(cache, &key)? {
            return Ok(Self { top, tokens, probabilities, first });
        }
        let progress = bar(rows as u64, "rows of the target");
        let done = AtomicUsize::new(0);
        let parts = texts.par_iter().map(|text| {
            if stop.load(Ordering::Relaxed) {
                bail!("interrupted; the target's rows are not kept");
            }
            let part = ask_one(model, text, top)?;
            progress.set_position(done.fetch_add(part.1.len() / top, Ordering::Relaxed) as u64);
            Ok(part)
        });
        let parts: Vec<(Vec<TokenId>, Vec<f32>)> = parts.collect::<Result<_>>()?;
        progress.finish_and_clear();
        let (tokens, probabilities): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let teacher = Self { top, tokens: tokens.concat(), probabilities: probabilities.concat(), first };
        teacher.save(cache, &key)?;
        Ok(teacher)
    }

    /// m.
    pub(crate) fn top(&self) -> usize {
        self.top
    }

    /// Adds the row that predicts the `n`-th learnt token of a text to some goals.
    pub(crate) fn push(&self, goals: &mut Goals, text: usize, n: usize, weight: f32) {
        let at = (self.first[text] + n) * self.top;
        let at = at..at + self.top;
        goals.push(&self.tokens[at.clone()], &self.probabilities[at], weight);
    }

    fn save(&self, cache: &Path, key: &str) -> Result<()> {
        let shape = (self.tokens.len() / self.top, self.top);
        let tensors = BTreeMap::from([
            ("tokens".to_owned(), Tensor::from_slice(&self.tokens, shape, &Device::Cpu)?),
            ("probabilities".to_owned(), Tensor::from_slice(&self.probabilities, shape, &Device::Cpu)?),
        ]);
        files::save_tensors(cache, &tensors, &[("key", key)])
    }
}

/// What the rows depend on: the target's shape and first answer, the texts, m.
fn key(model: &Model, texts: &[Text], top: usize) -> Result<String> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    for text in texts {
        (&text.tokens, &text.learnt).hash(&mut hasher);
    }
    let probe = model.trace(&texts[0].tokens[..1])?;
    probe.logits.iter().for_each(|x| x.to_bits().hash(&mut hasher));
    Ok(format!("{top} tokens of {} texts, {:016x}", texts.len(), hasher.finish()))
}

fn restore(cache: &Path, key: &str) -> Result<Option<(Vec<TokenId>, Vec<f32>)>> {
    let Some((tensors, kept)) = files::load_tensors(cache)? else { return Ok(None) };
    if kept.get("key").is_none_or(|k| k != key) {
        return Ok(None);
    }
    let tensor = |name: &str| tensors.get(name).with_context(|| format!("{}: no `{name}`", cache.display()));
    let (tokens, probabilities) = (tensor("tokens")?.flatten_all()?, tensor("probabilities")?.flatten_all()?);
    Ok(Some((tokens.to_vec1()?, probabilities.to_vec1()?)))
}

fn ask_one(model: &Model, text: &Text, top: usize) -> Result<(Vec<TokenId>, Vec<f32>)> {
    let vocab = model.config().vocab_size;
    let logits = model.trace(&text.tokens)?.logits;
    let (mut tokens, mut probabilities) = (Vec::new(), Vec::new());
    for i in (1..text.tokens.len()).filter(|i| text.learnt[*i]) {
        let row = Row::new(&logits[(i - 1) * vocab..i * vocab]);
        let sum = row.log_sum_exp();
        for (token, logit) in row.top(top) {
            tokens.push(token);
            probabilities.push((logit - sum).exp());
        }
    }
    Ok((tokens, probabilities))
}
