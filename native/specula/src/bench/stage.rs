//! Where methods are measured: the devices of target and draft, and drafts of simulated latency beside the real one.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;
use specula_engine::Engine;
use specula_models::{Form, Latency};

use crate::device::{Device, DraftDevice};
use crate::options::EngineArgs;
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
    if args.target_device != Device::Cpu || args.draft_device != DraftDevice::default() {
        bail!("--setting says where both models run; leave out --target-device and --draft-device");
    }
    let (target, draft) = setting.devices();
    let device = |name: &str| name.parse::<Device>().map_err(|why| anyhow::anyhow!("--setting: {why}"));
    args.target_device = device(target)?;
    args.draft_device.device = device(draft)?;
    Ok(())
}

/// An engine with the draft as it is, or with one of simulated latency.
pub(crate) struct Stage {
    pub(crate) engine: Engine,
    /// c, what a draft step of one row shall cost, as a share of a target pass of one row; `None`: the draft as it is.
    pub(crate) latency: Option<f64>,
    /// What makes it slow; `None` for the draft as it is.
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

/// Stages with the draft as it is and with each latency; and what a target pass of one row took, in milliseconds, if that was
/// needed.
pub(crate) fn stages(args: &EngineArgs, form: Form, latencies: &[f64]) -> Result<(Vec<Stage>, Option<f64>)> {
    // Each engine gives the models cores of its own, so none shares them with another.
    let engine = |latency| startup::engine_of(args, startup::pair_as(args, form)?, latency);
    let first = Stage { engine: engine(None)?, latency: None, slowed: None };
    if latencies.is_empty() {
        return Ok((vec![first], None));
    }
    let costs = &first.engine.plan().costs;
    let (Some(pass), Some(step)) = (costs.beside.at(1), costs.step.at(1)) else {
        bail!("--draft-latency needs a draft; name one with --draft");
    };
    let mut stages = Vec::new();
    for &share in latencies {
        let added = share * pass - step;
        if added < 0.0 {
            bail!(
                "--draft-latency {}%: a step of the draft takes {:.1} % of a target pass by itself; ask for more, or \
                 measure a larger target",
                round(share * 100.0),
                step / pass * 100.0
            );
        }
        let latency = Latency { step: Duration::from_secs_f64(added / 1e6), jitter: Duration::ZERO };
        let slowed = format!("{:.4} ms a step beside its work", added / 1e3);
        stages.push(Stage { engine: engine(Some(latency))?, latency: Some(share), slowed: Some(slowed) });
    }
    let one_row_ms = pass / 1e3;
    stages.insert(0, first);
    Ok((stages, Some(one_row_ms)))
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
    fn a_setting_allows_no_other_place() {
        let mut args = EngineArgs::default();
        place(&mut args, Some(Setting::WholeMachine)).expect("any machine");
        assert_eq!((&args.target_device, &args.draft_device), (&Device::Cpu, &DraftDevice::default()));
        args.draft_device.device = Device::Cores(vec![0]);
        assert!(place(&mut args, Some(Setting::TwoDevices)).is_err());
        assert!(place(&mut args, None).is_ok());
    }
}
