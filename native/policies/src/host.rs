//! What a guest can reach: the rows of the call in progress, the committed text, a log. Guests choose every number that
//! arrives here, so nothing is indexed, unwrapped or added unchecked; a breach of the contract is an error that traps.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::arithmetic_side_effects)]

use std::sync::Arc;

use specula_decoding::{Row, TokenBytes, TokenId};
use wasmtime::{Error, ResourceLimiter, Result};

use crate::explain::Breach;
use crate::text::one_line;
use crate::world::{context, rows, types};
use crate::{Limits, ModelInfo};

/// The data of one instance's store.
pub(crate) struct Host {
    limits: Arc<Limits>,
    token_bytes: Arc<TokenBytes>,
    vocab_size: u32,
    /// Tokens of the prompt; none for a stopping criterion.
    pub(crate) prompt_tokens: usize,
    /// Tokens committed or observed in calls that returned.
    pub(crate) history: Vec<TokenId>,
    /// Rows of the `adjust` in progress; empty outside of one.
    rows: Vec<Row>,
    /// Window index of the first of them.
    first: u32,
    host_calls: u32,
    edits: usize,
    log_left: usize,
    /// The last line logged in this call: a panic's message comes this way.
    pub(crate) last_line: Option<String>,
}

impl Host {
    pub(crate) fn new(limits: Arc<Limits>, model: &ModelInfo) -> Self {
        Self {
            log_left: limits.log_bytes,
            limits,
            token_bytes: model.token_bytes.clone(),
            vocab_size: model.vocab_size,
            prompt_tokens: 0,
            history: Vec::new(),
            rows: Vec::new(),
            first: 0,
            host_calls: 0,
            edits: 0,
            last_line: None,
        }
    }

    /// Forgets what the last call used.
    pub(crate) fn begin_call(&mut self) {
        self.host_calls = 0;
        self.edits = 0;
        self.last_line = None;
    }

    /// Takes the rows for a call; `first` is the window index of the first.
    pub(crate) fn lend_rows(&mut self, rows: Vec<Row>, first: u32) {
        self.rows = rows;
        self.first = first;
    }

    /// Gives the rows back.
    pub(crate) fn take_rows(&mut self) -> Vec<Row> {
        std::mem::take(&mut self.rows)
    }

    /// Counts a call into the host.
    fn count_call(&mut self) -> Result<()> {
        self.host_calls = self.host_calls.saturating_add(1);
        if self.host_calls > self.limits.host_calls {
            return breach("host-calls", format!("more than {} calls into the host", self.limits.host_calls));
        }
        Ok(())
    }

    /// Counts tokens named in edits.
    fn count_edits(&mut self, tokens: usize) -> Result<()> {
        self.edits = self.edits.saturating_add(tokens);
        if self.edits > self.limits.edits {
            return breach("edits", format!("more than {} tokens in bias and forbid", self.limits.edits));
        }
        Ok(())
    }

    fn check_asked(&self, tokens: usize) -> Result<()> {
        if tokens > self.limits.asked_tokens {
            return breach(
                "asked-tokens",
                format!("{tokens} tokens asked for, allowed are {}", self.limits.asked_tokens),
            );
        }
        Ok(())
    }

    fn check_tokens(&self, ids: &[TokenId]) -> Result<()> {
        match ids.iter().find(|&&id| id >= self.vocab_size) {
            Some(id) => breach("bad-token", format!("token {id} of a vocabulary of {}", self.vocab_size)),
            None => Ok(()),
        }
    }

    fn check_mask(&self, mask: &[u32]) -> Result<()> {
        let words = usize::try_from(self.vocab_size.div_ceil(32))?;
        if mask.len() > words {
            return breach("length-mismatch", format!("a mask of {} words, the vocabulary has {words}", mask.len()));
        }
        Ok(())
    }

    fn row(&mut self, row: u32) -> Result<&mut Row> {
        self.count_call()?;
        if self.rows.is_empty() {
            return breach("outside-step", "rows exist only during `adjust`".to_owned());
        }
        let index = row.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        match index.and_then(|index| self.rows.get_mut(index)) {
            Some(row) => Ok(row),
            None => breach("bad-row", format!("row {row} is not among those to edit, which begin at {}", self.first)),
        }
    }
}

fn breach<T>(code: &'static str, message: String) -> Result<T> {
    Err(Error::new(Breach { code, message }))
}

/// `value` if it is finite and lies in `low..=high`.
fn number(name: &str, value: f32, low: f32, high: f32) -> Result<f32> {
    if !value.is_finite() {
        return breach("not-finite", format!("{name} is {value}"));
    }
    if value < low || value > high {
        return breach("bad-argument", format!("{name} is {value:?}, allowed are {low:?} to {high:?}"));
    }
    Ok(value)
}

impl types::Host for Host {}

impl rows::Host for Host {
    fn top(&mut self, row: u32, k: u32) -> Result<rows::Candidates> {
        let k = usize::try_from(k)?;
        self.check_asked(k)?;
        let (ids, logits) = self.row(row)?.top(k).into_iter().unzip();
        Ok(rows::Candidates { ids, logits })
    }

    fn probs_at(&mut self, row: u32, ids: Vec<TokenId>) -> Result<Vec<f32>> {
        self.check_asked(ids.len())?;
        self.check_tokens(&ids)?;
        let row = self.row(row)?;
        let log_z = row.log_sum_exp();
        let logit = |id: TokenId| usize::try_from(id).ok().and_then(|id| row.logits().get(id)).copied();
        // A row without allowed tokens gives none any probability.
        let probability = |l: f32| if l == f32::NEG_INFINITY { 0.0 } else { (l - log_z).exp() };
        Ok(ids.into_iter().map(|id| logit(id).map_or(0.0, probability)).collect())
    }

