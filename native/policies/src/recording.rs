//! Rounds of a generation, recorded so that plugins can be run on them again: on an author's machine, and at upload.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use specula_decoding::{Row, TokenBytes, TokenId, WindowStats};

use crate::ModelInfo;
use crate::digest::hex;

/// Best tokens of a row that are recorded one by one.
const ROW_TOKENS: usize = 64;
/// Stands for minus infinity, which JSON does not have.
const NEVER: f32 = -9999.0;
/// Most entries of a recorded vocabulary: rows are made of that size.
const MAX_VOCABULARY: u32 = 1 << 20;
/// Most rounds of a recording that are replayed.
const MAX_ROUNDS: usize = 1024;

/// The windows of one generation. As a file: JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// Entries of a row, V.
    pub vocab_size: u32,
    /// Tokens that end a text.
    pub end_tokens: Vec<TokenId>,
    /// Most draft tokens in a window.
    pub max_window: u32,
    /// Tokens of the prompt.
    pub prompt: Vec<TokenId>,
    /// In order.
    pub rounds: Vec<RecordedRound>,
    /// Bytes of the tokens that occur, as hexadecimal digits.
    pub token_bytes: BTreeMap<TokenId, String>,
}

/// A window, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedRound {
    /// The draft tokens.
    pub draft: Vec<TokenId>,
    /// Log-probability of each in the draft's row; empty if the drafter gives none.
    pub log_q: Vec<f32>,
    /// The target's rows after the sampling chain, one more than draft tokens.
    pub rows: Vec<RecordedRow>,
    /// The target's own draw of each row, as far as there is one.
    pub own_draw: Vec<TokenId>,
    /// Tokens committed.
    pub committed: Vec<TokenId>,
    /// The text that each of them completed.
    pub pieces: Vec<String>,
}

/// A row: its best tokens, and one value for all others; logits to a thousandth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedRow {
    /// Best tokens, best first.
    pub ids: Vec<TokenId>,
    /// Their logits.
    pub logits: Vec<f32>,
    /// Logit of each other token, such that all together weigh what they did.
    pub rest: f32,
}

/// Why a recording cannot be replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the recording is not usable: {0}")]
pub struct BadRecording(pub String);

impl RecordedRow {
    /// Of a whole row.
    pub fn of(row: &Row) -> Self {
        let best = row.top(ROW_TOKENS);
        let (ids, logits): (Vec<TokenId>, Vec<f32>) = best.into_iter().unzip();
        let others = row.vocab_size() - ids.len();
        let mut rest = row.clone();
        ids.iter().for_each(|&id| rest.forbid(id));
        let rest = if others == 0 { NEVER } else { rest.log_sum_exp() - (others as f32).ln() };
        Self { ids, logits: logits.into_iter().map(recorded).collect(), rest: recorded(rest) }
    }

    /// As a whole row again.
    fn restore(&self, vocab_size: u32) -> Row {
        let value = |logit: f32| if logit <= NEVER { f32::NEG_INFINITY } else { logit };
        let mut row = Row::new(&vec![value(self.rest); vocab_size as usize]);
        for (&id, &logit) in self.ids.iter().zip(&self.logits) {
            if let Some(slot) = row.logits_mut().get_mut(id as usize) {
                *slot = value(logit);
            }
        }
        row
    }
}

/// To a thousandth, in a range that JSON has.
fn recorded(logit: f32) -> f32 {
    (logit.clamp(NEVER, -NEVER) * 1000.0).round() / 1000.0
}

impl Recording {
    /// Of some rounds of a generation for `model`.
    pub fn new(model: &ModelInfo, prompt: Vec<TokenId>, rounds: Vec<RecordedRound>) -> Self {
        let named = rounds.iter().flat_map(|round| {
            let rows = round.rows.iter().flat_map(|row| &row.ids);
            round.draft.iter().chain(&round.own_draw).chain(&round.committed).chain(rows)
        });
        let bytes = |&id: &TokenId| (id, hex(model.token_bytes.get(id)));
        let token_bytes = named.chain(&prompt).map(bytes).collect();
        let (end_tokens, max_window) = (model.end_tokens.clone(), model.max_window);
        Self { vocab_size: model.vocab_size, end_tokens, max_window, prompt, rounds, token_bytes }
    }

