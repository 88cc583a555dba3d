//! `specula bench`: methods measured against each other in one process, interleaved question by question, every answer
//! compared token for token with the method `none`. Or, as suite `kernels`, the decoders themselves.

mod kernels;
mod run;
mod table;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::contender::Contender;
use crate::options::EngineArgs;
use crate::{prompts, startup};

#[derive(Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// What is measured.
    #[arg(long, default_value = "embedded")]
    suite: Suite,
    /// Methods, each with settings of its own if need be: mirror:window=8:branch_budget=16. `none` is always measured.
    #[arg(long, value_delimiter = ',', default_value = "none,lookup,sps,mirror")]
    methods: Vec<String>,
    /// Temperatures.
    #[arg(long, value_delimiter = ',', default_value = "0,1")]
    temperature: Vec<f64>,
    /// Questions, spread over the suite.
    #[arg(long, default_value_t = 24)]
    questions: usize,
    /// Most tokens of an answer.
    #[arg(long, default_value_t = 128)]
    max_tokens: u64,
    /// Seed of every answer.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A plugin for every request, as in `generate`.
    #[arg(long, value_name = "NAME[=JSON]")]
    plugin: Vec<String>,
    #[command(flatten)]
    kernels: kernels::KernelArgs,
    /// Folder for answers.jsonl, summary.json and table.md, or kernels.jsonl and kernels.md.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Methods, on the validation prompts.
    Embedded,
    /// Passes of the CPU kernels, of candle and of llama.cpp by the number of their rows.
    Kernels,
}

pub(crate) fn run(args: BenchArgs) -> Result<()> {
    if args.suite == Suite::Kernels {
        return kernels::run(&args.kernels, args.out.as_deref());
    }
    let mut contenders = vec![Contender::parse("none")?];
    for name in args.methods.iter().filter(|name| *name != "none") {
        contenders.push(Contender::parse(name)?);
    }
    let engine = startup::engine(&args.engine)?;
    let plan = run::Plan {
        contenders,
        temperatures: args.temperature.clone(),
        questions: prompts::questions(args.questions)?,
        max_tokens: args.max_tokens,
        seed: args.seed,
        plugins: args.plugin.iter().map(|p| crate::generate::plugin_spec(p)).collect::<Result<_>>()?,
    };
    let answers = run::run(&engine, &plan)?;
    let summary = table::summarise(&engine, &plan, &answers);
    let markdown = table::markdown(&summary);
    println!("{markdown}");
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).with_context(|| format!("--out {}", folder.display()))?;
        let lines: Vec<String> = answers.iter().map(|a| a.line(&plan).to_string()).collect();
        std::fs::write(folder.join("answers.jsonl"), lines.join("\n") + "\n")?;
        std::fs::write(folder.join("summary.json"), format!("{:#}\n", serde_json::to_value(&summary)?))?;
        std::fs::write(folder.join("table.md"), markdown)?;
    }
    // A lossy answer says so of itself; any other must be the target's own.
    let broken: usize = summary.lines.iter().map(|line| line.broken).sum();
    if broken > 0 {
        bail!("{broken} answers that claim to be lossless differ from the method `none`");
    }
    Ok(())
}
