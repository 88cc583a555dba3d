//! Under which conditions a run was made: what was asked, of what, where.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};
use specula_models::LoadedModel;

use super::kernels::random::multiplied;
use crate::device;
use crate::options::EngineArgs;

/// What a summary says of its run beside its numbers.
#[derive(Debug, Serialize)]
pub(crate) struct Conditions {
    pub(crate) suite: String,
    pub(crate) questions: usize,
    /// Turns that each method was asked.
    pub(crate) turns: usize,
    /// Of them, those whose question lost its end to fit into the context.
    pub(crate) cut_turns: usize,
    /// Turns left out because what was said before filled the context.
    pub(crate) skipped_turns: usize,
    pub(crate) max_tokens: u64,
    pub(crate) seed: u64,
    pub(crate) plugins: Vec<String>,
    pub(crate) target: Told,
    pub(crate) draft: Option<Told>,
    pub(crate) machine: Machine,
    pub(crate) version: &'static str,
}

/// A model.
#[derive(Debug, Serialize)]
pub(crate) struct Told {
    /// Says so if it is padded or dequantised.
    pub(crate) name: String,
    pub(crate) layers: usize,
    /// Weights that a pass multiplies with.
    pub(crate) weights: usize,
    pub(crate) computed_by: String,
    /// SHA-256 of its file, or of the digests of its folder's weight files, before any padding.
    pub(crate) sha256: String,
}

/// Where it ran.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) processor: Option<String>,
    /// `two-devices`, `whole-machine`, or nothing if the devices were named one by one.
    pub(crate) setting: Option<String>,
    pub(crate) target_device: String,
    pub(crate) draft_device: String,
    /// Devices of the drafts that are slowed down.
    pub(crate) slowed_drafts: Vec<String>,
    /// Milliseconds of a target pass of one row that simulated latencies are shares of.
    pub(crate) one_row_ms: Option<f64>,
    /// What else ran, as the system says: before and after.
    pub(crate) load_before: Option<String>,
    pub(crate) load_after: Option<String>,
}

impl Machine {
    pub(crate) fn new(args: &EngineArgs, has_draft: bool, setting: Option<String>) -> Self {
        let (target, draft) = device::place(&args.target_device, has_draft.then_some(&args.draft_device.device));
        let cores = |cores: &[usize]| format!("cpu:{}", device::list(cores));
        let lent =
            if target.lent.is_empty() { String::new() } else { format!(" (alone also {})", cores(&target.lent)) };
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: processor(),
            setting,
            target_device: cores(&target.own) + &lent,
            draft_device: if has_draft { cores(&draft.own) } else { "-".to_owned() },
            slowed_drafts: Vec::new(),
            one_row_ms: None,
            load_before: load(),
            load_after: None,
        }
    }
}

/// The system's load averages, where it tells them.
pub(crate) fn load() -> Option<String> {
    std::fs::read_to_string("/proc/loadavg").ok().map(|load| load.trim().to_owned())
}

fn processor() -> Option<String> {
    let told = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = told.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

impl Told {
    /// `path` is where the model came from; without one it is the embedded `bytes`.
    pub(crate) fn of(model: &LoadedModel, path: Option<&Path>, bytes: &[u8]) -> Result<Self> {
        let config = model.model.config();
        Ok(Self {
            name: model.name.clone(),
            layers: config.layers,
            weights: multiplied(config),
            computed_by: model.model.computed_by(),
            sha256: match path {
                None => hex(&Sha256::digest(bytes)),
                Some(path) => digest(path).with_context(|| path.display().to_string())?,
            },
        })
    }
}

fn digest(path: &Path) -> Result<String> {
    if !path.is_dir() {
        return file_digest(path);
    }
    let entries = std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    let mut files: Vec<PathBuf> =
        entries.into_iter().filter(|file| file.extension().is_some_and(|end| end == "safetensors")).collect();
    files.sort();
    let digests = files.iter().map(|file| file_digest(file)).collect::<Result<Vec<_>>>()?;
    Ok(hex(&Sha256::digest(digests.concat())))
}

fn file_digest(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex(&hasher.finalize())),
            read => hasher.update(&piece[..read]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
