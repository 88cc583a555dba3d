//! One generation on the target's side: its state between rounds, and the round itself.
//!
//! A round: propose → target pass (exit message half-way) → own draws and acceptance → commit → emit. Window 0 is plain
//! decoding through the same code.

mod accept;
mod link;
mod pass;
mod propose;
mod tell;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use specula_decoding::chain::ChainError;
use specula_decoding::model::chain_nodes;
use specula_decoding::{
    Acceptance, Chain, Ends, FinishReason, LanguageModel, LogProbs, ModelError, PolicyError, Recycling, TokenId, lookup,
};
use specula_models::PREFILL_ROWS;
use tokio::sync::mpsc::Sender;

use self::accept::Accepted;
use self::link::DraftLink;
use self::pass::{Passed, row_of};
use self::propose::Proposed;
use crate::admission::Place;
use crate::auto::Choice;
use crate::calibration::ROUND_US;
use crate::clock::{Clock, exact_micros, micros};
use crate::draft_worker::{DraftWorker, SequenceId};
use crate::event::{Event, Failure, Finished, LaneKind, Message, PromptToken, Span, Started};
use crate::learned::Learned;
use crate::plugins::Plugged;
use crate::rates::Rates;
use crate::recorder::Recorder;
use crate::report::{Report, Totals};
use crate::request::{LogProbsSpec, Request};
use crate::settings::{MAX_WINDOW, Method, Settings};

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
    /// As asked for.
    settings: Settings,
    /// In force in this round; never `auto`.
    now: Settings,
    /// With `auto`: how it chooses.
    choice: Option<Choice>,
    /// Prompt and committed text; the last token is not in the target's cache.
    text: Vec<TokenId>,
    prompt_tokens: usize,
    model: Box<dyn LanguageModel>,
    chain: Chain,
    /// Built-in rules for the early exit's rows.
    exit_chain: Chain,
    acceptance: Option<Box<dyn Acceptance>>,
    /// Keeps the acceptance policy from keeping what own draw would not.
    exact_only: bool,
    recorder: Option<Recorder>,
    ends: Ends,
    worker: Option<DraftWorker>,
    draft: Option<DraftLink>,
    /// With `deterministic`: what the target said, of this sequence alone.
    recycling: Option<Recycling>,
    rates: Rates,
    /// Microseconds of the rounds so far.
    rounds_us: f64,
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
    /// Messages told with the latest proposal.
    messages: Vec<Message>,
    last_pass: Option<(Instant, Instant)>,
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

impl Sequence {
    pub(crate) fn new(birth: Birth, learned: &mut Learned) -> Result<Self, Failure> {
        let Birth { id, request, model, ends, draft: worker, channel, row_invariant } = birth;
        let Request { prompt, sampling, settings, mut plugged, logprobs, echo, exact_only, recorder, .. } = request;
        let rules = std::mem::take(&mut plugged.rules);
        let acceptance = plugged.acceptance.take();
        let exit_chain = Chain::new(sampling.slack(), &prompt, Vec::new());
        let chain = Chain::new(sampling.clone(), &prompt, rules).sharing(exit_chain.noise().clone());
        let greedy = sampling.is_greedy();
        let choice = if settings.method == Method::Auto { learned.arms.begin(greedy) } else { None };
        let recycles = settings.deterministic && settings.method == Method::Recycling;
        let report = Report {
            totals: Totals::default(),
            settings,
            chosen: Vec::new(),
            seed: sampling.seed,
            row_invariant,
            prefill_us: 0,
            first_token_us: 0,
            total_us: 0,
            plugins: Vec::new(),
            warnings: Vec::new(),
        };
        let mut sequence = Self {
            id,
            prompt_tokens: prompt.len(),
            exit_chain,
            chain,
            text: prompt,
            settings,
            now: settings,
            choice,
            model,
            acceptance,
            exact_only,
            recorder,
            ends,
            worker,
            draft: None,
            recycling: recycles.then(Recycling::default),
            rates: learned.rates(greedy).begin(),
            rounds_us: 0.0,
            clock: Clock::new(channel.admitted),
            channel,
            full_since: None,
            report,
            plugged,
            logprobs,
            echo: echo.then(Vec::new),
            lanes: Vec::new(),
            messages: Vec::new(),
            last_pass: None,
        };
        sequence.choose(learned);
        // The draft reads the prompt while the target does.
        sequence.open_draft()?;
        Ok(sequence)
    }

