//! The thread that owns the target: takes admitted generations and gives each running one a turn in order.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use specula_decoding::Ends;
use specula_models::Model;

use crate::draft_worker::DraftWorker;
use crate::engine::Metrics;
use crate::event::{Event, Failure};
use crate::learned::Learned;
use crate::request::Request;
use crate::sequence::{Birth, Channel, Outcome, Sequence, Turn};

/// How long to wait for something to do when every running generation waits for its reader.
const PARKED: Duration = Duration::from_millis(2);

/// A generation that has a place.
pub(crate) struct Admitted {
    pub(crate) request: Request,
    pub(crate) ends: Ends,
    pub(crate) channel: Channel,
}

/// What the thread owns.
pub(crate) struct TargetThread {
    pub(crate) target: Model,
    pub(crate) draft: Option<DraftWorker>,
    pub(crate) admitted: Receiver<Admitted>,
    pub(crate) max_running: usize,
    pub(crate) metrics: Arc<Mutex<Metrics>>,
    pub(crate) row_invariant: bool,
}

/// Runs until every handle of the engine is gone and nothing is left to do.
pub(crate) fn run(thread: TargetThread, mut learned: Learned) {
    let mut waiting = VecDeque::new();
    let mut running: Vec<Sequence> = Vec::new();
    let mut next_id = 0;
    let mut parked = false;
    loop {
        let idle = running.is_empty() && waiting.is_empty();
        if !thread.gather(&mut waiting, idle, parked) {
            return;
        }
        let may_begin = |w: &Admitted, running: usize| {
            // Who cancelled while waiting needs no place: the first turn tells the end.
            running < thread.max_running || w.channel.cancelled.load(Ordering::Relaxed)
        };
        while let Some(i) = waiting.iter().position(|w| may_begin(w, running.len())) {
            next_id += 1;
            running.extend(waiting.remove(i).and_then(|admitted| thread.begin(admitted, next_id, &mut learned)));
        }
        thread.update(|m| m.running = running.len() as u64);
        parked = thread.turns(&mut running, &mut learned);
        thread.update(|m| m.running = running.len() as u64);
    }
}

impl TargetThread {
    /// Takes in what was admitted, waiting for it if there is nothing else to do, and lets go of those whose owner left: a
    /// place in the queue must not be held until its turn comes. False once nothing can come any more.
    fn gather(&self, waiting: &mut VecDeque<Admitted>, idle: bool, parked: bool) -> bool {
        match (idle, parked) {
            (true, _) => match self.admitted.recv() {
                Ok(admitted) => waiting.push_back(admitted),
                Err(_) => return false,
            },
            (false, true) => waiting.extend(self.admitted.recv_timeout(PARKED)),
            (false, false) => {}
        }
        waiting.extend(self.admitted.try_iter());
        let before = waiting.len();
        waiting.retain(|w| !w.channel.events.is_closed());
        let left = before - waiting.len();
        self.update(|m| m.cancelled += left as u64);
        true
    }

    fn begin(&self, admitted: Admitted, id: u64, learned: &mut Learned) -> Option<Sequence> {
        let Admitted { request, ends, channel } = admitted;
        let events = channel.events.clone();
        let born = self.target.session().map_err(|error| Failure::Engine(error.to_string())).and_then(|model| {
            let draft = self.draft.clone();
            let birth = Birth { id, request, model, ends, draft, channel, row_invariant: self.row_invariant };
            Sequence::new(birth, learned)
        });
        match born {
            Ok(sequence) => {
                sequence.announce();
                self.update(|m| m.prompt_tokens += sequence.prompt_tokens() as u64);
                Some(sequence)
            }
            Err(failure) => {
                self.update(|m| m.failed += 1);
                // The stream is new and empty; if its owner is gone nobody misses the answer.
                let _ = events.try_send(Event::Failed(failure));
                None
            }
        }
    }

    /// One turn for every running generation; whether all of them wait for their readers.
    fn turns(&self, running: &mut Vec<Sequence>, learned: &mut Learned) -> bool {
        // Otherwise the draft needs what is lent.
        self.target.spread(!running.iter().any(Sequence::rolls_out));
        let mut parked = true;
        running.retain_mut(|sequence| {
            // A defect in one generation must not end the others.
            let turn =
                catch_unwind(AssertUnwindSafe(|| sequence.turn(learned))).unwrap_or_else(|_| sequence.break_off());
            match turn {
                Turn::Going => parked = false,
                Turn::Parked => {}
                Turn::Over(outcome) => {
                    parked = false;
                    self.account(sequence, outcome);
                    return false;
                }
            }
            true
        });
        parked
    }

    /// Adds what a generation did to the counters.
    fn account(&self, sequence: &Sequence, outcome: Outcome) {
        self.update(|m| {
            match outcome {
                Outcome::Finished => m.finished += 1,
                Outcome::Cancelled => m.cancelled += 1,
                Outcome::Failed => m.failed += 1,
            }
            if let Some((_, totals)) = m.methods.iter_mut().find(|(method, _)| *method == sequence.method()) {
                *totals += sequence.totals();
            }
            for (name, counts) in sequence.plugged().counters() {
                match m.plugins.iter_mut().find(|(known, _)| known == name) {
                    Some((_, sums)) => sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count),
                    None => m.plugins.push((name.to_owned(), counts)),
                }
            }
        });
    }

    fn update(&self, change: impl FnOnce(&mut Metrics)) {
        change(&mut self.metrics.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
