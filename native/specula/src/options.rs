//! Options that several commands share. Each can also be set by the environment (`SPECULA_*`).

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use specula_engine::Method;

/// What is served and where it runs.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct EngineArgs {
    /// Target model: a .gguf file, or a folder with config.json, tokenizer.json and *.safetensors. Default: the embedded
    /// pair.
    #[arg(long, env = "SPECULA_TARGET", value_name = "PATH")]
    pub(crate) target: Option<PathBuf>,
    /// Draft model, as for --target; it must have the target's vocabulary.
    #[arg(long, env = "SPECULA_DRAFT", value_name = "PATH")]
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
    /// Core of the target's thread: `cpu` leaves it to the scheduler, `cpu:N` pins it.
    #[arg(long, env = "SPECULA_TARGET_DEVICE", value_name = "DEVICE")]
    pub(crate) target_device: Option<Device>,
    /// Core of the draft's thread, as for --target-device.
    #[arg(long, env = "SPECULA_DRAFT_DEVICE", value_name = "DEVICE")]
    pub(crate) draft_device: Option<Device>,
    /// Folder of plugins (*.wasm) to load beside the shipped ones; a plugin is named after its file.
    #[arg(long, env = "SPECULA_PLUGINS", value_name = "DIR")]
    pub(crate) plugins: Option<PathBuf>,
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

/// Where a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// Any core.
    Cpu,
    /// One core.
    Core(usize),
}

impl Device {
    pub(crate) fn core(self) -> Option<usize> {
        match self {
            Self::Cpu => None,
            Self::Core(core) => Some(core),
        }
    }
}

impl std::str::FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            Some(("cpu", core)) => {
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                let core = core.parse::<usize>().map_err(|_| format!("`{core}` is not a core number"))?;
                if core >= cores {
                    return Err(format!("core {core} does not exist: this machine has {cores}, numbered from 0"));
                }
                Ok(Self::Core(core))
            }
            _ => Err(format!("device `{text}` is not available in this build; available: cpu, cpu:N")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_parsed_and_refused_with_reasons() {
        assert_eq!("cpu".parse(), Ok(Device::Cpu));
        assert_eq!("cpu:0".parse(), Ok(Device::Core(0)));
        assert!("cpu:100000".parse::<Device>().is_err_and(|e| e.contains("100000")));
        assert!("cuda:0".parse::<Device>().is_err_and(|e| e.contains("cuda:0")));
    }
}