    /// Puts the settings of the next round in force.
    fn choose(&mut self, learned: &Learned) {
        if let Some(choice) = &self.choice {
            let chosen = *learned.arms.settings(choice);
            self.now = Settings { window: chosen.window.min(self.settings.window), ..chosen };
        }
    }

    /// Tells the owner that the generation left the queue.
    pub(crate) fn announce(&self) {
        let started = Started { prompt_tokens: self.prompt_tokens, seed: self.report.seed, settings: self.settings };
        // The stream is new and empty; if its owner is gone the first turn notices.
        let _ = self.channel.events.try_send(Event::Started(started));
    }

    /// Does one turn: a piece of the prefill, or a round.
    pub(crate) fn turn(&mut self, learned: &mut Learned) -> Turn {
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
        let done = if self.model.linear() + 1 < self.text.len() { self.prefill() } else { self.round(learned) };
        match done {
            Ok(None) => Turn::Going,
            Ok(Some(reason)) => {
                self.finish(Some(reason));
                Turn::Over(Outcome::Finished)
            }
            Err(trouble) => match self.plugged.failures.end() {
                Some(reason) => {
                    self.finish(Some(reason));
                    Turn::Over(Outcome::Finished)
                }
                None => self.fail(trouble.into()),
            },
        }
    }

    /// Sums over the rounds so far.
    pub(crate) fn totals(&self) -> &Totals {
        &self.report.totals
    }

    pub(crate) fn method(&self) -> Method {
        self.settings.method
    }

