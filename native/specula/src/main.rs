//! `specula`: the command line.

mod bench;
mod calibrate;
mod contender;
mod coverage;
mod device;
mod doctor;
mod exactness;
mod generate;
mod hub;
mod keys;
mod npu;
mod options;
mod plugin;
mod prompts;
mod serve;
mod startup;
mod train;
mod watermark;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// LLM inference with mirror speculative decoding.
#[derive(Parser)]
#[command(name = "specula", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the page, the OpenAI-compatible API and the WebSocket.
    Serve(serve::ServeArgs),
    /// Generate once and print the answer.
    Generate(Box<generate::GenerateArgs>),
    /// Measure methods against each other on the validation prompts.
    Bench(bench::BenchArgs),
    /// Measure this machine with these models, and tell which settings follow and why.
    Calibrate(options::EngineArgs),
    /// Compare every method with the target alone, token for token, under every parameter.
    Exactness(exactness::ExactnessArgs),
    /// Make what speculation learns from: tokenizers, targets, drafts, exits.
    Train(train::TrainArgs),
    /// Tell whether a text bears the mark of the policy `watermark`.
    Watermark(Box<watermark::WatermarkArgs>),
    /// Make, check, run and upload plugins.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Examine the plugin on standard input; for this program itself.
    #[command(name = plugin::EXAMINE, hide = true)]
    ExaminePlugin(plugin::ExamineArgs),
    /// Write the draft as ONNX graphs of static shapes, for accelerators and other tools.
    ExportDraft(npu::ExportArgs),
    /// Try the draft on its accelerator; for this program itself.
    #[command(name = npu::TRY, hide = true)]
    TryNpu(Box<options::EngineArgs>),
    /// Tell what this machine and this binary have, and what is missing.
    Doctor(options::EngineArgs),
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    // Training is one thing at a time and takes what there is.
    if !matches!(command, Command::Train(_)) {
        // SAFETY: nothing has started a thread yet.
        unsafe { specula_models::limit_candle_threads() };
    }
    let done = run(command);
    if let Err(error) = &done {
        eprintln!("Error: {error:?}");
    }
    specula_npu::leave(i32::from(done.is_err()));
    ExitCode::from(u8::from(done.is_err()))
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Serve(args) => serve::run(args),
        Command::Generate(args) => generate::run(&args),
        Command::Bench(args) => bench::run(args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Exactness(args) => exactness::run(args),
        Command::Train(args) => train::run(&args),
        Command::Watermark(args) => watermark::run(&args),
        Command::Plugin(command) => plugin::run(command),
        Command::ExaminePlugin(args) => plugin::examine(&args),
        Command::ExportDraft(args) => npu::export(&args),
        Command::TryNpu(args) => npu::try_out(&args),
        Command::Doctor(args) => doctor::run(&args),
    }
}
