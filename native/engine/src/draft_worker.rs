//! The thread that owns the draft model. It drafts when asked, rolls out branches while a target pass runs, and looks for
//! messages between any two draft steps, so that a verdict cancels what it made useless within one step.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Instant;

use specula_decoding::branches::Outcome;
use specula_decoding::{LanguageModel, ModelError, TokenId};
use specula_models::ModelThread;

use crate::by_rows::ByRows;
use crate::calibration::draft_costs;
use crate::clock::exact_micros;
use crate::drafting::{DraftSequence, Opening, Overlap, Stopwatch, Window};
use crate::event::{LaneKind, MessageKind};
use crate::patience;
use crate::settings::Settings;
use crate::trusts::Trusts;
use crate::worth::Worth;

/// Makes the model of a new sequence.
pub type ModelFactory = Arc<dyn Fn() -> Result<Box<dyn LanguageModel>, ModelError> + Send + Sync>;

/// Names a sequence between the two threads.
pub(crate) type SequenceId = u64;

/// Messages in flight to the draft's thread; a round sends at most four.
const QUEUE: usize = 256;

pub(crate) enum ToDraft {
    /// Time the model's steps and tell; before the first sequence.
    Measure(SyncSender<Result<ByRows, ModelError>>),
    /// Answer at once.
    Ping(SyncSender<()>),
    /// Prefill a new sequence.
    Open { id: SequenceId, opening: Box<Opening>, replies: SyncSender<Result<Proposal, ModelError>> },
    /// Draft serially and reply.
    Draft { id: SequenceId, wanted: Wanted },
    /// The target began to verify a window.
    PassBegan { id: SequenceId, window: Vec<TokenId>, overlap: Option<Overlap> },
    /// The early exit's candidates of every row.
    Exit { id: SequenceId, rows: Vec<Vec<(TokenId, f32)>> },
    /// What a round committed. With `next`, reply with the next window if it was rolled out, else as `on_miss` says.
    Verdict { id: SequenceId, committed: Vec<TokenId>, next: Option<(Wanted, OnMiss)> },
    /// The sequence ended.
    Close { id: SequenceId },
}

impl ToDraft {
    /// Whom it is about and what it says, if the sequence's owner is told of it.
    fn told(&self) -> Option<(SequenceId, MessageKind)> {
        match self {
            Self::Measure(_) | Self::Ping(_) | Self::Open { .. } | Self::Close { .. } => None,
            Self::Draft { id, .. } => Some((*id, MessageKind::Ask)),
            Self::PassBegan { id, .. } => Some((*id, MessageKind::PassBegan)),
            Self::Exit { id, .. } => Some((*id, MessageKind::Exit)),
            Self::Verdict { id, .. } => Some((*id, MessageKind::Verdict)),
        }
    }
}

/// A window that is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// Most tokens.
    pub(crate) window: usize,
    /// Which of them are worth drafting serially.
    pub(crate) worth: Worth,
    /// In force from now on: method `auto` changes them.
    pub(crate) settings: Settings,
}

/// What becomes of a round whose outcome was not rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnMiss {
    /// Draft serially.
    Draft,
    /// Say so at once: the target has something better.
    Tell,
}

/// The next window and what it took.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) window: Window,
    /// The outcome whose branch became the window; `None` if it was drafted serially.
    pub(crate) hit: Option<Outcome>,
    /// Passes of the draft model since the last proposal.
    pub(crate) steps: u64,
    /// Branches begun during the last pass.
    pub(crate) expanded: u64,
    /// What a step over one token takes, microseconds.
    pub(crate) step_us: f64,
    /// What the draft did since the last proposal.
    pub(crate) work: Vec<(LaneKind, Instant, Instant)>,
    /// Messages since the last proposal: when they were sent, when they were taken up.
    pub(crate) messages: Vec<(MessageKind, Instant, Instant)>,
    /// When this was sent.
    pub(crate) sent: Instant,
}

/// The sending end of the draft's thread.
#[derive(Clone)]
pub(crate) struct DraftWorker {
    /// Messages with the times they were sent at.
    sender: SyncSender<(Instant, ToDraft)>,
}

impl DraftWorker {
    /// `lent`: whether others work on the draft's core while nothing is rolled out.
    pub(crate) fn spawn(factory: ModelFactory, core: Option<usize>, lent: bool) -> Result<(Self, ModelThread), String> {
        let (sender, receiver) = sync_channel(QUEUE);
        let thread = ModelThread::spawn("draft", core, move || run(factory, &receiver, lent))?;
        Ok((Self { sender }, thread))
    }

