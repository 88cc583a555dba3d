//! Where methods are measured: the devices of target and draft, and drafts of simulated latency beside the real one.

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use specula_engine::Engine;
use specula_models::LoadedModel;

use super::run::{Asked, ask};
use crate::contender::Contender;
use crate::options::{Device, EngineArgs};
use crate::startup;

/// Which cores a method may use. Numbers of different settings are never put into one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Setting {
    /// The target has one core to itself and the draft another, for every method: as with a GPU and an NPU.
    TwoDevices,
    /// Every method may use all cores as it likes.
    WholeMachine,
}

impl Setting {
    /// Devices of target and draft.
    fn devices(self) -> (&'static str, &'static str) {
        match self {
            Self::TwoDevices => ("cpu:0", "cpu:1"),
            Self::WholeMachine => ("cpu", "cpu"),
        }
    }
}

/// The devices that options and setting come to, put into the options.
pub(crate) fn place(args: &mut EngineArgs, setting: Option<Setting>) -> Result<()> {
    let Some(setting) = setting else { return Ok(()) };
    if args.target_device.is_some() || args.draft_device.is_some() {
        bail!("--setting says where both models run; leave out --target-device and --draft-device");
    }
    let (target, draft) = setting.devices();
    let device = |name: &str| name.parse::<Device>().map_err(|why| anyhow::anyhow!("--setting: {why}"));
    (args.target_device, args.draft_device) = (Some(device(target)?), Some(device(draft)?));
    Ok(())
}

/// An engine with the draft as it is, or with one of simulated latency.
pub(crate) struct Stage {
    pub(crate) engine: Engine,
    /// c, what a draft step of one row shall cost, as a share of a target pass of one row; `None`: the draft as it is.
    pub(crate) latency: Option<f64>,
    /// The device that makes it slow; `None` for the draft as it is.
    pub(crate) slowed: Option<String>,
}

impl Stage {
    /// For tables: `as it is` or `c = 5 %`.
    pub(crate) fn label(&self) -> String {
        self.latency.map_or("as it is".to_owned(), |share| format!("c = {} %", round(share * 100.0)))
    }
}

fn round(percent: f64) -> f64 {
    (percent * 100.0).round() / 100.0
}

/// Stages on one pair of models, the draft as it is first; and what a target pass of one row took, in milliseconds, if that
/// was needed.
pub(crate) fn stages(
    args: &EngineArgs,
    pair: &(LoadedModel, Option<LoadedModel>),
    latencies: &[f64],
) -> Result<(Vec<Stage>, Option<f64>)> {
    let first = Stage { engine: startup::engine_of(args, pair.clone())?, latency: None, slowed: None };
    if latencies.is_empty() {
        return Ok((vec![first], None));
    }
    if pair.1.is_none() {
        bail!("--draft-latency needs a draft; name one with --draft");
    }
    let one_row = one_row_ms(&first.engine)?;
    let below = startup::cores(args).1.map_or(Device::Cpu, Device::Core);
    let mut stages = vec![first];
    for &latency in latencies {
        let device = format!("simulated:{:.4}@{below}", latency * one_row);
        let parsed = device.parse().map_err(|why| anyhow::anyhow!("--draft-latency: {why}"))?;
        let slowed = EngineArgs { draft_device: Some(parsed), ..args.clone() };
        let engine = startup::engine_of(&slowed, pair.clone())?;
        stages.push(Stage { engine, latency: Some(latency), slowed: Some(device) });
    }
    Ok((stages, Some(one_row)))
}

/// Median of plain decoding's passes over one answer; the first answer only fills caches and pages.
fn one_row_ms(engine: &Engine) -> Result<f64> {
    const TOKENS: u64 = 64;
    let none = Contender::parse("none")?;
    let history = [("user".to_owned(), "What does tar do?".to_owned())];
    let asked =
        Asked { history: &history, contender: &none, temperature: 0.0, max_tokens: TOKENS, seed: 1, plugins: &[] };
    ask(engine, &asked)?;
    let (turn, _) = ask(engine, &asked)?;
    let mut passes: Vec<u64> = turn.parts.iter().map(|round| round.pass()).collect();
    passes.sort_unstable();
    let median =
        passes.get(passes.len() / 2).context("--draft-latency: the target's answer is too short to time it")?;
    Ok(*median as f64 / 1e3)
}

/// Reads `5%` as 0.05.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    match number {
        Some(percent) if percent > 0.0 && percent <= 1000.0 => Ok(percent / 100.0),
        _ => Err(format!("`{text}` is not a share of the target's pass above 0 % and up to 1000 %, like 5%")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percentages() {
        assert_eq!(share("5%"), Ok(0.05));
        assert_eq!(share("12.5 %"), Ok(0.125));
        for bad in ["5", "0%", "-5%", "x%", "1001%"] {
            assert!(share(bad).is_err_and(|why| why.contains(bad)), "{bad}");
        }
    }

    #[test]
    fn a_setting_places_both_models_and_allows_no_other_place() {
        let mut args = EngineArgs::default();
        place(&mut args, Some(Setting::WholeMachine)).expect("any machine");
        assert_eq!((args.target_device, args.draft_device), (Some(Device::Cpu), Some(Device::Cpu)));
        assert!(place(&mut args, Some(Setting::TwoDevices)).is_err());
        assert!(place(&mut args, None).is_ok());
    }
}
