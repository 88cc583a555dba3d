//! One generation on the target's side: its state between rounds, and the round itself.
//!
//! A round: propose → target pass (exit message half-way) → own draws and acceptance → commit → emit. Window 0 is plain
//! decoding through the same code.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use specula_decoding::chain::ChainError;
use specula_decoding::model::chain_nodes;
use specula_decoding::verify::verify;
use specula_decoding::{
    Acceptance, Chain, Ends, FinishReason, LanguageModel, LogProbs, Logits, ModelError, Next, PolicyError, Row,
    TokenId, TokenTree, WindowStats, lookup,
};
use specula_models::PREFILL_ROWS;
use tokio::sync::mpsc::Sender;

use crate::admission::Place;
use crate::clock::{Clock, micros, overlap};
use crate::draft_worker::{DraftWorker, Opening, Proposal, SequenceId, ToDraft, gone};
use crate::drafting::Window;
use crate::event::{Event, Failure, Finished, LaneKind, Origin, PromptToken, Round, Span, Started, Token};
use crate::plugins::Plugged;
use crate::report::{Report, Totals, Warning};
use crate::request::{LogProbsSpec, Request};
use crate::settings::{Method, Roots, Settings};

/// Longest a full event stream is waited for before its generation fails.
pub(crate) const SLOW_READER: Duration = Duration::from_secs(30);

/// What became of a turn.
pub(crate) enum Turn {
    /// There is more to do.
    Going,
    /// The reader is slow: nothing was done.
    Parked,
    /// The generation is over and has said so.
    Over(Outcome),
}

/// How a generation ended, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Finished,
    Cancelled,
    Failed,
}

/// What a new generation needs besides its request.
pub(crate) struct Birth {
    pub(crate) id: SequenceId,
    pub(crate) request: Request,
    pub(crate) model: Box<dyn LanguageModel>,
    pub(crate) ends: Ends,
    pub(crate) draft: Option<DraftWorker>,
    pub(crate) channel: Channel,
    pub(crate) row_invariant: bool,
}

/// The way to the generation's owner.
pub(crate) struct Channel {
    pub(crate) events: Sender<Event>,
    pub(crate) cancelled: Arc<AtomicBool>,
    pub(crate) admitted: Instant,
    /// Freed when the generation is dropped.
    pub(crate) _place: Place,
}

pub(crate) struct Sequence {
    id: SequenceId,
    settings: Settings,
    /// Prompt and committed text; the last token is not in the target's cache.
    text: Vec<TokenId>,
    prompt_tokens: usize,
    model: Box<dyn LanguageModel>,
    chain: Chain,
    /// Built-in rules for the early exit's rows.
    exit_chain: Chain,
    acceptance: Option<Box<dyn Acceptance>>,
    ends: Ends,
    draft: Option<DraftLink>,
    channel: Channel,
    clock: Clock,
    full_since: Option<Instant>,
    report: Report,
    plugged: Plugged,
    logprobs: Option<LogProbsSpec>,
    /// The prompt's tokens, as far as they are prefilled, until they are told; `None` if nobody asked.
    echo: Option<Vec<PromptToken>>,
    /// The draft's work told with the latest proposal, for the lanes of the next event.
    lanes: Vec<Span>,
    last_pass: Option<(Instant, Instant)>,
}

struct DraftLink {
    worker: DraftWorker,
    id: SequenceId,
    proposals: Receiver<Result<Proposal, ModelError>>,
    /// Whether a verdict was sent whose proposal is still to come.
    awaiting: bool,
}

/// A window with its origin.
struct Proposed {
    window: Window,
    origin: Origin,
    hit: Option<bool>,
}

/// Why a round could not be finished.
enum Trouble {
    Model(ModelError),
    Chain(ChainError),
}

impl From<ModelError> for Trouble {
    fn from(error: ModelError) -> Self {
        Self::Model(error)
    }
}

impl From<ChainError> for Trouble {
    fn from(error: ChainError) -> Self {
        Self::Chain(error)
    }
}

