//! Options that several commands share. Each can also be set by the environment (`SPECULA_*`).

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use specula_engine::Method;
use specula_policies::Class;

use crate::plugin::class;

use crate::device::{Device, DraftDevice};
use crate::npu::NpuArgs;

/// What is served and where it runs.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct EngineArgs {
    /// Target model: a .gguf file, or a folder with config.json, tokenizer.json and *.safetensors; or, where no such path is,
    /// the Hugging Face hub's `org/name` or `org/name:file.gguf`, which is fetched. Default: the embedded pair.
    #[arg(long, env = "SPECULA_TARGET", value_name = "PATH|ID")]
    pub(crate) target: Option<PathBuf>,
    /// Draft model, as for --target; it must have the target's vocabulary.
    #[arg(long, env = "SPECULA_DRAFT", value_name = "PATH|ID")]
    pub(crate) draft: Option<PathBuf>,
    /// Early exits of the target (`specula train exit`). Default: exit.safetensors in the target's folder.
    #[arg(long, env = "SPECULA_EXITS", value_name = "FILE")]
    pub(crate) exits: Option<PathBuf>,
    /// How often the exits are right (`specula train exit`), by which calibration chooses one. Default: coverage.json in
    /// the target's folder.
    #[arg(long, env = "SPECULA_COVERAGE", value_name = "FILE")]
    pub(crate) coverage: Option<PathBuf>,
    /// Streams of the draft (`specula train draft`). Default: streams.safetensors in the draft's folder.
    #[arg(long = "draft-streams", env = "SPECULA_DRAFT_STREAMS", value_name = "FILE")]
    pub(crate) draft_streams: Option<PathBuf>,
    /// Method used when a request names none. Default: auto.
    #[arg(long, env = "SPECULA_METHOD", value_parser = methods())]
    pub(crate) method: Option<Method>,
    /// Where the target runs. `cuda:0`, `metal`: a device (`specula doctor` says which are there). Cores: `cpu:0`, `cpu:0-3`, `cpu:0,2`; a thread is kept on each. `cpu`: all that the draft leaves, at
    /// most 8, and the draft's too while no draft works beside the target and it is quicker so.
    #[arg(long, env = "SPECULA_TARGET_DEVICE", value_name = "DEVICE", default_value = "cpu")]
    pub(crate) target_device: Device,
    /// Where the draft runs, as for --target-device. `cpu`: the last that the target does not name. `npu:PROVIDER`: an
    /// accelerator by ONNX Runtime's cpu, openvino (or openvino:DEVICE), qnn, coreml or vitisai; where it does not pass its
    /// trial, or fails later, those cores. `simulated:2@cpu:1` or `simulated:2±0.5@npu:cpu`: slowed down by so many
    /// milliseconds a step.
    #[arg(long, env = "SPECULA_DRAFT_DEVICE", value_name = "DEVICE", default_value = "cpu")]
    pub(crate) draft_device: DraftDevice,
    #[command(flatten)]
    pub(crate) npu: NpuArgs,
    /// Folder of plugins (*.wasm) to load beside the shipped ones; a plugin is named after its file.
    #[arg(long, env = "SPECULA_PLUGINS", value_name = "DIR")]
    pub(crate) plugins: Option<PathBuf>,
    /// Limits of those plugins and, where there are no keys, of uploads: `interpreter` is for plugins that bring one along, in
    /// JavaScript or Python.
    #[arg(long, env = "SPECULA_PLUGIN_LIMITS", value_parser = class, default_value = "standard", value_name = "standard|interpreter")]
    pub(crate) plugin_limits: Class,
    /// Generations running at once, round by round.
    #[arg(long, env = "SPECULA_MAX_RUNNING", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) max_running: u16,
    /// Generations waiting for a place; beyond that the answer is 429.
    #[arg(long, env = "SPECULA_MAX_WAITING", default_value_t = 32, value_parser = clap::value_parser!(u16).range(0..=4096))]
    pub(crate) max_waiting: u16,
}

/// A decoding method's name.
fn methods() -> impl TypedValueParser<Value = Method> {
    // The parser has checked the name.
    let parse = |name: String| Method::from_name(&name).unwrap_or(Method::Auto);
    PossibleValuesParser::new(Method::ALL.map(Method::name)).map(parse)
}
