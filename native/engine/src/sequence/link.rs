//! A sequence's way to its draft: what is asked, what comes back, and what waiting for it cost.

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use specula_decoding::branches::Source;
use specula_decoding::{ModelError, TokenId};

use crate::clock::{Clock, micros, overlap};
use crate::draft_worker::{DraftWorker, OnMiss, Proposal, SequenceId, ToDraft, Wanted, gone};
use crate::drafting::{Opening, Overlap, Window};
use crate::event::{Message, MessageKind, Span};
use crate::patience;
use crate::report::Totals;

pub(super) struct DraftLink {
    worker: DraftWorker,
    id: SequenceId,
    proposals: Receiver<Result<Proposal, ModelError>>,
    /// Whether a verdict was sent whose proposal is still to come.
    awaiting: bool,
    /// Committed tokens that the draft was not told of, because nobody asked it anything meanwhile.
    untold: Vec<TokenId>,
    last_pass: Option<(Instant, Instant)>,
    /// What a draft step over one token takes, microseconds; 0 before the first.
    pub(super) step_us: f64,
}

/// What the draft answered.
pub(super) struct Answer {
    pub(super) window: Window,
    /// Whether the window had been rolled out; `None` if no pass went before.
    pub(super) hit: Option<bool>,
    /// After a hit: who had guessed the outcome.
    pub(super) source: Option<Source>,
    /// What it did since it was last asked.
    pub(super) lanes: Vec<Span>,
    /// What was said since then.
    pub(super) messages: Vec<Message>,
}

impl DraftLink {
    pub(super) fn open(worker: DraftWorker, id: SequenceId, opening: Opening) -> Result<Self, ModelError> {
        let (replies, proposals) = sync_channel(1);
        worker.send(ToDraft::Open { id, opening: Box::new(opening), replies })?;
        Ok(Self { worker, id, proposals, awaiting: false, untold: Vec::new(), last_pass: None, step_us: 0.0 })
    }

    /// Takes the window that was rolled out, or asks for one now, and accounts for the wait. `rolls_out`: whether the draft
    /// was to work during the last pass.
    pub(super) fn ask(
        &mut self,
        wanted: Wanted,
        rolls_out: bool,
        (clock, totals): (Clock, &mut Totals),
    ) -> Result<Answer, ModelError> {
        let asked = Instant::now();
        let settled = std::mem::take(&mut self.awaiting);
        if !settled {
            self.tell_all()?;
            self.worker.send(ToDraft::Draft { id: self.id, wanted })?;
        }
        let proposal = patience::receive(&self.proposals, true).map_err(|_| gone())??;
        let came = Instant::now();
        self.step_us = proposal.step_us;
        let exposed = overlap(&proposal.work, asked, came);
        totals.exposed_draft_us += micros(came - asked);
        totals.rendezvous_us += micros((came - asked).saturating_sub(exposed));
        if let Some((from, to)) = self.last_pass {
            let hidden = overlap(&proposal.work, from, to);
            totals.hidden_draft_us += micros(hidden);
            if rolls_out {
                totals.bubble_us += micros((to - from).saturating_sub(hidden));
            }
        }
        totals.draft_steps += proposal.steps;
        totals.branches_expanded += proposal.expanded;
        let mut window = proposal.window;
        window.tokens.truncate(wanted.window);
        window.log_q.truncate(wanted.window);
        if let Some(outcome) = proposal.hit {
            totals.count_hit(outcome.source, window.tokens.len());
        } else if settled {
            totals.misses += 1;
        }
        let lanes = proposal.work.iter().map(|(kind, from, to)| clock.span(*kind, *from, *to)).collect();
        let message = |(kind, sent, taken): &(MessageKind, Instant, Instant)| clock.message(*kind, *sent, *taken);
        let mut messages: Vec<Message> = proposal.messages.iter().map(message).collect();
        messages.push(clock.message(MessageKind::Proposal, proposal.sent, came));
        let (hit, source) = (settled.then_some(proposal.hit.is_some()), proposal.hit.map(|outcome| outcome.source));
        Ok(Answer { window, hit, source, lanes, messages })
    }

    /// The target begins to verify a window; the draft rolls out meanwhile.
    pub(super) fn pass_begins(&self, window: Vec<TokenId>, overlap: Option<Overlap>) -> Result<(), ModelError> {
        self.worker.send(ToDraft::PassBegan { id: self.id, window, overlap })
    }

    /// Hands over the early exit's candidates.
    pub(super) fn exit(&self, rows: Vec<Vec<(TokenId, f32)>>) {
        // A dead draft thread shows at the next proposal.
        let _ = self.worker.send(ToDraft::Exit { id: self.id, rows });
    }

    /// What a round committed, if the draft rolled out for it: it begins to answer at once.
    pub(super) fn settle(
        &mut self,
        committed: Vec<TokenId>,
        next: (Wanted, OnMiss),
        pass: Option<(Instant, Instant)>,
    ) -> Result<(), ModelError> {
        self.last_pass = pass;
        self.awaiting = true;
        self.worker.send(ToDraft::Verdict { id: self.id, committed, next: Some(next) })
    }

    /// What a round committed, if nothing more is wanted of the draft for now: it stops rolling out.
    pub(super) fn dismiss(&mut self, committed: Vec<TokenId>) -> Result<(), ModelError> {
        self.last_pass = None;
        self.worker.send(ToDraft::Verdict { id: self.id, committed, next: None })
    }

    /// What a round committed that the draft had no part in or only drafted for: told when it is next asked.
    pub(super) fn note(&mut self, committed: &[TokenId]) {
        self.last_pass = None;
        self.untold.extend_from_slice(committed);
    }

    fn tell_all(&mut self) -> Result<(), ModelError> {
        if self.untold.is_empty() {
            return Ok(());
        }
        let committed = std::mem::take(&mut self.untold);
        self.worker.send(ToDraft::Verdict { id: self.id, committed, next: None })
    }
}

impl Drop for DraftLink {
    fn drop(&mut self) {
        // A dead draft thread holds nothing that could leak.
        let _ = self.worker.send(ToDraft::Close { id: self.id });
    }
}