impl From<PolicyError> for Trouble {
    fn from(error: PolicyError) -> Self {
        Self::Chain(error.into())
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Model(error) => Self::Engine(error.to_string()),
            Trouble::Chain(error) => {
                let code = match &error {
                    ChainError::EmptySupport { .. } => "empty_support".to_owned(),
                    ChainError::Policy(policy) => policy.code.clone(),
                };
                Self::Request { code, message: error.to_string() }
            }
        }
    }
}

/// The rows of a pass and when its parts ran.
struct Passed {
    rows: Logits,
    /// Candidates of the early exit's rows, if it looked.
    exit: Option<Vec<Vec<(TokenId, f32)>>>,
    began: Instant,
    /// When the exit began and was sent.
    exited: Option<(Instant, Instant)>,
    ended: Instant,
}

/// What acceptance decided.
struct Accepted {
    /// Draft tokens kept.
    accepted: usize,
    next: TokenId,
    kind: Next,
    /// Places in the window whose token was kept although the target's own draw differed.
    deviations: Vec<usize>,
    /// Rows after the sampling rules, at least those of the kept tokens and the next.
    rows: Vec<Row>,
}

impl Sequence {
    pub(crate) fn new(birth: Birth) -> Result<Self, ModelError> {
        let Birth { id, request, model, ends, draft, channel, row_invariant } = birth;
        let Request { prompt, sampling, settings, mut plugged, logprobs, echo, .. } = request;
        let rules = std::mem::take(&mut plugged.rules);
        let acceptance = plugged.acceptance.take();
        let exit_chain = Chain::new(sampling.slack(), &prompt, Vec::new());
        let chain = Chain::new(sampling.clone(), &prompt, rules).sharing(exit_chain.noise().clone());
        let draft = match draft {
            Some(worker) if settings.method.needs_draft() => {
                let (replies, proposals) = sync_channel(1);
                let opening = Opening {
                    prompt: prompt.clone(),
                    sampling: sampling.clone(),
                    settings: settings.clone(),
                    noise: chain.noise().clone(),
                    wants_q: acceptance.is_some(),
                    replies,
                };
                worker.send(ToDraft::Open { id, opening: Box::new(opening) })?;
                Some(DraftLink { worker, id, proposals, awaiting: false })
            }
            _ => None,
        };
        let report = Report {
            totals: Totals::default(),
            settings: settings.clone(),
            seed: sampling.seed,
            row_invariant,
            prefill_us: 0,
            first_token_us: 0,
            total_us: 0,
            plugins: Vec::new(),
            warnings: Vec::new(),
        };
        Ok(Self {
            id,
            prompt_tokens: prompt.len(),
            exit_chain,
            chain,
            text: prompt,
            settings,
            model,
            acceptance,
            ends,
            draft,
            clock: Clock::new(channel.admitted),
            channel,
            full_since: None,
            report,
            plugged,
            logprobs,
            echo: echo.then(Vec::new),
            lanes: Vec::new(),
            last_pass: None,
        })
    }

    /// Tells the owner that the generation left the queue.
    pub(crate) fn announce(&self) {
        let started =
            Started { prompt_tokens: self.prompt_tokens, seed: self.report.seed, settings: self.settings.clone() };
        // The stream is new and empty; if its owner is gone the first turn notices.
        let _ = self.channel.events.try_send(Event::Started(started));
    }

    /// Does one turn: a piece of the prefill, or a round.
    pub(crate) fn turn(&mut self) -> Turn {
        if self.channel.events.is_closed() {
            return Turn::Over(Outcome::Cancelled);
        }
        // Three places: for the prompt, for the round and for what ends the stream.
        if self.channel.events.capacity() < 3 {
            return self.wait_for_reader();
        }
        self.full_since = None;
        if self.channel.cancelled.load(Ordering::Relaxed) {
            self.finish(None);
            return Turn::Over(Outcome::Cancelled);
        }
        let done = if self.model.linear() + 1 < self.text.len() { self.prefill() } else { self.round() };
        match done {
            Ok(None) => Turn::Going,
            Ok(Some(reason)) => {
                self.finish(Some(reason));
                Turn::Over(Outcome::Finished)
            }
            Err(trouble) => self.fail(trouble.into()),
        }
    }

    /// Sums over the rounds so far.
    pub(crate) fn totals(&self) -> &Totals {
        &self.report.totals
    }

    pub(crate) fn method(&self) -> Method {
        self.settings.method
    }

