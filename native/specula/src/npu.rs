//! Drafts on accelerators: the options, the trial that a device must pass, and `specula export-draft`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use specula_engine::DraftDevice;
use specula_models::Model;
use specula_npu::admission::{self, Trial};
use specula_npu::{Device, Graphs, Guarded, Libraries, Patience, Place, Provider, Runtime, Sessions, Variant};

use crate::options::EngineArgs;
use crate::startup;

/// The hidden command by which this program tries a device in a process of its own.
pub(crate) const TRY: &str = "try-npu";

/// Options of accelerators.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct NpuArgs {
    /// ONNX Runtime's library, 1.24 or newer, for `npu:` devices. Default: what the system's loader finds.
    #[arg(long, env = "ORT_DYLIB_PATH", value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
    /// The library of a provider that ONNX Runtime does not bring, such as Qualcomm's.
    #[arg(long, env = "SPECULA_NPU_PLUGIN", value_name = "FILE")]
    npu_plugin: Option<PathBuf>,
    /// Numbers that the draft is given to the accelerator in. Default: what suits the provider.
    #[arg(long, env = "SPECULA_NPU_VARIANT", value_parser = variants())]
    npu_variant: Option<Variant>,
    /// Folder for what is compiled for accelerators. Default: specula/npu in the user's cache folder.
    #[arg(long, env = "SPECULA_NPU_CACHE", value_name = "DIR")]
    npu_cache: Option<PathBuf>,
    /// What the trial of an accelerator may take, compiling included, and what a graph that is compiled later may, in seconds.
    #[arg(long, env = "SPECULA_NPU_TIME_LIMIT", value_name = "SECONDS", default_value_t = 120)]
    npu_time_limit: u64,
    /// Draft on the accelerator even if the CPU's cores are quicker.
    #[arg(long, env = "SPECULA_NPU_EVEN_IF_SLOWER")]
    npu_even_if_slower: bool,
}

fn variants() -> impl TypedValueParser<Value = Variant> {
    // The parser has checked the name.
    let parse = |name: String| Variant::from_name(&name).unwrap_or(Variant::F32);
    PossibleValuesParser::new(Variant::ALL.map(Variant::name)).map(parse)
}

impl NpuArgs {
    fn libraries(&self) -> Libraries {
        Libraries { runtime: self.onnxruntime.clone(), plugin: self.npu_plugin.clone() }
    }

    /// The same if ONNX Runtime was named.
    pub(crate) fn named_libraries(&self) -> Option<Libraries> {
        self.onnxruntime.is_some().then(|| self.libraries())
    }

    fn place(&self, provider: &Provider) -> Place {
        Place {
            provider: provider.clone(),
            variant: self.npu_variant,
            libraries: self.libraries(),
            cache: self.npu_cache.clone().unwrap_or_else(default_cache),
        }
    }
}

fn default_cache() -> PathBuf {
    let home = |name: &str, below: &str| Some(PathBuf::from(std::env::var_os(name)?).join(below));
    let user = home("XDG_CACHE_HOME", "").or_else(|| home("LOCALAPPDATA", "")).or_else(|| home("HOME", ".cache"));
    user.unwrap_or_else(std::env::temp_dir).join("specula/npu")
}

/// The accelerator that the draft was asked to run on, if it passes its trial; the log tells why it does not.
pub(crate) fn device(args: &EngineArgs, model: &Model) -> Option<DraftDevice> {
    let provider = args.draft_device.npu.as_ref()?;
    let ready = trial(args, provider).and_then(|trial| {
        tracing::info!(
            rows = trial.rows,
            alike = trial.alike,
            times = trial.times(),
            "npu:{provider} passed its trial"
        );
        let graphs = graphs(args, provider, model)?;
        let compiling = Duration::from_secs(args.npu.npu_time_limit);
        Ok((Patience::after(&trial, compiling, graphs.compiling()), graphs))
    });
    match ready {
        Ok((patience, graphs)) => {
            tracing::info!(by = graphs.computed_by(), "the draft is computed by an accelerator");
            Some(Box::new(move |model: &Model| {
                let (device, spare) = (Device::new(model.clone(), graphs), model.clone());
                let device: Sessions = Arc::new(move || device.prepare().map(|()| device.session()));
                let guarded = Guarded::new(device, Arc::new(move || spare.session()), patience);
                Arc::new(move || guarded.session())
            }))
        }
        Err(why) => {
            tracing::warn!("the draft does not run on npu:{provider} but on the CPU: {why}");
            None
        }
    }
}

fn graphs(args: &EngineArgs, provider: &Provider, model: &Model) -> Result<Graphs, String> {
    let place = args.npu.place(provider);
    startup::read_draft(args, |dense| Graphs::open((model, dense), place)).map_err(|error| format!("{error:#}"))
}

