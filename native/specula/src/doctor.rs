//! `specula doctor`: what is here, what is missing, and how to get it.

use anyhow::Result;
use specula_models::{Accelerator, Cores, available_cores};

use crate::options::EngineArgs;
use crate::{device, npu, startup};

pub(crate) fn run(args: &EngineArgs) -> Result<()> {
    let cores = available_cores();
    println!("specula {}", env!("CARGO_PKG_VERSION"));
    println!("cores            {}", device::list(&cores));
    if cores.len() < 2 {
        println!("                 with one core the draft cannot work beside the target: `mirror` cannot gain");
    }
    for (i, (device, found)) in Accelerator::found().into_iter().enumerate() {
        let label = if i == 0 { "accelerators" } else { "" };
        println!("{label:<16} {device:<9} {}", found.unwrap_or_else(|why| device.lacks().unwrap_or(why)));
    }
    let drafting = npu::doctor(args);
    match startup::pair(args) {
        Ok((target, draft)) => {
            let places = device::place(&args.target_device, draft.as_ref().map(|_| &args.draft_device.device));
            let config = target.model.config();
            println!(
                "target           {} ({}, {} layers, {} tokens of context, vocabulary {})",
                target.name,
                config.architecture.name(),
                config.layers,
                config.context_length,
                config.vocab_size
            );
            println!("                 computed by {}, {}", target.model.computed_by(), cores_of(&places.0));
            match draft {
                Some(draft) => {
                    let config = draft.model.config();
                    println!(
                        "draft            {} ({}, {} layers)",
                        draft.name,
                        config.architecture.name(),
                        config.layers
                    );
                    let (by, cores) = (draft.model.computed_by(), cores_of(&places.1));
                    match &drafting {
                        Some(device) => {
                            println!("                 computed by {device}; should that fail, by {by}, {cores}")
                        }
                        None => println!("                 computed by {by}, {cores}"),
                    }
                    if let Err(why) = specula_models::check_pair(&target, &draft) {
                        println!("                 {why}");
                    }
                }
                None => println!("draft            none: methods sps, ssd and mirror need --draft"),
            }
        }
        Err(error) => println!("models           {error:#}"),
    }
    match startup::engine_without_plugins(args) {
        Ok(engine) => match (&engine.facts().cannot_speculate, &engine.facts().draft_refused) {
            (Some(why), _) => println!("speculation      none: {why}"),
            (None, Some(why)) => println!("speculation      `auto` does not use the draft: {why}"),
            (None, None) => {
                println!("speculation      `auto` chooses by measured speed; `specula calibrate` tells how")
            }
        },
        Err(error) => println!("speculation      {error:#}"),
    }
    match startup::plugins(args) {
        Ok(registry) => {
            let names: Vec<String> = registry.list("").into_iter().map(|p| p.name).collect();
            println!("plugins          {}", if names.is_empty() { "none".into() } else { names.join(", ") });
            if names.is_empty() {
                println!("                 shipped plugins are missing: build with `cargo xtask build`");
            }
        }
        Err(error) => println!("plugins          {error:#}"),
    }
    let page = if startup::PAGE.is_empty() { "missing: build with `cargo xtask build`" } else { "embedded" };
    println!("page             {page}");
    Ok(())
}

fn cores_of(cores: &Cores) -> String {
    let own = format!("on cores {}", device::list(&cores.own));
    match &cores.lent[..] {
        [] => own,
        lent => format!("{own}, and on {} while no draft works beside it", device::list(lent)),
    }
}
