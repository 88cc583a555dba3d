//! The training loop: steps, checkpoints, measurements, log and plot, whatever is trained.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde_json::{Map, Value};
use specula_models::{Accelerator, Precision};

use crate::data::Text;
use crate::files;
use crate::optimiser::{Optimiser, Variables};
use crate::order::{Batches, Sequence};
use crate::progress::{Log, bar, step_line};
use crate::recipe::Schedule;

/// Where a run computes and writes, and whether it is to end early.
pub struct Place {
    /// Folder of checkpoints, log, plot and results.
    pub folder: PathBuf,
    /// Set when the user wants to stop: the step is finished and saved.
    pub(crate) stop: Arc<AtomicBool>,
    /// What is trained lies here; teachers answer on the CPU.
    pub(crate) device: Device,
}

impl Place {
    /// On the CPU.
    pub fn new(folder: PathBuf, stop: Arc<AtomicBool>) -> Self {
        Self { folder, stop, device: Device::Cpu }
    }

    /// Passes of a step that are computed at once: one on each core, since much of a pass is no product and takes but one;
    /// one after the other on a device.
    fn side_by_side(&self) -> usize {
        if self.device.is_cpu() { rayon::current_num_threads() } else { 1 }
    }

    /// The same on a device.
    ///
    /// # Errors
    /// What is missing for it, and how to get it.
    pub fn on(self, device: Accelerator) -> Result<Self> {
        let (device, name) = device.open().map_err(anyhow::Error::msg)?;
        eprintln!("training on {name}");
        Ok(Self { device, ..self })
    }
}

/// What is trained.
pub(crate) trait Learner: Sync {
    /// Loss over some sequences of the texts.
    fn loss(&self, batch: &[Sequence]) -> Result<Tensor>;

    /// Numbers on the validation texts; `validation_loss` is drawn.
    fn measure(&self) -> Result<Map<String, Value>>;

    /// Writes the results so far.
    fn save(&self) -> Result<()>;
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// It was interrupted after so many steps, and goes on there when it is started again.
    Interrupted(usize),
}

const CHECKPOINT: &str = "checkpoint.safetensors";

/// Trains, from the folder's checkpoint if there is one.
pub(crate) fn train(
    learner: &impl Learner,
    variables: &Variables,
    (texts, length): (&[Text], usize),
    s: &Schedule,
    place: &Place,
) -> Result<Outcome> {
    std::fs::create_dir_all(&place.folder).with_context(|| place.folder.display().to_string())?;
    let mut optimiser = Optimiser::new(variables)?;
    let done = restore(variables, &mut optimiser, s, place)?;
    let log = Log::open(&place.folder, done)?;
    if s.precision == Precision::Bf16 && !s.precision.is_mixed() {
        eprintln!("`training.precision` = \"bf16\": the CPU has no AMX, so products are computed in f32");
    }
    if done == 0 {
        measure(learner, &log, 0)?;
    }
    if s.steps == 0 {
        learner.save()?;
    }
    let mut batches = Batches::new(texts, length, s.batch, s.seed, done * s.accumulate);
    let progress = bar(s.steps as u64, "steps");
    progress.set_position(done as u64);
    for step in done..s.steps {
        let began = Instant::now();
        let passes: Vec<Vec<Sequence>> = (0..s.accumulate).map(|_| batches.take()).collect();
        let tokens: usize = passes.iter().flatten().flatten().map(|text| texts[*text].tokens.len()).sum();
        let mut mean = 0.0;
        for some in passes.chunks(place.side_by_side()) {
            // Added in order, whichever is done first: the same recipe gives the same bits.
            for (value, gradients) in some.par_iter().map(|batch| pass(learner, batch)).collect::<Result<Vec<_>>>()? {
                if !value.is_finite() {
                    bail!("the loss is {value} at step {}; take a lower `training.learning_rate`", step + 1);
                }
                mean += value / s.accumulate as f64;
                optimiser.add(variables, &gradients)?;
            }
        }
        let gradient = optimiser.step(variables, s, step, s.accumulate)?;
        let speed = tokens as f64 / began.elapsed().as_secs_f64();
        log.add(&step_line(step + 1, mean, s.rate(step), gradient, speed))?;
        progress.set_message(format!("steps, pass {}, loss {mean:.4}, {speed:.0} tokens/s", batches.epoch() + 1));
        progress.inc(1);
        let stopping = place.stop.load(Ordering::Relaxed);
        let last = step + 1 == s.steps;
        if stopping || last || (step + 1).is_multiple_of(s.checkpoint) {
            keep(variables, &optimiser, s, place, step + 1)?;
            if !stopping || last {
                progress.suspend(|| measure(learner, &log, step + 1))?;
            }
            learner.save()?;
            log.plot()?;
        }
        if stopping && !last {
            progress.abandon();
            return Ok(Outcome::Interrupted(step + 1));
        }
    }
    progress.finish();
    Ok(Outcome::Finished)
}

/// Loss of a batch, and the slopes towards it.
fn pass(learner: &impl Learner, batch: &[Sequence]) -> Result<(f64, GradStore)> {
    let loss = learner.loss(batch)?;
    Ok((f64::from(loss.to_scalar::<f32>()?), loss.backward()?))
}

fn measure(learner: &impl Learner, log: &Log, step: usize) -> Result<()> {
    let mut line = learner.measure()?;
    line.insert("step".into(), step.into());
    let line = Value::Object(line);
    eprintln!("{line}");
    log.add(&line)
}

fn keep(variables: &Variables, optimiser: &Optimiser, s: &Schedule, place: &Place, step: usize) -> Result<()> {
    let weights = variables.iter().map(|(name, var)| (format!("w.{name}"), var.as_tensor().clone()));
    let tensors = weights.chain(optimiser.tensors()).collect();
    let notes = [("step", &*step.to_string()), ("schedule", &*format!("{s:?}"))];
    files::save_tensors(&place.folder.join(CHECKPOINT), &tensors, &notes)
}

/// Steps that a checkpoint in the folder has behind it.
fn restore(variables: &Variables, optimiser: &mut Optimiser, s: &Schedule, place: &Place) -> Result<usize> {
    let path = place.folder.join(CHECKPOINT);
    let Some((tensors, notes)) = files::load_tensors(&path)? else { return Ok(0) };
    if notes.get("schedule").is_none_or(|kept| *kept != format!("{s:?}")) {
        bail!("{} was made by another recipe; name another folder, or remove it", path.display());
    }
    let tensor = |name: &str| {
        let found = tensors.get(name).with_context(|| format!("{}: no `{name}`", path.display()))?;
        Ok(found.clone())
    };
    for (name, var) in variables {
        var.set(&tensor(&format!("w.{name}"))?.to_device(var.device())?)?;
    }
    optimiser.restore(tensor)?;
    let step = notes.get("step").and_then(|step| step.parse().ok());
    step.with_context(|| format!("{}: no step", path.display()))
}
