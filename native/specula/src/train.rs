//! `specula train`: recipes to models.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use clap::{Args, Subcommand};
use specula_models::Accelerator;
use specula_training::{Outcome, Place, train_draft, train_exit, train_target, train_tokenizer};

#[derive(Args)]
pub(crate) struct TrainArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Make a byte-level BPE tokenizer from texts.
    Tokenizer(RunArgs),
    /// Train a small target on texts.
    Target(RunArgs),
    /// Distil a draft from its target, with speculative streams if the recipe has them.
    Draft(RunArgs),
    /// Fit early exits to a target and measure what they cover.
    Exit(RunArgs),
}

#[derive(Args)]
struct RunArgs {
    /// The recipe, a TOML file; its paths are relative to it.
    recipe: PathBuf,
    /// Folder for checkpoints, log, plot and result. A run that was interrupted goes on there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Device that what is trained lies on: `cuda:0`, `metal`. Default: the CPU, on all its cores. Teachers answer on the CPU.
    #[arg(long, value_name = "DEVICE")]
    device: Option<Accelerator>,
}

pub(crate) fn run(args: &TrainArgs) -> Result<()> {
    let (trainer, run): (fn(&Path, &Place) -> Result<Outcome>, _) = match &args.what {
        What::Tokenizer(run) => {
            (|recipe, place| train_tokenizer(recipe, &place.folder).map(|()| Outcome::Finished), run)
        }
        What::Target(run) => (train_target, run),
        What::Draft(run) => (train_draft, run),
        What::Exit(run) => (train_exit, run),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    ctrlc::set_handler(move || {
        // The second time is meant as it is usually meant.
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("finishing this step and saving; again to leave at once");
    })?;
    let place = Place::new(run.out.clone(), stop);
    let place = match run.device {
        Some(device) => place.on(device)?,
        None => place,
    };
    match trainer(&run.recipe, &place)? {
        Outcome::Finished => eprintln!("done: {}", run.out.display()),
        Outcome::Interrupted(steps) => {
            eprintln!("stopped after {steps} steps; the same command goes on from there");
        }
    }
    Ok(())
}
