//! From options to a running engine: the pair, the plugins, the threads.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use specula_engine::{Engine, EngineConfig};
use specula_models::{DenseWeights, Exits, Form, Latency, LoadedModel, Streams, read_dense, read_dense_gguf};
use specula_policies::Registry;

use crate::coverage;
use crate::device;
use crate::hub::{self, Found};
use crate::npu;
use crate::options::EngineArgs;

mod dist {
    include!(concat!(env!("OUT_DIR"), "/dist.rs"));
}

/// The page's files, as `cargo xtask wasm` built them; empty if it did not.
pub(crate) static PAGE: &[(&str, &[u8])] = dist::PAGE;

pub(crate) static TARGET: &[u8] = include_bytes!("../../weights/target.gguf");
pub(crate) static DRAFT: &[u8] = include_bytes!("../../weights/draft.gguf");
const DRAFT_NAME: &str = "specula-draft";
static EXITS: &[u8] = include_bytes!("../../weights/exit.safetensors");
static STREAMS: &[u8] = include_bytes!("../../weights/streams.safetensors");

/// Starts an engine on the models named, else on the embedded pair.
pub(crate) fn engine(args: &EngineArgs) -> Result<Engine> {
    engine_with(args, plugins(args)?)
}

/// Starts an engine on them for which no plugin is compiled: nobody will name one.
pub(crate) fn engine_without_plugins(args: &EngineArgs) -> Result<Engine> {
    engine_without_plugins_of(args, pair(args)?)
}

/// The same on models already loaded.
pub(crate) fn engine_without_plugins_of(args: &EngineArgs, pair: (LoadedModel, Option<LoadedModel>)) -> Result<Engine> {
    plugin_folder(args)?;
    start(args, pair, args.draft_device.latency, Registry::new(args.plugin_limits.limits())?)
}

/// Starts an engine on them with these plugins.
pub(crate) fn engine_with(args: &EngineArgs, plugins: Registry) -> Result<Engine> {
    start(args, pair(args)?, args.draft_device.latency, plugins)
}

/// Starts an engine on models already loaded; `draft_latency` makes the draft's device a simulated one.
pub(crate) fn engine_of(
    args: &EngineArgs,
    pair: (LoadedModel, Option<LoadedModel>),
    draft_latency: Option<Latency>,
) -> Result<Engine> {
    start(args, pair, draft_latency, plugins(args)?)
}

fn start(
    args: &EngineArgs,
    (target, draft): (LoadedModel, Option<LoadedModel>),
    draft_latency: Option<Latency>,
    plugins: Registry,
) -> Result<Engine> {
    for model in [Some(&target), draft.as_ref()].into_iter().flatten() {
        tracing::info!(model = model.name, by = model.model.computed_by(), "computed");
    }
    let draft_device = draft.as_ref().and_then(|draft| npu::device(args, &draft.model));
    let cores = device::place(&args.target_device, draft.as_ref().map(|_| &args.draft_device.device));
    let coverage = coverage::read(args, &target)?;
    let config = EngineConfig {
        // Measured by the target's own layers.
        coverage: coverage.map(|of| of.into_iter().map(|(layer, part)| (target.model.place(layer), part)).collect()),
        target,
        draft,
        draft_device,
        draft_latency,
        plugins: Arc::new(plugins),
        default_method: args.method,
        max_running: usize::from(args.max_running),
        max_waiting: usize::from(args.max_waiting),
        cores,
    };
    let engine = Engine::start(config)?;
    if let Some(why) = &engine.facts().draft_refused {
        tracing::warn!("the draft is not used by `auto`: {why}");
    }
    Ok(engine)
}

/// The models named, else the embedded pair. A target of one's own has no draft unless one is named.
pub(crate) fn pair(args: &EngineArgs) -> Result<(LoadedModel, Option<LoadedModel>)> {
    pair_as(args, Form::default())
}