    /// Whether the draft is to work during the next pass.
    pub(crate) fn rolls_out(&self) -> bool {
        self.now.method.rolls_out()
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
        self.report.warnings = self.plugged.failures.warnings();
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
        self.lanes.push(self.clock.span(LaneKind::Prefill, begin, Instant::now()));
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

    fn round(&mut self, learned: &mut Learned) -> Result<Option<FinishReason>, Trouble> {
        let began = Instant::now();
        self.tell_prompt();
        if self.ends.remaining() == 0 {
            return Ok(Some(FinishReason::MaxTokens));
        }
        // More draft tokens than may still be committed after them are of no use.
        let window = self.now.window.min(self.ends.remaining().saturating_sub(1));
        let proposed = self.propose(window, learned)?;
        let passed = self.pass(&proposed.tree, learned)?;
        let accepted = self.accept(&proposed, &passed)?;
        self.record(&proposed, &accepted);
        self.commit(&proposed, &passed, &accepted, (began, learned))
    }

    /// Cuts everything back to the verdict, moves all state, tells draft and owner.
    fn commit(
        &mut self,
        proposed: &Proposed,
        passed: &Passed,
        accepted: &Accepted,
        (began, learned): (Instant, &mut Learned),
    ) -> Result<Option<FinishReason>, Trouble> {
        let mut tokens: Vec<TokenId> = accepted.path.iter().map(|node| proposed.tree.token(*node)).collect();
        tokens.push(accepted.next);
        let before = self.text.len();
        let begin = Instant::now();
        let judged = self.ends.judge(&tokens)?;
        self.called_plugins(begin);
        // These tokens stay, even if a plugin fails when it hears of them.
        let mut moved = Ok(());
        tokens.truncate(judged.kept);
        self.learn(proposed, passed, accepted, learned)?;
        self.text.extend_from_slice(&tokens);
        if judged.reason.is_none() {
            let slots: Vec<usize> = accepted.path.iter().map(|node| before + node).collect();
            self.model.keep(before, &slots)?;
            if self.model.linear() + 1 != self.text.len() {
                return Err(ModelError("the target's cache does not hold the committed text".into()).into());
            }
            let begin = Instant::now();
            moved = self.move_rules(&tokens);
            self.called_plugins(begin);
        }
        self.last_pass = Some((passed.began, Instant::now()));
        // First, while the choice is still that of this round, which is not to count twice.
        self.imagine_look_up(before, learned);
        self.keep_pace(tokens.len(), exact_micros(began.elapsed()), learned);
        let method = self.now.method;
        self.choose(learned);
        if judged.reason.is_none() && moved.is_ok() {
            self.tell_draft(&tokens, method.rolls_out(), learned)?;
        }
        self.count(proposed, passed, accepted, judged.kept);
        let read = self.read_logprobs(&tokens, passed, accepted, judged.reason.as_ref())?;
        let event = self.round_event((proposed, method), passed, accepted, (tokens, judged.pieces, read));
        if let Some(recorder) = &mut self.recorder {
            recorder.committed(&event.tokens);
        }
        // A turn begins only with room for this.
        let _ = self.channel.events.try_send(Event::Round(event));
        moved?;
        Ok(judged.reason)
    }

    /// Tells rules and acceptance policy what was committed.
    fn move_rules(&mut self, tokens: &[TokenId]) -> Result<(), PolicyError> {
        self.chain.commit(tokens)?;
        self.exit_chain.commit(tokens)?;
        self.acceptance.as_mut().map_or(Ok(()), |policy| policy.commit(tokens))
    }

    /// Takes in what the round told of costs and guesses.
    fn learn(
        &mut self,
        proposed: &Proposed,
        passed: &Passed,
        accepted: &Accepted,
        learned: &mut Learned,
    ) -> Result<(), ModelError> {
        let rows = passed.rows.count();
        let took = exact_micros(passed.ended - passed.began);
        learned.costs(self.rolls_out(), passed.exit.is_some()).learn(rows, took);
        for rates in [&mut self.rates, learned.rates(self.chain.sampling().is_greedy())] {
            rates.learn(proposed.guesser, &proposed.tree, accepted.path.len());
        }
        let recycling = self.recycling.as_mut().unwrap_or(&mut learned.recycling);
        let last = self.text[self.text.len() - 1];
        let token = |node: Option<usize>| node.map_or(last, |node| proposed.tree.token(node));
        let mut read = |node| {
            match passed.rows.known(row_of(node)) {
                Some(known) => recycling.learn_best(token(node), known.top.clone()),
                None => recycling.learn(token(node), passed.rows.row(row_of(node))?),
            }
            Ok(())
        };
        match self.now.method {
            // All that the target read, as in the paper.
            Method::Recycling => std::iter::once(None).chain((0..proposed.tree.len()).map(Some)).try_for_each(read),
            // What misses may fall back on.
            Method::Ssd | Method::Mirror => read(accepted.path.last().copied()),
            _ => Ok(()),
        }
    }

    /// Takes in how long the round took.
    fn keep_pace(&mut self, tokens: usize, us: f64, learned: &mut Learned) {
        self.rounds_us += us;
        let Some(choice) = &mut self.choice else {
            return learned.arms.hear(&self.settings, self.chain.sampling().is_greedy(), tokens, us);
        };
        let method = self.now.method;
        match self.report.chosen.iter_mut().find(|(known, _)| *known == method) {
            Some((_, rounds)) => *rounds += 1,
            None => self.report.chosen.push((method, 1)),
        }
        learned.arms.learn(choice, tokens, us);
    }

    /// Look-up costs next to nothing to try, and whether it serves depends on the text: what it would have brought in the
    /// round that committed all from `before` on is known without a round of its own.
    fn imagine_look_up(&mut self, before: usize, learned: &Learned) {
        let Some(choice) = &mut self.choice else { return };
        let (known, committed) = self.text.split_at(before);
        let guessed = lookup::propose(known, MAX_WINDOW);
        let right = guessed.iter().zip(committed).take_while(|(guess, token)| guess == token).count();
        learned.arms.imagine(choice, |settings| {
            if settings.method != Method::Lookup {
                return None;
            }
            let us = learned.alone_us(settings.window.min(guessed.len()) + 1)?;
            // Behind what is right comes the target's own token.
            Some((right.min(settings.window) + 1, us + ROUND_US))
        });
    }

    /// Tokens that the sequence commits in a microsecond; 0 before its first round.
    fn rate(&self) -> f64 {
        if self.rounds_us > 0.0 { (self.text.len() - self.prompt_tokens) as f64 / self.rounds_us } else { 0.0 }
    }
}