    /// What steps cost by rows, microseconds.
    pub(crate) fn measure(&self) -> Result<ByRows, ModelError> {
        let (tell, told) = sync_channel(1);
        self.send(ToDraft::Measure(tell))?;
        told.recv().map_err(|_| gone())?
    }

    /// What asking and getting an answer takes, microseconds: the middle one of several times.
    pub(crate) fn rendezvous_us(&self) -> Result<f64, ModelError> {
        let (tell, told) = sync_channel(1);
        let mut times = Vec::new();
        for _ in 0..15 {
            let begin = Instant::now();
            self.send(ToDraft::Ping(tell.clone()))?;
            told.recv().map_err(|_| gone())?;
            times.push(exact_micros(begin.elapsed()));
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }

    /// Hands a message over; fails only if the thread is gone.
    pub(crate) fn send(&self, message: ToDraft) -> Result<(), ModelError> {
        self.sender.send((Instant::now(), message)).map_err(|_| gone())
    }
}

pub(crate) fn gone() -> ModelError {
    ModelError("the draft's thread has ended".into())
}

struct Served {
    /// `Err` once the model failed; every later question is answered with it.
    sequence: Result<DraftSequence, ModelError>,
    replies: SyncSender<Result<Proposal, ModelError>>,
    work: Vec<(LaneKind, Instant, Instant)>,
    messages: Vec<(MessageKind, Instant, Instant)>,
    /// Of the sequence's steps, those told.
    told_steps: u64,
}

fn run(factory: ModelFactory, messages: &Receiver<(Instant, ToDraft)>, lent: bool) {
    let begin = Instant::now();
    let mut desk = Desk::new(factory, Stopwatch::new(move || exact_micros(begin.elapsed())));
    loop {
        let message = match desk.has_work() {
            true => messages.try_recv(),
            false => patience::receive(messages, !lent || desk.rolling).map_err(TryRecvError::from),
        };
        match message {
            Ok((sent, message)) => {
                desk.note(&message, sent);
                desk.take(message);
            }
            Err(TryRecvError::Empty) => desk.step(),
            Err(TryRecvError::Disconnected) => return,
        }
    }
}

/// The sequences on the draft's side. Messages go before rollouts: what a verdict makes useless is not begun.
struct Desk {
    factory: ModelFactory,
    served: HashMap<SequenceId, Served>,
    stopwatch: Stopwatch,
    trusts: Trusts,
    /// The sequence whose pass is running: there is one target, so there is at most one.
    passing: Option<SequenceId>,
    /// Whether the last message was one of a round with rollouts, of which more follow soon.
    rolling: bool,
}

impl Desk {
    fn new(factory: ModelFactory, stopwatch: Stopwatch) -> Self {
        Self { factory, served: HashMap::new(), stopwatch, trusts: Trusts::default(), passing: None, rolling: false }
    }

    /// Whether there is something to roll out.
    fn has_work(&self) -> bool {
        self.passing.and_then(|id| self.served.get(&id)).is_some_and(Served::has_work)
    }

    /// One step of the rollouts.
    fn step(&mut self) {
        if let Some(id) = self.passing {
            self.with(id, |s| s.attempt(LaneKind::DraftRollout, DraftSequence::roll_out));
        }
    }

    /// Keeps account of a message that was sent at a time and is taken up now.
    fn note(&mut self, message: &ToDraft, sent: Instant) {
        if let Some((id, kind)) = message.told() {
            self.with(id, |s| s.messages.push((kind, sent, Instant::now())));
        }
    }