/// The same, with the target in a form of one's choice.
pub(crate) fn pair_as(args: &EngineArgs, form: Form) -> Result<(LoadedModel, Option<LoadedModel>)> {
    let form = Form { compute: args.target_device.compute("--target-device")?, ..form };
    let mut target = match &args.target {
        Some(named) => open(named, form)?,
        None => LoadedModel::from_gguf_bytes_as("specula-target", TARGET, form)?,
    };
    match (&args.exits, &args.target) {
        (Some(path), _) => {
            let exits = Exits::open(path).map_err(anyhow::Error::msg)?;
            target.model.set_exits(&exits).map_err(|why| anyhow::anyhow!("--exits {}: {why}", path.display()))?;
        }
        (None, None) => {
            target
                .model
                .set_exits(&Exits::from_bytes(EXITS).map_err(anyhow::Error::msg)?)
                .map_err(anyhow::Error::msg)?;
        }
        (None, Some(_)) => {}
    }
    Ok((target, draft(args)?))
}

/// The draft of that pair.
pub(crate) fn draft(args: &EngineArgs) -> Result<Option<LoadedModel>> {
    let compute = args.draft_device.device.compute("--draft-device")?;
    let mut draft = match (&args.draft, &args.target) {
        (Some(named), _) => Some(open(named, Form { compute, ..Form::default() })?),
        (None, None) => {
            let form = Form { compute, ..Form::default() };
            Some(LoadedModel::from_gguf_bytes_as(DRAFT_NAME, DRAFT, form)?)
        }
        (None, Some(_)) => None,
    };
    let embedded = args.draft.is_none() && args.target.is_none();
    match (&args.draft_streams, &mut draft) {
        (Some(path), Some(draft)) => {
            let streams = Streams::open(path).map_err(anyhow::Error::msg)?;
            let set = draft.model.set_streams(&streams);
            set.map_err(|why| anyhow::anyhow!("--draft-streams {}: {why}", path.display()))?;
        }
        (Some(_), None) => anyhow::bail!("--draft-streams needs a draft; name one with --draft"),
        (None, Some(draft)) if embedded => {
            let streams = Streams::from_bytes(STREAMS).map_err(anyhow::Error::msg)?;
            draft.model.set_streams(&streams).map_err(anyhow::Error::msg)?;
        }
        (None, _) => {}
    }
    Ok(draft)
}

/// Has the weights of that draft read.
pub(crate) fn read_draft<T>(args: &EngineArgs, read: impl FnOnce(&DenseWeights<'_>) -> Result<T, String>) -> Result<T> {
    Ok(match &args.draft {
        Some(named) => read_dense(&hub::find(named)?.path, read)?,
        None => read_dense_gguf(DRAFT_NAME, DRAFT, read)?,
    })
}

/// Opens the model that an option names, by path or by the hub's id.
fn open(named: &Path, form: Form) -> Result<LoadedModel> {
    let Found { path, id } = hub::find(named)?;
    Ok(match id {
        Some(id) => LoadedModel::open_named(&path, &id, form)?,
        None => LoadedModel::open_as(&path, form)?,
    })
}

/// The shipped plugins, and those of a folder. A bad file is reported and left out.
pub(crate) fn plugins(args: &EngineArgs) -> Result<Registry> {
    let registry = Registry::new(args.plugin_limits.limits())?;
    for (file, bytes) in dist::PLUGINS {
        let name = file.strip_suffix(".wasm").unwrap_or(file);
        registry.load(name, bytes).with_context(|| format!("shipped plugin `{name}`"))?;
    }
    if let Some(folder) = plugin_folder(args)? {
        for (path, error) in registry.load_folder(folder) {
            tracing::warn!(path = %path.display(), code = error.code(), %error, "plugin left out");
        }
    }
    Ok(registry)
}

/// The folder of an operator's plugins, which must be there whether or not they are used.
fn plugin_folder(args: &EngineArgs) -> Result<Option<&Path>> {
    match &args.plugins {
        Some(folder) if !folder.is_dir() => anyhow::bail!("--plugins {}: no such folder", folder.display()),
        folder => Ok(folder.as_deref()),
    }
}
