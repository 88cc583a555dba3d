//! `specula bench`: methods measured against each other in one process, interleaved question by question, every answer
//! compared token for token with the method `none`. Or, as suite `kernels`, the decoders themselves.

mod ablation;
mod answer;
mod bootstrap;
mod bound;
mod conditions;
mod devices;
mod html;
mod kernels;
mod measured;
mod parts;
mod run;
mod stage;
mod suite;
mod summary;
mod table;
mod tasks;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use specula_models::Form;

use crate::contender::Contender;
use crate::options::EngineArgs;
use crate::startup;
use ablation::Ablation;
use answer::Answer;
use conditions::{Conditions, Machine, Told};
use measured::Measured;
use stage::{Setting, Stage};
use suite::Question;
use summary::Summary;

#[derive(Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// What is measured: `embedded`, methods on the validation prompts; `spec-bench FILE`, methods on a file of questions as
    /// Spec-Bench has them; `kernels`, passes of the CPU kernels, of candle and of llama.cpp by the number of their rows;
    /// `devices`, what --target-device does: passes of a large model by the number of their rows against the device's own
    /// speed, the exactness of its rows, and mirroring with the draft on the CPU.
    #[arg(long, num_args = 1..=2, value_names = ["SUITE", "FILE"], default_value = "embedded")]
    suite: Vec<String>,
    /// Methods, each with settings of its own if need be: mirror:window=8:branch_budget=16. `none` is always measured.
    #[arg(long, value_delimiter = ',', default_value = "none,lookup,sps,mirror")]
    methods: Vec<String>,
    /// Measure also what each part of mirroring brings: serial draft, draft roots, exit roots, both, streams, and, computed,
    /// an infinitely fast draft.
    #[arg(long)]
    ablation: bool,
    /// Which cores methods may use. Default: as --target-device and --draft-device say.
    #[arg(long)]
    setting: Option<Setting>,
    /// Measure also with drafts slowed down until a step of one row takes these shares of a target pass of one row: 5%,10%.
    #[arg(long, value_delimiter = ',', value_parser = stage::share, value_name = "PERCENT")]
    draft_latency: Vec<f64>,
    /// Pad the target with identity layers to so many: it computes the same at a larger model's cost. The embedded target
    /// has 110 M weights with 40. Exit layers are then counted among all.
    #[arg(long, value_name = "LAYERS")]
    pad_target: Option<usize>,
    /// Weights of the target.
    #[arg(long, default_value = "as-stored")]
    target_format: TargetFormat,
    /// Temperatures.
    #[arg(long, value_delimiter = ',', default_value = "0,1")]
    temperature: Vec<f64>,
    /// Questions, spread over the suite. Default: 24 of the embedded suite, all of a file.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    questions: Option<u32>,
    /// Most tokens of an answer. A question is cut at its end until they have room in the context.
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
    #[command(flatten)]
    devices: devices::DeviceArgs,
    /// Folder for answers.jsonl, summary.json, table.md and report.html, kernels.jsonl and kernels.md, or
    /// devices.json, devices.md and trace.json.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TargetFormat {
    /// As the file has them.
    AsStored,
    /// In f32, with the same values.
    F32,
}