/// Tries a provider in a process of its own. Why the draft cannot run on it, or shall not.
fn trial(args: &EngineArgs, provider: &Provider) -> Result<Trial, String> {
    let this = Path::new("/proc/self/exe");
    let program = if this.exists() { Ok(this.to_owned()) } else { std::env::current_exe() };
    let mut command = Command::new(program.map_err(|error| error.to_string())?);
    command.arg(TRY).args(["--draft-device", &format!("npu:{provider}")]);
    let NpuArgs { onnxruntime, npu_plugin, npu_variant, npu_cache, .. } = &args.npu;
    let paths = [
        ("--draft", &args.draft),
        ("--draft-streams", &args.draft_streams),
        ("--onnxruntime", onnxruntime),
        ("--npu-plugin", npu_plugin),
        ("--npu-cache", npu_cache),
    ];
    for (name, path) in paths {
        if let Some(path) = path {
            command.arg(name).arg(path);
        }
    }
    if let Some(variant) = npu_variant {
        command.args(["--npu-variant", variant.name()]);
    }
    let trial = admission::in_a_process(command, Duration::from_secs(args.npu.npu_time_limit))?;
    trial.refusal(args.npu.npu_even_if_slower).map_or(Ok(trial), Err)
}

/// What that process does.
pub(crate) fn try_out(args: &EngineArgs) -> Result<()> {
    let provider = args.draft_device.npu.as_ref().context("--draft-device names no accelerator")?;
    let draft = startup::draft(args)?.context("there is no draft")?;
    println!("{}", admission::tell(&examine(args, provider, &draft.model)));
    Ok(())
}

fn examine(args: &EngineArgs, provider: &Provider, model: &Model) -> Result<Trial, String> {
    let mut graphs = graphs(args, provider, model)?;
    let begin = Instant::now();
    graphs.prepare().map_err(|error| error.0)?;
    let (compile_ms, computed_by) = (begin.elapsed().as_secs_f64() * 1e3, graphs.computed_by());
    let device = Device::new(model.clone(), graphs);
    let found = admission::examine(&|| Ok(device.session()), &|| model.session()).map_err(|error| error.0)?;
    Ok(Trial { computed_by, compile_ms, ..found })
}

/// What `doctor` says of accelerators. By what the draft is computed if the one it was asked to run on lets it.
pub(crate) fn doctor(args: &EngineArgs) -> Option<String> {
    let runtime = match Runtime::load(&args.npu.libraries()) {
        Ok(runtime) => runtime,
        Err(why) => {
            println!("npu              {why}");
            return None;
        }
    };
    println!("npu              {}", runtime.version());
    let asked = args.draft_device.npu.as_ref();
    let plugin = args.npu.npu_plugin.as_deref();
    if let Some(Err(why)) = plugin.map(|plugin| runtime.register(asked.unwrap_or(&Provider::Qnn), plugin)) {
        println!("                 {why}");
    }
    for device in runtime.devices() {
        println!("                 {device}");
    }
    for provider in Provider::all() {
        let state = if runtime.has(&provider) { "there" } else { provider.how_to_get() };
        println!("  {:<17} {state}", format!("npu:{provider}"));
    }
    let provider = asked?;
    match trial(args, provider) {
        Ok(trial) => {
            println!("  tried          npu:{provider} drafts: {} of {} rows alike", trial.alike, trial.rows);
            println!("                 {}", trial.computed_by);
            println!("                 compiled in {:.0} ms; {}", trial.compile_ms, trial.times());
            Some(format!("npu:{}", trial.computed_by))
        }
        Err(why) => {
            println!("  tried          npu:{provider} does not draft: {why}");
            println!("                 what it needs: {}", provider.how_to_get());
            None
        }
    }
}

/// What is exported, and where to.
#[derive(Args)]
pub(crate) struct ExportArgs {
    /// Draft model: a .gguf file, or a folder with config.json, tokenizer.json and *.safetensors. Default: the embedded one.
    #[arg(long, env = "SPECULA_DRAFT", value_name = "PATH")]
    draft: Option<PathBuf>,
    /// Streams of the draft. Default: streams.safetensors in the draft's folder.
    #[arg(long = "draft-streams", env = "SPECULA_DRAFT_STREAMS", value_name = "FILE")]
    draft_streams: Option<PathBuf>,
    /// Folder for graphs, weights, embeddings and draft.json, which describes them.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// f32 and f16 for NPUs of 16 bits; w8 and dyn8 have int8 weights, for OpenVINO and for ONNX Runtime's CPU kernels.
    #[arg(long, default_value = "f32", value_parser = variants())]
    variant: Variant,
}

pub(crate) fn export(args: &ExportArgs) -> Result<()> {
    let engine =
        EngineArgs { draft: args.draft.clone(), draft_streams: args.draft_streams.clone(), ..EngineArgs::default() };
    let draft = startup::draft(&engine)?.context("there is no draft")?;
    let written = startup::read_draft(&engine, |dense| {
        specula_npu::write_folder((&draft.model, dense), args.variant, &args.out)
    })?;
    println!(
        "{}: {} graphs of {} in {}, {:.1} MB of weights, {}",
        args.out.display(),
        written.graphs.len(),
        draft.name,
        args.variant.name(),
        written.weights.1 as f64 / 1e6,
        specula_npu::MANIFEST,
    );
    Ok(())
}
