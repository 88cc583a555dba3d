//! `specula plugin run`: a plugin on a recorded window, with the fuel that it has on a server.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;
use specula_policies::{Call, Recording, Registry, replay};

use super::FileArgs;

#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    file: FileArgs,
    /// What `specula generate --record-window` wrote. Default: the window that uploads are measured on.
    #[arg(long, value_name = "FILE")]
    window: Option<PathBuf>,
}

pub(super) fn run(args: &RunArgs) -> Result<()> {
    let recording = match &args.window {
        None => Recording::reference(),
        Some(path) => {
            let context = || format!("--window {}", path.display());
            Recording::parse(&std::fs::read_to_string(path).with_context(context)?).with_context(context)?
        }
    };
    let file = &args.file;
    let bytes = std::fs::read(&file.file).with_context(|| file.file.display().to_string())?;
    let plugin = Registry::new(file.limits.limits())?.load("plugin", &bytes)?;
    let calls = replay(&Arc::clone(&plugin), &file.config()?, &recording);
    if file.json {
        println!("{}", serde_json::to_string_pretty(&calls.iter().map(as_json).collect::<Vec<_>>())?);
    } else {
        println!("{:>5}  {:<22} {:>10} {:>9}  outcome", "round", "call", "fuel", "µs");
        for call in &calls {
            let round = call.round.map_or("-".to_owned(), |round| round.to_string());
            let name = format!("{} {}", call.kind.as_str(), call.function);
            println!("{round:>5}  {name:<22} {:>10} {:>9.1}  {}", call.fuel, call.micros, outcome(call));
        }
    }
    match calls.iter().find_map(|call| call.outcome.as_ref().err()) {
        Some(error) => bail!("{error}"),
        None => Ok(()),
    }
}

fn outcome(call: &Call) -> String {
    match &call.outcome {
        Ok(words) => words.clone(),
        Err(error) => format!("failed ({}): {}", error.code, error.message),
    }
}

fn as_json(call: &Call) -> serde_json::Value {
    let (kind, error) = (call.kind.as_str(), call.outcome.as_ref().err());
    json!({
        "round": call.round, "kind": kind, "function": call.function, "fuel": call.fuel, "micros": call.micros,
        "outcome": call.outcome.as_ref().ok(),
        "error": error.map(|error| json!({"code": error.code, "message": error.message})),
    })
}
