//! `specula bench --suite devices`: what the target's device does. Passes of a large model of random weights by the number of
//! their rows, against the time that the device needs to read the weights once; whether rows are the same in every pass, and as
//! the CPU has them; the embedded pair's mirroring, target there and draft on the CPU, with a trace.

mod exact;
mod mirror;
mod passes;
mod shape;
mod table;

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use specula_models::Compute;

use crate::options::EngineArgs;
use exact::Exactness;
use mirror::Mirrored;
use passes::Passes;
use shape::Shape;

#[derive(Args)]
pub(crate) struct DeviceArgs {
    /// Suite `devices`: shape of the model of random weights.
    #[arg(long, default_value = "14b")]
    shape: Shape,
    /// Suite `devices`: times that each pass is made.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=1000))]
    passes: u16,
}

#[derive(Serialize)]
struct Results {
    version: &'static str,
    device: String,
    passes: Passes,
    exactness: Exactness,
    mirror: Vec<Mirrored>,
}

pub(super) fn run(args: &DeviceArgs, engine: &EngineArgs, out: Option<&Path>) -> Result<()> {
    let compute = engine.target_device.compute("--target-device")?;
    let Compute::On(device) = compute else {
        bail!("--suite devices needs --target-device, like cuda:0; it measures passes there")
    };
    let passes = passes::measure(device, args.shape, args.passes)?;
    let exactness = exact::measure(compute)?;
    let (mirror, trace) = mirror::measure(engine)?;
    let results = Results { version: env!("CARGO_PKG_VERSION"), device: device.to_string(), passes, exactness, mirror };
    let markdown = table::markdown(&results);
    println!("{markdown}");
    if let Some(folder) = out {
        std::fs::create_dir_all(folder).with_context(|| format!("--out {}", folder.display()))?;
        std::fs::write(folder.join("devices.json"), format!("{:#}\n", serde_json::to_value(&results)?))?;
        std::fs::write(folder.join("devices.md"), markdown)?;
        std::fs::write(folder.join("trace.json"), trace.to_string())?;
    }
    Ok(())
}