    pub(crate) fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    pub(crate) fn plugged(&self) -> &Plugged {
        &self.plugged
    }

    /// Ends the generation after a panic in its turn.
    pub(crate) fn break_off(&mut self) -> Turn {
        self.fail(Failure::Engine("a defect in the engine ended this generation; please report it".into()))
    }

    fn wait_for_reader(&mut self) -> Turn {
        let since = *self.full_since.get_or_insert_with(Instant::now);
        if since.elapsed() < SLOW_READER {
            return Turn::Parked;
        }
        self.fail(Failure::SlowReader { seconds: SLOW_READER.as_secs() })
    }

    fn fail(&self, failure: Failure) -> Turn {
        // If even the last place is taken, the owner sees the stream end without `Finished`.
        let _ = self.channel.events.try_send(Event::Failed(failure));
        Turn::Over(Outcome::Failed)
    }

    fn finish(&mut self, reason: Option<FinishReason>) {
        self.report.total_us = self.clock.at(Instant::now());
        self.report.plugins = self.plugged.costs();
        let finished = Finished {
            reason,
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.ends.committed(),
            report: self.report.clone(),
        };
        let _ = self.channel.events.try_send(Event::Finished(Box::new(finished)));
    }

    fn prefill(&mut self) -> Result<Option<FinishReason>, Trouble> {
        let from = self.model.linear();
        let to = (from + PREFILL_ROWS).min(self.text.len() - 1);
        let begin = Instant::now();
        match (&mut self.echo, self.logprobs) {
            (Some(told), Some(asked)) => {
                let rows = self.model.forward(&chain_nodes(&self.text[from..to], from), None)?;
                self.model.keep(to, &[])?;
                let read = |i: usize| LogProbs::of(rows.row(i), self.text[from + i + 1], asked.top as usize);
                told.extend(
                    (0..rows.rows()).map(|i| PromptToken { id: self.text[from + i + 1], logprobs: Some(read(i)) }),
                );
            }
            _ => self.model.prefill(&self.text[from..to])?,
        }
        self.report.prefill_us += micros(begin.elapsed());
        Ok(None)
    }

    /// Tells the prompt's tokens, all of which are prefilled now or need no row.
    fn tell_prompt(&mut self) {
        let Some(read) = self.echo.take() else { return };
        let prompt = &self.text[..self.prompt_tokens];
        // Without log-probabilities nothing was read; with them all but the first token was.
        let unread = &prompt[..prompt.len() - read.len()];
        let unread = unread.iter().map(|&id| PromptToken { id, logprobs: None });
        let tokens = unread.chain(read).collect();
        // A turn begins only with room for this.
        let _ = self.channel.events.try_send(Event::Prompt(tokens));
    }

    fn round(&mut self) -> Result<Option<FinishReason>, Trouble> {
        self.tell_prompt();
        if self.ends.remaining() == 0 {
            return Ok(Some(FinishReason::MaxTokens));
        }
        // More draft tokens than may still be committed after them are of no use.
        let window = self.settings.window.min(self.ends.remaining().saturating_sub(1));
        let proposed = self.propose(window)?;
        let passed = self.pass(&proposed.window.tokens)?;
        let accepted = self.accept(&proposed.window, &passed.rows)?;
        let reason = self.commit(&proposed, &passed, &accepted)?;
        self.last_pass = Some((passed.began, Instant::now()));
        Ok(reason)
    }

    fn propose(&mut self, len: usize) -> Result<Proposed, Trouble> {
        let lookup = |text: &[TokenId]| Window { tokens: lookup::propose(text, len).to_vec(), log_q: Vec::new() };
        let (window, origin, hit) = match self.settings.method {
            Method::None => (Window::default(), Origin::Plain, None),
            Method::Lookup => (lookup(&self.text), Origin::Draft, None),
            Method::Sps | Method::Mirror => self.ask_draft(len)?,
        };
        Ok(Proposed { window, origin, hit })
    }

