//! Where uploads are examined: a process of its own, of low priority and bounded means, killed when its time is up. The
//! compiler makes no promise for hostile input; whatever it does there, the server goes on.
//!
//! The file is the process's standard input. Its standard output, a file too, gets what it found: the length of some JSON
//! (four bytes, little end first), the JSON, the compiled code.

mod bounds;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Class;
use crate::examine::{Examined, examine};
use crate::facts::Facts;
use crate::load_error::LoadError;
use crate::text::one_line;

/// Largest part of what a dying process says that is read.
const LAST_WORDS: usize = 512;
const LONGEST_POLL: Duration = Duration::from_millis(10);

/// A check that a plugin failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Stable code.
    pub code: String,
    /// Names the bound, the value and the remedy where there are any.
    pub message: String,
}

impl Refusal {
    fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }
}

impl From<LoadError> for Refusal {
    fn from(error: LoadError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// How to start the process: a program that calls [`at_the_bench`].
#[derive(Debug)]
pub struct Workshop {
    program: PathBuf,
    args: Vec<OsString>,
    /// One plugin of each class at a time, so that a crowd of uploads leaves the other cores alone, and an interpreter, which
    /// takes many times longer, lets the others by.
    benches: BTreeMap<Class, Mutex<()>>,
}

impl Workshop {
    /// `program args… CLASS CONFIG` must call [`at_the_bench`] with that class and configuration.
    pub fn new(program: impl Into<PathBuf>, args: &[&str]) -> Self {
        let benches = Class::ALL.map(|class| (class, Mutex::default())).into();
        Self { program: program.into(), args: args.iter().map(OsString::from).collect(), benches }
    }

    /// This very program, even if its file was replaced meanwhile.
    ///
    /// # Errors
    /// The system does not tell where it is.
    pub fn of_this_program(args: &[&str]) -> io::Result<Self> {
        let this = Path::new("/proc/self/exe");
        let program = if this.exists() { this.to_owned() } else { std::env::current_exe()? };
        Ok(Self::new(program, args))
    }

    /// Has a file examined; `draft` is a free path for what is found.
    ///
    /// # Errors
    /// The first check that it fails, or that it cannot be examined here.
    pub fn examine(&self, file: &Path, draft: &Path, (class, config): (Class, &Value)) -> Result<Examined, Refusal> {
        let broken = |error: io::Error| Refusal::new("workshop", format!("the plugin could not be examined: {error}"));
        let bench = self.benches.get(&class);
        let _turn = bench.map(|bench| bench.lock().unwrap_or_else(PoisonError::into_inner));
        let draft = Draft(draft);
        let words = Draft(&draft.0.with_extension("words"));
        let mut child = self.start((file, draft.0, words.0), class, config).map_err(broken)?;
        match child.wait(class.exam().wall).map_err(broken)? {
            None => Err(Refusal::new("compile-timeout", format!("not done after {} s", class.exam().wall.as_secs()))),
            Some(status) if status.success() => read_findings(draft.0).map_err(broken)?,
            Some(status) => Err(explain(status, words.0, class)),
        }
    }

    fn start(&self, (file, draft, words): (&Path, &Path, &Path), class: Class, config: &Value) -> io::Result<Bench> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).arg(class.as_str()).arg(config.to_string());
        // One thread, so that the other cores stay free and memory does not depend on their number.
        command.env_clear().env("RAYON_NUM_THREADS", "1").current_dir("/");
        command.stdin(File::open(file)?).stdout(File::create_new(draft)?).stderr(File::create_new(words)?);
        Ok(Bench(command.spawn()?))
    }
}

/// A file that is removed at the end.
struct Draft<'a>(&'a Path);

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // At worst the next start clears it.
        let _ = fs::remove_file(self.0);
    }
}

/// A running examination; killed and buried when dropped.
struct Bench(Child);

impl Bench {
    /// Its end, unless that takes longer.
    fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let begin = Instant::now();
        let mut poll = Duration::from_millis(1);
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(Some(status));
            }
            if begin.elapsed() > limit {
                return Ok(None);
            }
            thread::sleep(poll);
            poll = (poll * 2).min(LONGEST_POLL);
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_findings(path: &Path) -> io::Result<Result<Examined, Refusal>> {
    let mut file = File::open(path)?;
    let mut length = [0; 4];
    file.read_exact(&mut length)?;
    let mut json = vec![0; u32::from_le_bytes(length) as usize];
    file.read_exact(&mut json)?;
    let facts: Result<Facts, Refusal> = serde_json::from_slice(&json).map_err(io::Error::other)?;
    let mut code = Vec::new();
    file.read_to_end(&mut code)?;
    Ok(facts.map(|facts| Examined { facts, code }))
}

/// Why a process died of a plugin.
fn explain(status: ExitStatus, words: &Path, class: Class) -> Refusal {
    let mut said = Vec::new();
    if let Ok(file) = File::open(words) {
        let _ = file.take(LAST_WORDS as u64).read_to_end(&mut said);
    }
    let said = one_line(&String::from_utf8_lossy(&said), LAST_WORDS);
    let exam = class.exam();
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    let signal: Option<i32> = None;
    // Linux's numbers: XCPU and KILL end who used up the processor time, XFSZ who wrote too much.
    match signal {
        Some(9 | 24) => Refusal::new("compile-timeout", format!("used up {} s of processor time", exam.cpu_s)),
        Some(25) => Refusal::new("compile-failed", format!("makes more than {} bytes of code", exam.code_bytes)),
        _ if said.contains("memory allocation of") => {
            Refusal::new("compile-memory", format!("needs more than {} MiB to be examined", exam.memory_bytes >> 20))
        }
        _ => Refusal::new("compile-failed", format!("the examination ended with {status}: {said}")),
    }
}

/// What the process does: bounds itself, examines its standard input, tells on its standard output.
///
/// # Errors
/// The system's.
pub fn at_the_bench(class: Class, config: &Value) -> io::Result<()> {
    bounds::accept(&class.exam())?;
    let mut bytes = Vec::new();
    io::stdin().take(class.limits().file_bytes as u64 + 1).read_to_end(&mut bytes)?;
    let (facts, code) = match examine(&bytes, class, config) {
        Ok(examined) => (Ok(examined.facts), examined.code),
        Err(error) => (Err(Refusal::from(error)), Vec::new()),
    };
    let json = serde_json::to_vec(&facts).map_err(io::Error::other)?;
    let mut out = io::stdout().lock();
    out.write_all(&(json.len() as u32).to_le_bytes())?;
    out.write_all(&json)?;
    out.write_all(&code)?;
    out.flush()
}
