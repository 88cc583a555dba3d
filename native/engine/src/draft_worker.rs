//! The thread that owns the draft model. It drafts when asked, rolls out branches while a target pass runs, and looks for
//! messages between any two draft steps, so that a verdict cancels what it made useless within one step.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Instant;

use specula_decoding::branches::Outcome;
use specula_decoding::{LanguageModel, ModelError, NoiseRows, Sampling, TokenId};
use specula_models::ModelThread;

use crate::drafting::{DraftSequence, Window};
use crate::event::LaneKind;
use crate::settings::Settings;

/// Makes the model of a new sequence.
pub(crate) type ModelFactory = Arc<dyn Fn() -> Result<Box<dyn LanguageModel>, ModelError> + Send + Sync>;

/// Names a sequence between the two threads.
pub(crate) type SequenceId = u64;

/// Messages in flight to the draft's thread; a round sends at most four.
const QUEUE: usize = 256;

pub(crate) enum ToDraft {
    /// Prefill a new sequence.
    Open { id: SequenceId, opening: Box<Opening> },
    /// Draft serially and reply.
    Draft { id: SequenceId, window: usize },
    /// The target began to verify the first `window` tokens of the window.
    PassBegan { id: SequenceId, window: usize },
    /// The early exit's candidates of every row.
    Exit { id: SequenceId, rows: Vec<Vec<(TokenId, f32)>> },
    /// The round's outcome. With `window`, reply with the next window: rolled out, else drafted serially.
    Verdict { id: SequenceId, accepted: usize, next: TokenId, window: Option<usize> },
    /// The sequence ended.
    Close { id: SequenceId },
}

/// What a new sequence brings.
pub(crate) struct Opening {
    pub(crate) prompt: Vec<TokenId>,
    pub(crate) sampling: Sampling,
    pub(crate) settings: Settings,
    /// The sequence's, shared with the target's side.
    pub(crate) noise: NoiseRows,
    pub(crate) wants_q: bool,
    pub(crate) replies: SyncSender<Result<Proposal, ModelError>>,
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
    /// What the draft did since the last proposal.
    pub(crate) work: Vec<(LaneKind, Instant, Instant)>,
}

/// The sending end of the draft's thread.
#[derive(Clone)]
pub(crate) struct DraftWorker {
    sender: SyncSender<ToDraft>,
}

impl DraftWorker {
    pub(crate) fn spawn(factory: ModelFactory, core: Option<usize>) -> Result<(Self, ModelThread), String> {
        let (sender, receiver) = sync_channel(QUEUE);
        let thread = ModelThread::spawn("draft", core, move || run(&factory, &receiver))?;
        Ok((Self { sender }, thread))
    }

    /// Hands a message over; fails only if the thread is gone.
    pub(crate) fn send(&self, message: ToDraft) -> Result<(), ModelError> {
        self.sender.send(message).map_err(|_| gone())
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
    /// Of the sequence's steps, those told.
    told_steps: u64,
}

fn run(factory: &ModelFactory, messages: &Receiver<ToDraft>) {
    let mut served: HashMap<SequenceId, Served> = HashMap::new();
    // The sequence whose pass is running: there is one target, so there is at most one.
    let mut passing: Option<SequenceId> = None;
    loop {
        let busy = passing.and_then(|id| served.get_mut(&id)).filter(|s| s.has_work());
        let message = match busy {
            None => messages.recv().map_err(|_| TryRecvError::Disconnected),
            Some(sequence) => match messages.try_recv() {
                Err(TryRecvError::Empty) => {
                    sequence.attempt(LaneKind::DraftRollout, DraftSequence::roll_out);
                    continue;
                }
                other => other,
            },
        };
        let Ok(message) = message else { return };
        match message {
            ToDraft::Open { id, opening } => {
                served.insert(id, Served::open(factory, *opening));
            }
            ToDraft::Close { id } => {
                served.remove(&id);
            }
            ToDraft::Draft { id, window } => {
                with(&mut served, id, |s| s.reply(window, None, 0));
            }
            ToDraft::PassBegan { id, window } => {
                passing = Some(id);
                with(&mut served, id, |s| {
                    s.attempt(LaneKind::DraftRollout, |d| {
                        d.begin_pass(window);
                        Ok(())
                    })
                });
            }
            ToDraft::Exit { id, rows } => {
                with(&mut served, id, |s| s.attempt(LaneKind::DraftRollout, |d| d.exit(&rows)));
            }
            ToDraft::Verdict { id, accepted, next, window } => {
                passing = None;
                with(&mut served, id, |s| s.verdict(accepted, next, window));
            }
        }
    }
}

fn with<T>(served: &mut HashMap<SequenceId, Served>, id: SequenceId, act: impl FnOnce(&mut Served) -> T) {
    // Messages may cross a `Close`.
    if let Some(sequence) = served.get_mut(&id) {
        act(sequence);
    }
}

impl Served {
    fn open(factory: &ModelFactory, opening: Opening) -> Self {
        let begin = Instant::now();
        let Opening { prompt, sampling, settings, noise, wants_q, replies } = opening;
        let sequence =
            factory().and_then(|model| DraftSequence::new(model, &prompt, &sampling, settings, noise, wants_q));
        Self { sequence, replies, work: vec![(LaneKind::DraftSerial, begin, Instant::now())], told_steps: 0 }
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

    fn verdict(&mut self, accepted: usize, next: TokenId, window: Option<usize>) {
        // Without a rollout the verdict is part of serial drafting.
        let kind = if window.is_some() { LaneKind::DraftRollout } else { LaneKind::DraftSerial };
        let settled = self.attempt(kind, |d| {
            while d.awaits_rollouts() {
                d.roll_out()?;
            }
            let expanded = d.expanded();
            Ok((d.commit(accepted, next)?, expanded))
        });
        if let Some(window) = window {
            let (hit, expanded) = settled.unwrap_or_default();
            self.reply(window, hit, expanded);
        }
    }

    /// Sends the window: what a hit left, else `len` tokens drafted now.
    fn reply(&mut self, len: usize, hit: Option<Outcome>, expanded: u64) {
        let window = match hit {
            // A branch that was cut short is a short window: drafting on would make the target wait.
            Some(_) => self.attempt(LaneKind::DraftRollout, |d| Ok(d.window_of(len))),
            None => self.attempt(LaneKind::DraftSerial, |d| d.draft(len)),
        };
        let work = std::mem::take(&mut self.work);
        let steps = self.sequence.as_ref().map_or(0, DraftSequence::steps);
        let steps = steps - std::mem::replace(&mut self.told_steps, steps);
        let proposal = match (window, &self.sequence) {
            (Some(window), _) => Ok(Proposal { window, hit, steps, expanded, work }),
            (None, Err(error)) => Err(error.clone()),
            (None, Ok(_)) => Err(gone()),
        };
        // The asker may have gone; its `Close` follows.
        let _ = self.replies.try_send(proposal);
    }
}