    fn summary(&mut self, row: u32) -> Result<rows::RowSummary> {
        let (allowed, max, mean, deviation) = self.row(row)?.summary();
        Ok(rows::RowSummary { allowed: u32::try_from(allowed)?, max, mean, deviation })
    }

    fn bias(&mut self, row: u32, ids: Vec<TokenId>, biases: Vec<f32>) -> Result<()> {
        if ids.len() != biases.len() {
            return breach("length-mismatch", format!("{} tokens with {} biases", ids.len(), biases.len()));
        }
        self.check_tokens(&ids)?;
        self.count_edits(ids.len())?;
        if let Some(bias) = biases.iter().find(|bias| !bias.is_finite()) {
            return breach("not-finite", format!("a bias is {bias}"));
        }
        let row = self.row(row)?;
        for (id, bias) in ids.into_iter().zip(biases) {
            row.bias(id, bias);
        }
        Ok(())
    }

    fn bias_mask(&mut self, row: u32, mask: Vec<u32>, amount: f32) -> Result<()> {
        self.check_mask(&mask)?;
        let amount = number("the bias", amount, f32::MIN, f32::MAX)?;
        self.row(row)?.bias_mask(&mask, amount);
        Ok(())
    }

    fn forbid(&mut self, row: u32, ids: Vec<TokenId>) -> Result<()> {
        self.check_tokens(&ids)?;
        self.count_edits(ids.len())?;
        let row = self.row(row)?;
        for id in ids {
            row.forbid(id);
        }
        Ok(())
    }

    fn allow(&mut self, row: u32, mask: Vec<u32>) -> Result<()> {
        self.check_mask(&mask)?;
        self.row(row)?.allow(&mask);
        Ok(())
    }

    fn scale(&mut self, row: u32, temperature: f32) -> Result<()> {
        let temperature = number("the temperature", temperature, f32::MIN_POSITIVE, f32::MAX)?;
        self.row(row)?.scale(temperature);
        Ok(())
    }

    fn keep_top_k(&mut self, row: u32, k: u32) -> Result<()> {
        let k = usize::try_from(k)?;
        self.row(row)?.keep_top_k(k);
        Ok(())
    }

    fn keep_top_p(&mut self, row: u32, p: f32) -> Result<()> {
        let p = number("top-p", p, f32::MIN_POSITIVE, 1.0)?;
        self.row(row)?.keep_top_p(p);
        Ok(())
    }

    fn keep_min_p(&mut self, row: u32, p: f32) -> Result<()> {
        let p = number("min-p", p, 0.0, 1.0)?;
        self.row(row)?.keep_min_p(p);
        Ok(())
    }

    fn keep_from(&mut self, row: u32, logit: f32) -> Result<()> {
        let logit = number("the logit", logit, f32::MIN, f32::MAX)?;
        self.row(row)?.keep_from(logit);
        Ok(())
    }
}

impl context::Host for Host {
    fn length(&mut self) -> Result<u32> {
        self.count_call()?;
        Ok(u32::try_from(self.history.len())?)
    }

    fn prompt_length(&mut self) -> Result<u32> {
        self.count_call()?;
        Ok(u32::try_from(self.prompt_tokens)?)
    }

    fn history(&mut self, start: u32, count: u32) -> Result<Vec<TokenId>> {
        self.count_call()?;
        let (start, count) = (usize::try_from(start)?, usize::try_from(count)?);
        Ok(self.history.iter().skip(start).take(count).copied().collect())
    }

    fn token_bytes(&mut self, ids: Vec<TokenId>) -> Result<Vec<Vec<u8>>> {
        self.count_call()?;
        self.check_asked(ids.len())?;
        self.check_tokens(&ids)?;
        Ok(ids.into_iter().map(|id| self.token_bytes.get(id).to_vec()).collect())
    }

    fn log(&mut self, line: String) -> Result<()> {
        self.count_call()?;
        let line = one_line(&line, self.limits.line_bytes);
        if let Some(left) = self.log_left.checked_sub(line.len()) {
            self.log_left = left;
            tracing::debug!(target: "specula::plugin", "{line}");
            self.last_line = Some(line);
        }
        Ok(())
    }
}

impl ResourceLimiter for Host {
    fn memory_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        if desired > self.limits.memory_bytes {
            return breach("memory", format!("{desired} bytes of memory, allowed are {}", self.limits.memory_bytes));
        }
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        if desired > self.limits.table_elements {
            return breach("table", format!("{desired} table entries, allowed are {}", self.limits.table_elements));
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.limits.core_instances
    }

    fn memories(&self) -> usize {
        self.limits.memories
    }

    fn tables(&self) -> usize {
        self.limits.tables
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_cut_by_line_and_in_sum() {
        let limits = Limits { line_bytes: 10, log_bytes: 25, ..Limits::default() };
        let model = ModelInfo { vocab_size: 4, end_tokens: Vec::new(), token_bytes: Arc::default(), max_window: 4 };
        let mut host = Host::new(Arc::new(limits), &model);
        let mut log = |line: &str| {
            host.begin_call();
            context::Host::log(&mut host, line.to_owned()).map(|()| host.last_line.take()).ok().flatten()
        };
        assert_eq!(log("0123456789abc").as_deref(), Some("0123456789"));
        assert_eq!(log("0123456789").as_deref(), Some("0123456789"));
        assert_eq!(log("012345"), None, "6 bytes of 5 left");
        assert_eq!(log("01234").as_deref(), Some("01234"));
    }
}