    /// The one that uploads are measured on: some rounds of the embedded pair.
    ///
    /// # Panics
    /// Never: a test reads it.
    pub fn reference() -> Self {
        const REFERENCE: &str = include_str!("reference.json");
        serde_json::from_str(REFERENCE).expect("written by `specula generate --record-window`, and read in a test")
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(json: &str) -> Result<Self, BadRecording> {
        let recording: Self = serde_json::from_str(json).map_err(|error| BadRecording(error.to_string()))?;
        recording.check()?;
        Ok(recording)
    }

    fn check(&self) -> Result<(), BadRecording> {
        let bad = |what: String| Err(BadRecording(what));
        if !(1..=MAX_VOCABULARY).contains(&self.vocab_size) {
            return bad(format!("`vocab_size` must be 1..={MAX_VOCABULARY}; got {}", self.vocab_size));
        }
        if self.rounds.len() > MAX_ROUNDS {
            return bad(format!("`rounds` must be at most {MAX_ROUNDS}; got {}", self.rounds.len()));
        }
        for (i, round) in self.rounds.iter().enumerate() {
            let n = round.draft.len();
            if round.rows.len() != n + 1 {
                return bad(format!(
                    "`rounds[{i}].rows` must be {} for {n} draft tokens; got {}",
                    n + 1,
                    round.rows.len()
                ));
            }
            if round.pieces.len() != round.committed.len() {
                return bad(format!("`rounds[{i}].pieces` must be as many as `committed`"));
            }
            let tokens = round.draft.iter().chain(&round.own_draw).chain(&round.committed);
            if let Some(token) =
                tokens.chain(round.rows.iter().flat_map(|row| &row.ids)).find(|t| **t >= self.vocab_size)
            {
                return bad(format!("`rounds[{i}]` names token {token} of a vocabulary of {}", self.vocab_size));
            }
        }
        Ok(())
    }

    /// The model as a plugin is told of it.
    pub(crate) fn model(&self) -> ModelInfo {
        let mut bytes = vec![Box::<[u8]>::default(); self.vocab_size as usize];
        for (&id, digits) in &self.token_bytes {
            if let Some(slot) = bytes.get_mut(id as usize) {
                *slot = unhex(digits).into();
            }
        }
        ModelInfo {
            vocab_size: self.vocab_size,
            end_tokens: self.end_tokens.clone(),
            token_bytes: Arc::new(TokenBytes(bytes)),
            max_window: self.max_window,
        }
    }
}

impl RecordedRound {
    /// The rows as they were, but for their tails.
    pub(crate) fn restore_rows(&self, vocab_size: u32) -> Vec<Row> {
        self.rows.iter().map(|row| row.restore(vocab_size)).collect()
    }

    /// What an acceptance policy sees of the window, whose first token stands at `position`.
    pub(crate) fn stats(&self, rows: &[Row], position: u32) -> WindowStats {
        let mut stats = WindowStats { position, ..WindowStats::default() };
        for ((row, &draft), &own) in rows.iter().zip(&self.draft).zip(&self.own_draw) {
            stats.push(row, draft, own);
        }
        stats.log_q = self.log_q.iter().copied().take(stats.draft.len()).collect();
        stats
    }
}

/// Digits that are none count as the byte 0.
fn unhex(digits: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    digits.as_bytes().chunks(2).map(|pair| byte(pair).unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_usable_and_a_recording_survives_its_file() {
        let reference = Recording::reference();
        assert_eq!(reference.check(), Ok(()));
        assert!(reference.rounds.iter().any(|round| round.draft.len() > 1), "windows of several tokens");
        let json = serde_json::to_string(&reference).expect("written");
        assert_eq!(Recording::parse(&json), Ok(reference));
    }

    #[test]
    fn a_row_comes_back_with_its_mass() {
        let logits: Vec<f32> = (0..200).map(|i| if i == 7 { f32::NEG_INFINITY } else { -0.05 * i as f32 }).collect();
        let row = Row::new(&logits);
        let back = RecordedRow::of(&row).restore(200);
        assert!((back.log_sum_exp() - row.log_sum_exp()).abs() < 1e-3);
        let close = |((a, x), (b, y)): ((TokenId, f32), (TokenId, f32))| a == b && (x - y).abs() < 1e-3;
        assert!(back.top(ROW_TOKENS).into_iter().zip(row.top(ROW_TOKENS)).all(close));
        let forced = Row::new(&[f32::NEG_INFINITY, 1.0]);
        assert_eq!(RecordedRow::of(&forced).restore(2), forced);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let with = |change: fn(&mut Recording)| {
            let mut recording = Recording::reference();
            change(&mut recording);
            recording.check().expect_err("it does not fit").to_string()
        };
        assert!(with(|r| r.vocab_size = 0).contains("`vocab_size` must be 1..="));
        assert!(with(|r| r.rounds[0].rows.truncate(1)).contains("`rounds[0].rows` must be"));
        assert!(with(|r| r.rounds[0].committed.push(1)).contains("`rounds[0].pieces`"));
        let error = with(|r| r.rounds[0].draft[0] = r.vocab_size);
        assert!(error.contains("`rounds[0]` names token"), "{error}");
        assert!(Recording::parse("{}").is_err());
    }
}
