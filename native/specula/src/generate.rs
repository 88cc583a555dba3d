//! `specula generate`: one answer on the command line, or one to each chat of a file, by the same engine as the server's.

mod batch;
pub(crate) mod trace;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde_json::{Value, json};
use specula_engine::{Engine, Event, Finished, PluginSpec, Round};
use specula_policies::Recording;
use specula_protocol::{GenerateRequest, Message, PluginChoice, Prompt, ServerFrame, Speculation, Stop};
use specula_server::wire;

use crate::options::EngineArgs;
use crate::startup;

/// Most rounds that are recorded.
const RECORDED_ROUNDS: usize = 16;

#[derive(Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// A question; it is asked as the user's message of a chat.
    #[arg(long, required_unless_present_any = ["chat", "text", "batch"], conflicts_with_all = ["chat", "text", "batch"])]
    prompt: Option<String>,
    /// A file with messages as JSON: [{"role": "user", "content": "…"}].
    #[arg(long, value_name = "FILE", conflicts_with_all = ["text", "batch"])]
    chat: Option<PathBuf>,
    /// A text to continue, without the chat template.
    #[arg(long, conflicts_with = "batch")]
    text: Option<String>,
    /// A file of chats, {"messages": […]} a line; an answer at a chat's end is left out and given anew. Prints each line
    /// with the new answer, its seed (--seed plus the line's number) and why it ended: what `train` reads.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    batch: Option<PathBuf>,
    /// 0 = greedy.
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    /// Keep the smallest set of tokens reaching this probability.
    #[arg(long)]
    top_p: Option<f64>,
    /// Keep the k best tokens.
    #[arg(long)]
    top_k: Option<u64>,
    /// Keep tokens at least this likely relative to the best.
    #[arg(long)]
    min_p: Option<f64>,
    /// Seed of the noise; picked and told if absent.
    #[arg(long)]
    seed: Option<u64>,
    /// Most tokens to generate.
    #[arg(long)]
    max_tokens: Option<u64>,
    /// No end before so many tokens.
    #[arg(long)]
    min_tokens: Option<u64>,
    /// Go on after end tokens.
    #[arg(long)]
    ignore_eos: bool,
    /// A string that ends the answer; repeatable.
    #[arg(long)]
    stop: Vec<String>,
    /// γ, draft tokens per round.
    #[arg(long)]
    window: Option<u64>,
    /// e, the layer after which the early exit looks.
    #[arg(long)]
    exit_layer: Option<u64>,
    /// κ, candidates per row of the exit message.
    #[arg(long)]
    exit_top: Option<u64>,
    /// B, branches rolled out at once.
    #[arg(long)]
    branch_budget: Option<u64>,
    /// draft, exit or both.
    #[arg(long)]
    roots: Option<String>,
    /// scored or per-row.
    #[arg(long)]
    allocation: Option<String>,
    /// η, streams that the draft looks ahead by.
    #[arg(long)]
    streams: Option<u64>,
    /// keep or correct: what becomes of the look-ahead.
    #[arg(long)]
    look_ahead: Option<String>,
    /// Await all rollouts, so that lossy acceptance policies reproduce.
    #[arg(long)]
    deterministic: bool,
    /// A plugin, with its configuration as JSON if it needs one: NAME or NAME={…}; repeatable.
    // Named unlike `EngineArgs::plugins`: clap tells arguments apart by field name, flattened or not.
    #[arg(long, value_name = "NAME[=JSON]")]
    plugin: Vec<String>,
    /// Write what plugins would see of the first rounds into a file, for `specula plugin run`.
    #[arg(long, value_name = "FILE", conflicts_with = "batch")]
    record_window: Option<PathBuf>,
    /// Print token ids, text, certificate and per-round statistics as JSON.
    #[arg(long)]
    json: bool,
    /// Write what both models did, and what they told each other, as a trace that Perfetto and chrome://tracing draw.
    #[arg(long, value_name = "FILE", conflicts_with = "batch")]
    trace: Option<PathBuf>,
}

pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    let start = if args.plugin.is_empty() { startup::engine_without_plugins } else { startup::engine };
    let engine = start(&args.engine)?;
    if let Some(file) = &args.batch {
        return batch::run(&engine, args, file);
    }
    let request = request(args)?;
    let mut rounds = Vec::new();
    let finished = answer(&engine, &request, args.record_window.as_deref(), |round| {
        if !args.json {
            print!("{}", text(&round));
            std::io::stdout().flush()?;
        }
        rounds.push(round);
        Ok(())
    })?;
    if let Some(file) = &args.trace {
        let trace = trace::trace(&rounds, &finished).to_string();
        std::fs::write(file, trace).with_context(|| format!("--trace {}", file.display()))?;
    }
    if args.json {
        println!("{:#}", report(rounds, &finished)?);
    } else {
        println!();
        eprintln!("{}", summary(&finished));
    }
    Ok(())
}