pub(crate) fn run(mut args: BenchArgs) -> Result<()> {
    let count = args.questions.map(|count| count as usize);
    let suite: Vec<&str> = args.suite.iter().map(String::as_str).collect();
    let questions = match suite[..] {
        ["devices"] => return devices::run(&args.devices, &args.engine, args.out.as_deref()),
        ["kernels"] => {
            let onnxruntime = args.engine.npu.named_libraries();
            return kernels::run(&args.kernels, onnxruntime.as_ref(), args.out.as_deref());
        }
        ["embedded"] => suite::embedded(count.unwrap_or(24))?,
        ["spec-bench", file] => suite::spec_bench(Path::new(file), count)?,
        _ => bail!("--suite {}: there is `embedded`, `spec-bench FILE`, `kernels` and `devices`", suite.join(" ")),
    };
    stage::place(&mut args.engine, args.setting)?;
    let form =
        Form { layers: args.pad_target, dequantised: args.target_format == TargetFormat::F32, ..Form::default() };
    let (target, draft) = startup::pair_as(&args.engine, form)?;
    let setting = args.setting.and_then(|setting| Some(setting.to_possible_value()?.get_name().to_owned()));
    let mut machine = Machine::new(&args.engine, draft.is_some(), setting);
    let told = (
        Told::of(&target, args.engine.target.as_deref(), startup::TARGET)?,
        draft.map(|draft| Told::of(&draft, args.engine.draft.as_deref(), startup::DRAFT)).transpose()?,
    );
    let (stages, one_row_ms) = stage::stages(&args.engine, form, &args.draft_latency)?;
    let (plan, ablation) = plan(&args, questions, &stages)?;
    let (answers, samples) = run::run(&stages, &plan)?;
    (machine.one_row_ms, machine.load_after) = (one_row_ms, conditions::load());
    machine.slowed_drafts = stages.iter().filter_map(|stage| stage.slowed.clone()).collect();
    let measured = Measured { plan: &plan, stages: &stages, answers: &answers };
    let conditions = conditions_of(&args, &measured, told, machine);
    let summary = summary::summarise(&measured, conditions, ablation.as_ref());
    println!("{}", table::markdown(&summary));
    if let Some(folder) = &args.out {
        let page = html::page(&summary, &measured, &samples);
        write(folder, &measured, &summary, &page).with_context(|| format!("--out {}", folder.display()))?;
    }
    // A lossy answer says so of itself; any other must be the target's own.
    let broken: usize = summary.methods.iter().map(|line| line.broken).sum();
    if broken > 0 && !stages[0].engine.facts().row_invariant {
        eprintln!(
            "{broken} answers differ from the method `none`: rows of this target's device depend on the rows beside them"
        );
    } else if broken > 0 {
        bail!("{broken} answers that claim to be lossless differ from the method `none`");
    }
    Ok(())
}

fn plan(args: &BenchArgs, questions: Vec<Question>, stages: &[Stage]) -> Result<(run::Plan, Option<Ablation>)> {
    let facts = stages[0].engine.facts();
    if args.max_tokens as usize >= facts.context_length {
        bail!("--max-tokens {} leave no room for a question in a context of {}", args.max_tokens, facts.context_length);
    }
    let mut contenders = vec![Contender::parse("none")?];
    for name in args.methods.iter().filter(|name| *name != "none") {
        contenders.push(Contender::parse(name)?);
    }
    let ablation = args.ablation.then(|| Ablation::new(&mut contenders, facts.draft_streams)).transpose()?;
    let plan = run::Plan {
        entrants: run::entrants(&contenders, stages.len()),
        contenders,
        temperatures: args.temperature.clone(),
        questions,
        max_tokens: args.max_tokens,
        seed: args.seed,
        plugins: args.plugin.iter().map(|p| crate::generate::plugin_spec(p)).collect::<Result<_>>()?,
    };
    Ok((plan, ablation))
}

fn conditions_of(
    args: &BenchArgs,
    measured: &Measured<'_>,
    (target, draft): (Told, Option<Told>),
    machine: Machine,
) -> Conditions {
    // Every entrant is asked the same: what holds of the first holds of all.
    let first = || measured.of(0, 0);
    let turns = || first().flat_map(|answer| &answer.turns);
    Conditions {
        suite: args.suite.join(" "),
        questions: measured.plan.questions.len(),
        turns: turns().count(),
        cut_turns: turns().filter(|turn| turn.cut).count(),
        skipped_turns: first().map(|answer: &Answer| answer.skipped).sum(),
        max_tokens: args.max_tokens,
        seed: args.seed,
        plugins: args.plugin.clone(),
        target,
        draft,
        machine,
        version: env!("CARGO_PKG_VERSION"),
    }
}

fn write(folder: &Path, measured: &Measured<'_>, summary: &Summary, page: &str) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let lines: Vec<String> =
        measured.answers.iter().map(|answer| answer.line(measured.plan, measured.stages).to_string()).collect();
    std::fs::write(folder.join("answers.jsonl"), lines.join("\n") + "\n")?;
    std::fs::write(folder.join("summary.json"), format!("{:#}\n", serde_json::to_value(summary)?))?;
    std::fs::write(folder.join("table.md"), table::markdown(summary))?;
    std::fs::write(folder.join("report.html"), page)?;
    Ok(())
}