    fn take(&mut self, message: ToDraft) {
        self.rolling = matches!(
            message,
            ToDraft::PassBegan { .. } | ToDraft::Exit { .. } | ToDraft::Verdict { next: Some(_), .. }
        );
        match message {
            ToDraft::Measure(tell) => {
                let measured = (self.factory)().and_then(|mut model| draft_costs(&mut *model));
                if let Ok(measured) = &measured {
                    self.stopwatch.set(measured.clone());
                }
                // Who asked may be gone.
                let _ = tell.send(measured);
            }
            ToDraft::Ping(tell) => {
                let _ = tell.send(());
            }
            ToDraft::Open { id, opening, replies } => {
                let served =
                    Served::open(&self.factory, *opening, (self.stopwatch.clone(), self.trusts.clone()), replies);
                self.served.insert(id, served);
            }
            ToDraft::Close { id } => {
                self.served.remove(&id);
            }
            ToDraft::Draft { id, wanted } => self.with(id, |s| s.reply(wanted, None, 0)),
            ToDraft::PassBegan { id, window, overlap } => {
                self.passing = Some(id);
                self.with(id, |s| s.attempt(LaneKind::DraftRollout, |d| d.begin_pass(window, overlap)));
            }
            ToDraft::Exit { id, rows } => {
                self.with(id, |s| s.attempt(LaneKind::DraftRollout, |d| d.exit(rows)));
            }
            ToDraft::Verdict { id, committed, next } => {
                self.passing = None;
                self.with(id, |s| s.verdict(&committed, next));
            }
        }
    }

    fn with<T>(&mut self, id: SequenceId, act: impl FnOnce(&mut Served) -> T) {
        // Messages may cross a `Close`.
        if let Some(sequence) = self.served.get_mut(&id) {
            act(sequence);
        }
    }
}

impl Served {
    fn open(
        factory: &ModelFactory,
        opening: Opening,
        shared: (Stopwatch, Trusts),
        replies: SyncSender<Result<Proposal, ModelError>>,
    ) -> Self {
        let begin = Instant::now();
        let sequence = factory().and_then(|model| DraftSequence::new(model, opening, shared));
        let work = vec![(LaneKind::DraftSerial, begin, Instant::now())];
        Self { sequence, replies, work, messages: Vec::new(), told_steps: 0 }
    }

    fn steps(&self) -> u64 {
        self.sequence.as_ref().map_or(0, DraftSequence::steps)
    }

    fn has_work(&self) -> bool {
        self.sequence.as_ref().is_ok_and(DraftSequence::has_work)
    }

    /// Runs a step and records its time; a failure stays.
    fn attempt<T>(
        &mut self,
        kind: LaneKind,
        step: impl FnOnce(&mut DraftSequence) -> Result<T, ModelError>,
    ) -> Option<T> {
        let begin = Instant::now();
        let done = step(self.sequence.as_mut().ok()?);
        self.work.push((kind, begin, Instant::now()));
        match done {
            Ok(value) => Some(value),
            Err(error) => {
                self.sequence = Err(error);
                None
            }
        }
    }

    fn verdict(&mut self, committed: &[TokenId], next: Option<(Wanted, OnMiss)>) {
        // Without a rollout the verdict is part of serial drafting.
        let kind = if next.is_some() { LaneKind::DraftRollout } else { LaneKind::DraftSerial };
        let settled = self.attempt(kind, |d| {
            while d.awaits_rollouts() {
                d.roll_out()?;
            }
            let expanded = d.expanded();
            Ok((d.commit(committed)?, expanded))
        });
        if let Some((wanted, on_miss)) = next {
            let (hit, expanded) = settled.unwrap_or_default();
            let missed = hit.is_none() && on_miss == OnMiss::Tell;
            self.reply(Wanted { window: if missed { 0 } else { wanted.window }, ..wanted }, hit, expanded);
        }
    }

    /// Sends the window: what a hit left, and what is worth drafting now.
    fn reply(&mut self, wanted: Wanted, hit: Option<Outcome>, expanded: u64) {
        let before = self.steps();
        let window = self.attempt(LaneKind::DraftSerial, |d| {
            d.set(wanted.settings);
            d.draft(wanted.window, &wanted.worth)
        });
        if window.is_some() && self.steps() == before {
            // Nothing was drafted: there is no work to tell of.
            self.work.pop();
        }
        let (work, messages) = (std::mem::take(&mut self.work), std::mem::take(&mut self.messages));
        let steps = self.steps();
        let steps = steps.saturating_sub(std::mem::replace(&mut self.told_steps, steps));
        let proposal = match (window, &self.sequence) {
            (Some(window), Ok(sequence)) => {
                let (step_us, sent) = (sequence.step_us(), Instant::now());
                Ok(Proposal { window, hit, steps, expanded, step_us, work, messages, sent })
            }
            (_, Err(error)) => Err(error.clone()),
            (None, Ok(_)) => Err(gone()),
        };
        // The asker may have gone; its `Close` follows.
        let _ = self.replies.try_send(proposal);
    }
}

#[cfg(test)]
mod tests;