    /// Takes the window that the draft rolled out or drafts now, and accounts for the wait.
    fn ask_draft(&mut self, len: usize) -> Result<(Window, Origin, Option<bool>), Trouble> {
        let Some(link) = &mut self.draft else { return Err(gone().into()) };
        let asked = Instant::now();
        let settled = std::mem::take(&mut link.awaiting);
        if !settled {
            link.worker.send(ToDraft::Draft { id: link.id, window: len })?;
        }
        let proposal = link.proposals.recv().map_err(|_| gone())??;
        let came = Instant::now();
        let totals = &mut self.report.totals;
        let exposed = overlap(&proposal.work, asked, came);
        totals.exposed_draft_us += micros(came - asked);
        totals.rendezvous_us += micros((came - asked).saturating_sub(exposed));
        if let Some((from, to)) = self.last_pass {
            let hidden = overlap(&proposal.work, from, to);
            totals.hidden_draft_us += micros(hidden);
            if self.settings.method == Method::Mirror {
                totals.bubble_us += micros((to - from).saturating_sub(hidden));
            }
        }
        totals.draft_steps += proposal.steps;
        totals.branches_expanded += proposal.expanded;
        let clock = self.clock;
        self.lanes.extend(proposal.work.iter().map(|(kind, from, to)| clock.span(*kind, *from, *to)));
        let mut window = proposal.window;
        window.tokens.truncate(len);
        window.log_q.truncate(len);
        let hit = settled.then_some(proposal.hit.is_some());
        if let Some(outcome) = proposal.hit {
            totals.hits += 1;
            totals.branches_used += 1;
            match outcome.source {
                specula_decoding::branches::Source::Draft => totals.hits_from_draft += 1,
                specula_decoding::branches::Source::Exit => totals.hits_from_exit += 1,
            }
            let depth = window.tokens.len();
            if totals.hits_by_depth.len() <= depth {
                totals.hits_by_depth.resize(depth + 1, 0);
            }
            totals.hits_by_depth[depth] += 1;
        } else if settled {
            totals.misses += 1;
        }
        let origin = if proposal.hit.is_some() { Origin::Mirror } else { Origin::Draft };
        Ok((window, origin, hit))
    }

    /// One pass of the target over the last committed token and the window, with the exit message half-way.
    fn pass(&mut self, window: &[TokenId]) -> Result<Passed, Trouble> {
        let mut fed = vec![self.text[self.text.len() - 1]];
        fed.extend_from_slice(window);
        let nodes = chain_nodes(&fed, self.model.linear());
        let mirrors = self.settings.method == Method::Mirror && !window.is_empty();
        let began = Instant::now();
        if let Some(link) = self.draft.as_ref().filter(|_| mirrors) {
            link.worker.send(ToDraft::PassBegan { id: link.id, window: window.len() })?;
        }
        if !mirrors || self.settings.roots == Roots::Draft {
            let rows = self.model.forward(&nodes, None)?;
            return Ok(Passed { rows, exit: None, began, exited: None, ended: Instant::now() });
        }
        let (chain, link, top) = (&mut self.exit_chain, &self.draft, self.settings.exit_top);
        let mut exit = None;
        let mut exited = None;
        let mut on_exit = |rows: Logits| {
            let begin = Instant::now();
            let ranked = rank_exit(chain, window, &rows, top);
            if let Some(link) = link {
                // A dead draft thread shows at the next proposal.
                let _ = link.worker.send(ToDraft::Exit { id: link.id, rows: ranked.clone() });
            }
            exit = Some(ranked);
            exited = Some((begin, Instant::now()));
        };
        let rows = self.model.forward(&nodes, Some((self.settings.exit_layer, &mut on_exit)))?;
        Ok(Passed { rows, exit, began, exited, ended: Instant::now() })
    }