/// Runs one generation to its end.
fn answer(
    engine: &Engine,
    request: &GenerateRequest,
    record: Option<&Path>,
    mut on_round: impl FnMut(Round) -> Result<()>,
) -> Result<Finished> {
    let specs = wire::request_specs(engine, request)?;
    let [spec] = specs.try_into().map_err(|_| anyhow!("one prompt and one choice make one generation"))?;
    let prompt = spec.prompt.clone();
    let mut request = engine.check(spec)?;
    let recording = record.map(|path| {
        let (to, rounds) = std::sync::mpsc::channel();
        request.record(to);
        (path, rounds)
    });
    let mut events = engine.submit(request)?;
    while let Some(event) = events.blocking_next() {
        match event {
            Event::Started(_) | Event::Prompt(_) => {}
            Event::Round(round) => on_round(round)?,
            Event::Finished(finished) => {
                if let Some((path, rounds)) = recording {
                    // All are sent before this event is.
                    write_window(
                        path,
                        Recording::new(
                            engine.plugin_model(),
                            prompt,
                            rounds.try_iter().take(RECORDED_ROUNDS).collect(),
                        ),
                    )?;
                }
                return Ok(*finished);
            }
            Event::Failed(failure) => bail!(failure),
        }
    }
    bail!("the engine ended an answer without saying why")
}

fn write_window(path: &Path, recording: Recording) -> Result<()> {
    let json = serde_json::to_string(&recording)? + "\n";
    std::fs::write(path, json).with_context(|| format!("--record-window {}", path.display()))
}

fn text(round: &Round) -> String {
    round.tokens.iter().map(|t| t.text.as_str()).collect()
}

fn request(args: &GenerateArgs) -> Result<GenerateRequest> {
    let user = |content: &String| vec![Message { role: "user".into(), content: content.clone() }];
    let messages = match (&args.prompt, &args.chat) {
        (Some(prompt), _) => Some(user(prompt)),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("--chat {}", file.display()))?;
            Some(serde_json::from_str(&text).with_context(|| format!("--chat {}", file.display()))?)
        }
        (None, None) => None,
    };
    Ok(GenerateRequest {
        messages,
        prompt: args.text.clone().map(Prompt::Text),
        temperature: Some(args.temperature),
        top_p: args.top_p,
        top_k: args.top_k,
        min_p: args.min_p,
        seed: args.seed,
        max_tokens: args.max_tokens,
        min_tokens: args.min_tokens,
        ignore_eos: Some(args.ignore_eos),
        stop: (!args.stop.is_empty()).then(|| Stop::Many(args.stop.clone())),
        speculation: Some(Speculation {
            method: args.engine.method.map(|method| method.name().to_owned()),
            window: args.window,
            exit_layer: args.exit_layer,
            exit_top: args.exit_top,
            branch_budget: args.branch_budget,
            roots: args.roots.clone(),
            allocation: args.allocation.clone(),
            streams: args.streams,
            look_ahead: args.look_ahead.clone(),
        }),
        deterministic: Some(args.deterministic),
        plugins: Some(args.plugin.iter().map(|p| plugin_choice(p)).collect::<Result<_>>()?),
        ..GenerateRequest::default()
    })
}

/// `NAME` or `NAME={…}`.
pub(crate) fn plugin_spec(text: &str) -> Result<PluginSpec> {
    let (name, config) = text.split_once('=').unwrap_or((text, "{}"));
    let config = serde_json::from_str(config).with_context(|| format!("--plugin {name}: configuration is not JSON"))?;
    Ok(PluginSpec { name: name.to_owned(), config, on_failure: None })
}

fn plugin_choice(text: &str) -> Result<PluginChoice> {
    let PluginSpec { name, config, .. } = plugin_spec(text)?;
    Ok(PluginChoice { name, config: Some(config), on_failure: None })
}

fn report(rounds: Vec<Round>, finished: &Finished) -> Result<Value> {
    let mut tokens = Vec::new();
    let mut text = String::new();
    let mut told = Vec::new();
    for round in rounds {
        let event = Event::Round(round);
        let Some(ServerFrame::Round { tokens: new, window, accepted, hit, source, lanes, .. }) = wire::frame("", event)
        else {
            continue;
        };
        tokens.extend(new.iter().map(|t| t.id));
        text.extend(new.iter().map(|t| t.text.as_str()));
        told.push(json!({"tokens": new, "window": window, "accepted": accepted, "hit": hit, "source": source, "lanes": lanes}));
    }
    let specula = serde_json::to_value(wire::report(finished))?;
    Ok(json!({
        "tokens": tokens,
        "text": text,
        "finish_reason": wire::finish_reason(finished.reason.as_ref()),
        "lossless": specula["lossless"],
        "usage": wire::usage(finished),
        "specula": specula,
        "rounds": told,
    }))
}

fn summary(finished: &Finished) -> String {
    let report = &finished.report;
    let seconds = report.total_us as f64 / 1e6;
    let length = report.totals.acceptance_length().unwrap_or(0.0);
    format!(
        "{} tokens in {seconds:.2} s, {:.1} tokens/s, method {}, acceptance length {length:.2}, seed {}",
        finished.completion_tokens,
        finished.completion_tokens as f64 / seconds,
        report.settings.method.name(),
        report.seed,
    )
}
