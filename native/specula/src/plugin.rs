//! `specula plugin`: for authors of plugins.

mod check;
mod project;
mod remote;
mod rerun;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde_json::Value;
use specula_policies::{Class, Workshop};

/// The hidden command by which this program examines plugins in a process of its own.
pub(crate) const EXAMINE: &str = "examine-plugin";

#[derive(Subcommand)]
pub(crate) enum PluginCommand {
    /// Make a project with a plugin that builds.
    New(project::NewArgs),
    /// Examine a plugin as a server would at its upload, and tell what it costs.
    Check(FileArgs),
    /// Run a plugin on a recorded window (`specula generate --record-window FILE`), call by call.
    Run(rerun::RunArgs),
    /// Upload a plugin to a server.
    Push(remote::PushArgs),
    /// List the plugins of a server that you may use.
    List(remote::ServerArgs),
    /// Remove a plugin of yours from a server.
    Rm(remote::RmArgs),
}

/// A plugin on this machine.
#[derive(Args)]
pub(crate) struct FileArgs {
    /// A component, or a core module with its interface in it.
    file: PathBuf,
    /// Its configuration, a JSON object.
    #[arg(long, default_value = "{}")]
    config: String,
    /// The limits that the server's operator granted.
    #[arg(long, value_parser = class, default_value = "standard", value_name = "standard|interpreter")]
    limits: Class,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl FileArgs {
    fn config(&self) -> Result<Value> {
        serde_json::from_str(&self.config).with_context(|| format!("--config {}", self.config))
    }
}

/// A class of limits by name.
pub(crate) fn class(name: &str) -> Result<Class, String> {
    Class::from_name(name).ok_or_else(|| "known are `standard` and `interpreter`".to_owned())
}

/// Where this program examines plugins.
pub(crate) fn workshop() -> Result<Workshop> {
    Ok(Workshop::of_this_program(&[EXAMINE])?)
}

/// What [`EXAMINE`] is told.
#[derive(Args)]
pub(crate) struct ExamineArgs {
    #[arg(value_parser = class)]
    limits: Class,
    config: String,
}

pub(crate) fn examine(args: &ExamineArgs) -> Result<()> {
    Ok(specula_policies::at_the_bench(args.limits, &serde_json::from_str(&args.config)?)?)
}

pub(crate) fn run(command: PluginCommand) -> Result<()> {
    match command {
        PluginCommand::New(args) => project::run(&args),
        PluginCommand::Check(args) => check::run(&args),
        PluginCommand::Run(args) => rerun::run(&args),
        PluginCommand::Push(args) => remote::push(&args),
        PluginCommand::List(args) => remote::list(&args),
        PluginCommand::Rm(args) => remote::rm(&args),
    }
}
