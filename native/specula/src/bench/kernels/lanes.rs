//! The kernels on several cores: one model on all of them, and the pair at once, each model on a core of its own.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use specula_models::{Compute, Cores, ModelThread, available_cores};

use super::contender::{Contender, Ours};
use super::{Measurement, Subject, Task, median};

/// Names of what is compared, as contenders.
pub(super) const ONE_CORE: &str = "one core";
pub(super) const ALL_CORES: &str = "all cores";
pub(super) const ALONE: &str = "alone";
pub(super) const BESIDE: &str = "beside the other";

/// What is timed on one core and on all.
const SPREAD: [Task; 3] = [Task::Rows(1), Task::Rows(8), Task::Prompt(512)];
/// A round of both models at once: the target verifies, the draft steps.
const PAIR: [Task; 2] = [Task::Rows(8), Task::Rows(1)];
/// How long both work at once.
const WORK: Duration = Duration::from_millis(200);

/// A model on a thread of its own, as the engine has it.
struct Lane {
    tasks: SyncSender<Task>,
    medians: Receiver<Result<f64>>,
}

impl Lane {
    fn start(subject: &Subject, cores: Vec<usize>) -> Result<Self> {
        let (tasks, asked) = sync_channel(1);
        let (answer, medians) = sync_channel(1);
        let cores = Cores { own: cores, lent: Vec::new() };
        let mut model = Ours::open(subject, Compute::Kernels, &cores)?;
        let body = move || {
            for task in asked {
                // Whoever asked waits for the answer.
                let _ = answer.send(work(&mut model, task));
            }
        };
        ModelThread::spawn("bench", cores.own.first().copied(), body).map_err(anyhow::Error::msg)?;
        Ok(Self { tasks, medians })
    }

    fn ask(&self, task: Task) -> Result<()> {
        self.tasks.send(task).context("the lane ended")
    }

    fn answer(&self) -> Result<f64> {
        self.medians.recv().context("the lane ended")?
    }
}

/// Median of what is done within [`WORK`], the first aside.
fn work(model: &mut Ours, task: Task) -> Result<f64> {
    model.time(task)?;
    let (begin, mut all) = (Instant::now(), Vec::new());
    while all.is_empty() || begin.elapsed() < WORK {
        all.push(model.time(task)?);
    }
    Ok(median(&all))
}

/// Every model on one core and on all; the pair, if target and draft are among them, alone and at once. Nothing where there
/// is but one core.
pub(super) fn measure(subjects: &[Subject], rounds: u16) -> Result<Vec<Measurement>> {
    let cores = available_cores();
    let [first, .., last] = cores[..] else { return Ok(Vec::new()) };
    let mut measured = Vec::new();
    for (index, subject) in subjects.iter().enumerate() {
        let lanes = [(ONE_CORE, Lane::start(subject, vec![first])?), (ALL_CORES, Lane::start(subject, cores.clone())?)];
        for task in SPREAD {
            let mut seconds = [Vec::new(), Vec::new()];
            for _ in 0..rounds {
                for ((_, lane), seconds) in lanes.iter().zip(&mut seconds) {
                    lane.ask(task)?;
                    seconds.push(lane.answer()?);
                }
            }
            measured.extend(lanes.iter().zip(seconds).map(|((contender, _), seconds)| Measurement {
                subject: index,
                task,
                contender,
                seconds,
            }));
        }
    }
    let named = |name: &str| subjects.iter().position(|subject| subject.name == name);
    if let (Some(target), Some(draft)) = (named(super::TARGET), named(super::DRAFT)) {
        let pair = [(target, first), (draft, last)];
        let lanes = pair.map(|(index, core)| Lane::start(&subjects[index], vec![core]));
        let [target, draft] = lanes;
        let lanes = [target?, draft?];
        let mut alone = [Vec::new(), Vec::new()];
        let mut beside = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for i in 0..PAIR.len() {
                lanes[i].ask(PAIR[i])?;
                alone[i].push(lanes[i].answer()?);
            }
            for i in 0..PAIR.len() {
                lanes[i].ask(PAIR[i])?;
            }
            for i in 0..PAIR.len() {
                beside[i].push(lanes[i].answer()?);
            }
        }
        for (contender, seconds) in [(ALONE, alone), (BESIDE, beside)] {
            measured.extend(seconds.into_iter().enumerate().map(|(i, seconds)| Measurement {
                subject: pair[i].0,
                task: PAIR[i],
                contender,
                seconds,
            }));
        }
    }
    Ok(measured)
}