    /// The target's own draws over the rows, and what the acceptance policy makes of them.
    fn accept(&mut self, window: &Window, rows: &Logits) -> Result<Accepted, Trouble> {
        let tokens = &window.tokens;
        if self.acceptance.is_none() && !self.chain.has_plugins() {
            let tree = TokenTree::chain(tokens);
            let chain = &mut self.chain;
            let mut processed = Vec::new();
            let verdict = verify(&tree, |node| -> Result<TokenId, Trouble> {
                let depth = node.map_or(0, |n| n + 1);
                let mut row = Row::new(rows.row(depth));
                chain.process(&tokens[..depth], depth, &mut [&mut row])?;
                let drawn = chain.draw(&row, depth)?;
                processed.push(row);
                Ok(drawn)
            })?;
            return Ok(Accepted {
                accepted: verdict.path.len(),
                next: verdict.next,
                kind: verdict.kind,
                deviations: Vec::new(),
                rows: processed,
            });
        }
        // Plugins see the whole window in one call.
        let mut processed: Vec<Row> = (0..=tokens.len()).map(|i| Row::new(rows.row(i))).collect();
        let mut refs: Vec<&mut Row> = processed.iter_mut().collect();
        self.chain.process(tokens, 0, &mut refs)?;
        let chain = &self.chain;
        let own = verify(&TokenTree::chain(tokens), |node| {
            let depth = node.map_or(0, |n| n + 1);
            chain.draw(&processed[depth], depth)
        })?;
        let own_accepted = own.path.len();
        let accepted = match self.acceptance.take() {
            None => own_accepted,
            Some(mut policy) => {
                let judged = self.judge(&mut *policy, window, &processed, own_accepted);
                self.acceptance = Some(policy);
                judged?
            }
        };
        if accepted == own_accepted {
            return Ok(Accepted { accepted, next: own.next, kind: own.kind, deviations: Vec::new(), rows: processed });
        }
        let next = self.chain.draw(&processed[accepted], accepted)?;
        let mut deviations = Vec::new();
        for (i, token) in tokens.iter().enumerate().take(accepted).skip(own_accepted) {
            if self.chain.draw(&processed[i], i)? != *token {
                deviations.push(i);
            }
        }
        let kind = if accepted == tokens.len() { Next::Bonus } else { Next::Correction };
        Ok(Accepted { accepted, next, kind, deviations, rows: processed })
    }

    /// Asks the acceptance policy; its failure means own draw for this round, and a warning.
    fn judge(
        &mut self,
        policy: &mut dyn Acceptance,
        window: &Window,
        rows: &[Row],
        own_accepted: usize,
    ) -> Result<usize, Trouble> {
        if window.tokens.is_empty() {
            return Ok(0);
        }
        let mut stats =
            WindowStats { position: self.text.len() as u32, log_q: window.log_q.clone(), ..Default::default() };
        for (i, token) in window.tokens.iter().enumerate() {
            // Beyond the first mismatch a row may have lost its support: own draw never gets there.
            let drawn = match self.chain.draw(&rows[i], i) {
                Ok(drawn) => drawn,
                Err(_) if i > own_accepted => break,
                Err(error) => return Err(error.into()),
            };
            stats.push(&rows[i], *token, drawn);
        }
        stats.log_q.truncate(stats.draft.len());
        match policy.judge(&stats) {
            Ok(accepted) => Ok(accepted.min(stats.draft.len())),
            Err(error) => {
                self.warn(error);
                Ok(own_accepted)
            }
        }
    }

    fn warn(&mut self, error: PolicyError) {
        match self.report.warnings.iter_mut().find(|w| w.code == error.code) {
            Some(warning) => warning.count += 1,
            None => self.report.warnings.push(Warning { message: error.to_string(), code: error.code, count: 1 }),
        }
    }

    /// Cuts everything back to the verdict, moves all state, tells draft and owner.
    fn commit(
        &mut self,
        proposed: &Proposed,
        passed: &Passed,
        accepted: &Accepted,
    ) -> Result<Option<FinishReason>, Trouble> {
        let window = &proposed.window.tokens;
        let mut tokens = window[..accepted.accepted].to_vec();
        tokens.push(accepted.next);
        let before = self.text.len();
        let judged = self.ends.judge(&tokens)?;
        tokens.truncate(judged.kept);
        self.text.extend_from_slice(&tokens);
        if judged.reason.is_none() {
            self.model.keep(before + accepted.accepted, &[])?;
            if self.model.linear() + 1 != self.text.len() {
                return Err(ModelError("the target's cache does not hold the committed text".into()).into());
            }
            self.chain.commit(&tokens)?;
            self.exit_chain.commit(&tokens)?;
            if let Some(Err(error)) = self.acceptance.as_mut().map(|policy| policy.commit(&tokens)) {
                self.warn(error);
            }
            self.tell_draft(accepted)?;
        }
        self.count(proposed, passed, accepted, judged.kept);
        let read = self.read_logprobs(&tokens, passed, accepted, judged.reason.as_ref());
        let event = self.round_event(proposed, passed, accepted, (tokens, judged.pieces, read));
        // A turn begins only with room for this.
        let _ = self.channel.events.try_send(Event::Round(event));
        Ok(judged.reason)
    }

