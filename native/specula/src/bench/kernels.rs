//! `specula bench --suite kernels`: what a pass costs by the number of its rows, and a prompt by its length, on the CPU
//! kernels, on candle and, where they are installed, on llama.cpp and ONNX Runtime – the same files in the same process run,
//! taking turns – against what the machine's memory and arithmetic allow.

mod contender;
mod lanes;
mod limits;
pub(super) mod random;
mod table;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use specula_models::{Compute, Cores, LoadedModel, ModelConfig};
use specula_npu::Libraries;

use crate::startup;
use contender::{Contender, Llama, ONNX, Ours};
use random::{Format, multiplied};

#[derive(Args)]
pub(crate) struct KernelArgs {
    /// Suite `kernels`: rounds; the table shows medians over them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Suite `kernels`: which models.
    #[arg(long, value_delimiter = ',', default_value = "target,draft,110m,target-f32,110m-f32")]
    models: Vec<ModelArg>,
    /// Suite `kernels`: Python that has the package llama-cpp-python. Default: python3, if it has it.
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModelArg {
    /// The embedded target.
    Target,
    /// The embedded draft.
    Draft,
    /// Random weights, 12 layers of 768, Q8_0.
    #[value(name = "110m")]
    Small,
    /// Random weights of the target's shape in f32.
    TargetF32,
    /// Random weights, 12 layers of 768, in f32.
    #[value(name = "110m-f32")]
    SmallF32,
}

/// Names of the embedded pair in the tables.
const TARGET: &str = "target Q8_0";
const DRAFT: &str = "draft Q8_0";
/// Tokens that rows follow.
const CONTEXT: usize = 256;
/// Rows of a pass.
const ROWS: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// Lengths of prompts.
const PROMPTS: [usize; 2] = [64, 512];

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// So many rows behind [`CONTEXT`] tokens, with the logits of each.
    Rows(usize),
    /// So many tokens from nothing, with the logits of the last.
    Prompt(usize),
}

/// A model on a disk.
struct Subject {
    name: String,
    path: PathBuf,
    config: ModelConfig,
    format: Format,
}

/// What one contender took for one task, round by round.
struct Measurement {
    subject: usize,
    task: Task,
    contender: &'static str,
    seconds: Vec<f64>,
}

impl Measurement {
    fn median(&self) -> f64 {
        median(&self.seconds)
    }
}

pub(super) fn run(args: &KernelArgs, onnxruntime: Option<&Libraries>, out: Option<&Path>) -> Result<()> {
    let folder = Folder::new()?;
    let python = contender::python(args.python.as_deref())?;
    let subjects: Vec<Subject> = args.models.iter().map(|m| subject(*m, &folder.0)).collect::<Result<_>>()?;
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    let limits = limits::measure();
    let again = subjects.iter().map(|s| limits::read_again(s.format.bytes(multiplied(&s.config)))).collect();
    let mut measured = measure(&subjects, (python.as_deref(), onnxruntime), args.rounds)?;
    measured.extend(lanes::measure(&subjects, args.rounds)?);
    let summary = table::Summary { subjects, measured, limits, again, load, rounds: args.rounds };
    let markdown = summary.markdown();
    println!("{markdown}");
    if let Some(folder) = out {
        std::fs::create_dir_all(folder).with_context(|| format!("--out {}", folder.display()))?;
        std::fs::write(folder.join("kernels.jsonl"), summary.lines())?;
        std::fs::write(folder.join("kernels.md"), markdown)?;
    }
    Ok(())
}

fn subject(model: ModelArg, folder: &Path) -> Result<Subject> {
    let own = |name: &str, bytes: &[u8]| -> Result<Subject> {
        let path = folder.join(format!("{name}.gguf").replace(' ', "-"));
        std::fs::write(&path, bytes)?;
        let config = LoadedModel::open(&path)?.model.config().clone();
        Ok(Subject { name: name.to_owned(), path, config, format: Format::Q8 })
    };
    let random = |name: &str, config: ModelConfig, format: Format| -> Result<Subject> {
        let path = folder.join(format!("{name}-{}.gguf", format.name()));
        random::write(&path, &config, format)?;
        Ok(Subject { name: format!("{name} {}", format.name()), path, config, format })
    };
    match model {
        ModelArg::Target => own(TARGET, startup::TARGET),
        ModelArg::Draft => own(DRAFT, startup::DRAFT),
        ModelArg::Small => random("110M", random::config_110m(), Format::Q8),
        ModelArg::TargetF32 => random("target", own(TARGET, startup::TARGET)?.config, Format::F32),
        ModelArg::SmallF32 => random("110M", random::config_110m(), Format::F32),
    }
}

fn measure(
    subjects: &[Subject],
    (python, onnxruntime): (Option<&Path>, Option<&Libraries>),
    rounds: u16,
) -> Result<Vec<Measurement>> {
    let tasks: Vec<Task> = ROWS.map(Task::Rows).into_iter().chain(PROMPTS.map(Task::Prompt)).collect();
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}, {eta} left")?;
    let progress = ProgressBar::new((subjects.len() * usize::from(rounds)) as u64).with_style(style);
    let mut measured = Vec::new();
    for (index, subject) in subjects.iter().enumerate() {
        progress.set_message(subject.name.clone());
        let ours = |compute| Ours::open(subject, compute, &Cores::default());
        let mut contenders: Vec<Box<dyn Contender>> =
            vec![Box::new(ours(Compute::Kernels)?), Box::new(ours(Compute::Candle)?)];
        if let Some(python) = python {
            contenders.push(Box::new(Llama::start(python, subject)?));
        }
        for (libraries, variant) in onnxruntime.iter().flat_map(|libraries| ONNX.map(|variant| (libraries, variant))) {
            contenders.push(Box::new(Ours::onnx(subject, variant, libraries)?));
        }
        let first = measured.len();
        for task in &tasks {
            measured.extend(contenders.iter().map(|c| Measurement {
                subject: index,
                task: *task,
                contender: c.name(),
                seconds: Vec::new(),
            }));
        }
        for round in 0..usize::from(rounds) {
            for (at, task) in tasks.iter().enumerate() {
                for turn in 0..contenders.len() {
                    // Rotating the order keeps any one contender from always following the same other.
                    let who = (turn + round) % contenders.len();
                    let seconds = sample(contenders[who].as_mut(), *task)?;
                    measured[first + at * contenders.len() + who].seconds.push(seconds);
                }
            }
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    Ok(measured)
}

/// Median of a fifth of a second's worth of repetitions; the first, which finds others' data in the caches, does not count
/// but for tasks so long that it makes no difference.
fn sample(contender: &mut dyn Contender, task: Task) -> Result<f64> {
    const LONG: f64 = 0.2;
    let first = contender.time(task)?;
    if first > LONG {
        return Ok(first);
    }
    let mut all = Vec::new();
    while all.iter().sum::<f64>() < LONG && all.len() < 200 {
        all.push(contender.time(task)?);
    }
    Ok(median(&all))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// A temporary folder, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("specula-kernels-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left over lies in the system's folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Task {
    fn name(self) -> String {
        match self {
            Self::Rows(n) => format!("{n} rows"),
            Self::Prompt(n) => format!("prompt {n}"),
        }
    }
}
