//! What a round did, counted and told.

use std::time::Instant;

use specula_decoding::{FinishReason, LogProbs, ModelError, Next, TokenId};

use super::Sequence;
use super::accept::Accepted;
use super::pass::{Passed, row_of};
use super::propose::Proposed;
use crate::clock::micros;
use crate::event::{LaneKind, Origin, Round, Token};
use crate::settings::Method;

impl Sequence {
    /// Log-probabilities of the committed tokens, if asked for; none for the end token.
    pub(super) fn read_logprobs(
        &self,
        tokens: &[TokenId],
        passed: &Passed,
        accepted: &Accepted,
        reason: Option<&FinishReason>,
    ) -> Result<Vec<Option<LogProbs>>, ModelError> {
        let shown = tokens.len() - usize::from(reason == Some(&FinishReason::EndToken));
        let read = |(i, &token): (usize, &TokenId)| {
            let Some(asked) = self.logprobs.filter(|_| i < shown) else { return Ok(None) };
            let raw = || passed.rows.row(row_of(i.checked_sub(1).map(|before| accepted.path[before])));
            let row = if asked.processed { accepted.rows[i].logits() } else { raw()? };
            Ok(Some(LogProbs::of(row, token, asked.top as usize)))
        };
        tokens.iter().enumerate().map(read).collect()
    }

    pub(super) fn count(&mut self, proposed: &Proposed, passed: &Passed, accepted: &Accepted, kept: usize) {
        let first_token_us = self.clock.at(Instant::now());
        if self.report.totals.rounds == 0 {
            self.report.first_token_us = first_token_us;
        }
        let totals = &mut self.report.totals;
        totals.rounds += 1;
        totals.committed += kept as u64;
        // What the end cut off was not accepted.
        totals.count_draft(&proposed.tree, accepted.path.len().min(kept));
        totals.deviations += accepted.deviations.iter().filter(|place| **place < kept).count() as u64;
        let (prefix_end, suffix_begin) = passed.exited.unwrap_or((passed.began, passed.began));
        totals.target_prefix_us += micros(prefix_end - passed.began);
        totals.exit_us += micros(suffix_begin - prefix_end);
        totals.target_suffix_us += micros(passed.ended - suffix_begin);
        totals.accept_us += micros(passed.ended.elapsed());
        if let Some(exit) = &passed.exit {
            totals.exits += 1;
            let row = exit.get(accepted.path.len());
            totals.covered += u64::from(row.is_some_and(|r| r.iter().any(|c| c.0 == accepted.next)));
        }
    }

    pub(super) fn round_event(
        &mut self,
        (proposed, method): (&Proposed, Method),
        passed: &Passed,
        accepted: &Accepted,
        (tokens, pieces, logprobs): (Vec<TokenId>, Vec<String>, Vec<Option<LogProbs>>),
    ) -> Round {
        let origin = |i: usize| match accepted.kind {
            _ if i < accepted.path.len() => proposed.origin,
            _ if method == Method::None => Origin::Plain,
            Next::Correction => Origin::Correction,
            Next::Bonus => Origin::Bonus,
        };
        let told = tokens.into_iter().zip(pieces).zip(logprobs).enumerate();
        let tokens: Vec<Token> =
            told.map(|(i, ((id, text), logprobs))| Token { id, text, origin: origin(i), logprobs }).collect();
        let mut lanes = std::mem::take(&mut self.lanes);
        let mut suffix_begin = passed.began;
        if let Some((from, to)) = passed.exited {
            lanes.push(self.clock.span(LaneKind::TargetPrefix, passed.began, from));
            lanes.push(self.clock.span(LaneKind::Exit, from, to));
            suffix_begin = to;
        }
        lanes.push(self.clock.span(LaneKind::TargetSuffix, suffix_begin, passed.ended));
        lanes.push(self.clock.span(LaneKind::Accept, passed.ended, Instant::now()));
        Round {
            window: proposed.tree.len(),
            accepted: accepted.path.len().min(tokens.len()),
            tokens,
            hit: proposed.hit,
            source: proposed.source,
            lanes,
            messages: std::mem::take(&mut self.messages),
        }
    }
}