    /// Log-probabilities of the committed tokens, if asked for; none for the end token.
    fn read_logprobs(
        &self,
        tokens: &[TokenId],
        passed: &Passed,
        accepted: &Accepted,
        reason: Option<&FinishReason>,
    ) -> Vec<Option<LogProbs>> {
        let shown = tokens.len() - usize::from(reason == Some(&FinishReason::EndToken));
        let read = |(i, &token): (usize, &TokenId)| {
            let asked = self.logprobs.filter(|_| i < shown)?;
            let row = if asked.processed { accepted.rows[i].logits() } else { passed.rows.row(i) };
            Some(LogProbs::of(row, token, asked.top as usize))
        };
        tokens.iter().enumerate().map(read).collect()
    }

    fn tell_draft(&mut self, accepted: &Accepted) -> Result<(), Trouble> {
        let len = self.settings.window.min(self.ends.remaining().saturating_sub(1));
        let mirrors = self.settings.method == Method::Mirror;
        if let Some(link) = &mut self.draft {
            let window = mirrors.then_some(len);
            let (accepted, next) = (accepted.accepted, accepted.next);
            link.worker.send(ToDraft::Verdict { id: link.id, accepted, next, window })?;
            link.awaiting = mirrors;
        }
        Ok(())
    }

    fn count(&mut self, proposed: &Proposed, passed: &Passed, accepted: &Accepted, kept: usize) {
        let first_token_us = self.clock.at(Instant::now());
        if self.report.totals.rounds == 0 {
            self.report.first_token_us = first_token_us;
        }
        let totals = &mut self.report.totals;
        totals.rounds += 1;
        totals.committed += kept as u64;
        // What the end cut off was not accepted.
        totals.count_window(proposed.window.tokens.len(), accepted.accepted.min(kept));
        totals.deviations += accepted.deviations.iter().filter(|place| **place < kept).count() as u64;
        let (prefix_end, suffix_begin) = passed.exited.unwrap_or((passed.began, passed.began));
        totals.target_prefix_us += micros(prefix_end - passed.began);
        totals.exit_us += micros(suffix_begin - prefix_end);
        totals.target_suffix_us += micros(passed.ended - suffix_begin);
        totals.accept_us += micros(passed.ended.elapsed());
        if let Some(exit) = &passed.exit {
            totals.exits += 1;
            let row = exit.get(accepted.accepted);
            totals.covered += u64::from(row.is_some_and(|r| r.iter().any(|c| c.0 == accepted.next)));
        }
    }

    fn round_event(
        &mut self,
        proposed: &Proposed,
        passed: &Passed,
        accepted: &Accepted,
        (tokens, pieces, logprobs): (Vec<TokenId>, Vec<String>, Vec<Option<LogProbs>>),
    ) -> Round {
        let origin = |i: usize| match accepted.kind {
            _ if i < accepted.accepted => proposed.origin,
            _ if self.settings.method == Method::None => Origin::Plain,
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
            window: proposed.window.tokens.len(),
            accepted: accepted.accepted.min(tokens.len()),
            tokens,
            hit: proposed.hit,
            lanes,
        }
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        if let Some(link) = &self.draft {
            // A dead draft thread holds nothing that could leak.
            let _ = link.worker.send(ToDraft::Close { id: self.id });
        }
    }
}

/// The exit's candidates of every row, ranked with the noise that the target will draw with.
fn rank_exit(chain: &mut Chain, window: &[TokenId], rows: &Logits, top: usize) -> Vec<Vec<(TokenId, f32)>> {
    (0..rows.rows())
        .map(|depth| {
            let mut row = Row::new(rows.row(depth));
            // No plugin sits in the exit's chain.
            let _ = chain.process(&window[..depth], depth, &mut [&mut row]);
            // One more than asked for: for j < γ the draft token is not an outcome.
            chain.ranked(&row, depth, top + 1)
        })
        .collect()
}
