//! Who is measured: our two decoders and ONNX Runtime's CPU kernels in this process, llama.cpp in one of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use specula_decoding::model::chain_nodes;
use specula_decoding::{LanguageModel, TokenId};
use specula_models::{Compute, Cores, LoadedModel, read_dense};
use specula_npu::{Device, Graphs, Libraries, Place, Provider, Variant};

use super::{CONTEXT, Subject, Task};

pub(super) trait Contender {
    fn name(&self) -> &'static str;

    /// Seconds that a task took.
    fn time(&mut self, task: Task) -> Result<f64>;
}

/// A decoder of this process.
pub(super) struct Ours {
    name: &'static str,
    session: Box<dyn LanguageModel>,
}

/// Variants of a draft that ONNX Runtime is measured with, by the names that they have here.
pub(super) const ONNX: [(Variant, &str); 3] =
    [(Variant::F32, "ONNX Runtime f32"), (Variant::W8, "ONNX Runtime w8"), (Variant::Dyn8, "ONNX Runtime dyn8")];

impl Ours {
    pub(super) fn open(subject: &Subject, compute: Compute, cores: &Cores) -> Result<Self> {
        let mut model = LoadedModel::open_on(&subject.path, compute)?.model;
        model.set_cores(cores).map_err(anyhow::Error::msg)?;
        let name = match compute {
            Compute::Kernels => "kernels",
            Compute::Candle => "candle",
            Compute::On(_) => "device",
        };
        Ok(Self { name, session: model.session()? })
    }

    /// The model on ONNX Runtime's CPU kernels.
    pub(super) fn onnx(
        subject: &Subject,
        (variant, name): (Variant, &'static str),
        libraries: &Libraries,
    ) -> Result<Self> {
        let model = LoadedModel::open(&subject.path)?.model;
        let cache = subject.path.with_extension("onnx");
        let place = Place { provider: Provider::Cpu, variant: Some(variant), libraries: libraries.clone(), cache };
        let graphs = read_dense(&subject.path, |dense| Graphs::open((&model, dense), place))?;
        Ok(Self { name, session: Device::new(model, graphs).session() })
    }

    fn tokens(&self, from: usize, count: usize) -> Vec<TokenId> {
        let vocabulary = self.session.vocab_size();
        (from..from + count).map(|i| ((i * 7919 + 13) % (vocabulary - 3) + 3) as TokenId).collect()
    }
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        self.name
    }

    fn time(&mut self, task: Task) -> Result<f64> {
        let (start, count) = match task {
            Task::Rows(rows) => (CONTEXT, rows),
            Task::Prompt(tokens) => (0, tokens),
        };
        self.session.keep(self.session.linear().min(start), &[])?;
        let missing = self.tokens(self.session.linear(), start - self.session.linear());
        self.session.prefill(&missing)?;
        let tokens = self.tokens(start, count);
        let begin = Instant::now();
        let with_logits = match task {
            Task::Rows(_) => &tokens[..],
            Task::Prompt(_) => {
                self.session.prefill(&tokens[..count - 1])?;
                &tokens[count - 1..]
            }
        };
        let nodes = chain_nodes(with_logits, self.session.linear());
        let logits = self.session.forward(&nodes, None)?;
        let seconds = begin.elapsed().as_secs_f64();
        drop(logits);
        Ok(seconds)
    }
}

/// Drives llama.cpp through its Python package.
static SCRIPT: &str = include_str!("llama.py");

/// The Python that has llama.cpp's package: the one named, else the system's if it has it.
pub(super) fn python(named: Option<&Path>) -> Result<Option<PathBuf>> {
    let python = named.map_or_else(|| PathBuf::from("python3"), Path::to_owned);
    let found = Command::new(&python).args(["-c", "import llama_cpp"]).stderr(Stdio::null()).status();
    match (found.is_ok_and(|status| status.success()), named) {
        (true, _) => Ok(Some(python)),
        (false, None) => Ok(None),
        (false, Some(path)) => {
            bail!("--python {}: no Python that has the package llama-cpp-python (pip install it there)", path.display())
        }
    }
}

pub(super) struct Llama {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Llama {
    pub(super) fn start(python: &Path, subject: &Subject) -> Result<Self> {
        let mut process = Command::new(python)
            .args(["-c", SCRIPT])
            .arg(&subject.path)
            .args(["1", &CONTEXT.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| python.display().to_string())?;
        let (questions, answers) = (process.stdin.take(), process.stdout.take());
        let (questions, answers) = (questions.context("its input")?, answers.context("its output")?);
        let mut started = Self { process, questions, answers: BufReader::new(answers) };
        // Its version: it is ready.
        started.answer()?;
        Ok(started)
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("llama.cpp ended before it answered");
        }
        Ok(line)
    }
}

impl Contender for Llama {
    fn name(&self) -> &'static str {
        "llama.cpp"
    }

    fn time(&mut self, task: Task) -> Result<f64> {
        let (what, count) = match task {
            Task::Rows(n) => ("rows", n),
            Task::Prompt(n) => ("prompt", n),
        };
        writeln!(self.questions, "{what} {count}")?;
        self.questions.flush()?;
        let line = self.answer()?;
        line.trim().parse().with_context(|| format!("llama.cpp said `{line}`"))
    }
}

impl Drop for Llama {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
