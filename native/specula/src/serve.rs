//! `specula serve`: until SIGTERM or Ctrl-C, then a drain.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use specula_policies::{Quota, UploadSettings};
use specula_server::{Server, ServerConfig, Visitors};
use tokio::signal;
use tracing_subscriber::EnvFilter;

use crate::options::EngineArgs;
use crate::{keys, plugin, startup};

#[derive(Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// Address to listen on; port 0 picks a free one.
    #[arg(long, env = "SPECULA_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// File of keys (TOML: `[[keys]]` with `owner`, `sha256` and, if you like, `exact_only` and `plugin_limits`). With it every
    /// request needs one of them.
    #[arg(long, env = "SPECULA_KEYS", value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Folder to keep uploaded plugins in; without it none are taken.
    #[arg(long, env = "SPECULA_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// Allow an address that other machines can reach although there are no keys.
    #[arg(long)]
    insecure: bool,
    /// Origin (scheme://host[:port]) of a foreign page that may use this server; repeatable.
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// Seconds that running generations may go on after SIGTERM.
    #[arg(long, env = "SPECULA_DRAIN_SECONDS", default_value_t = 30)]
    drain_seconds: u64,
    /// Seconds that a request's head may take; also how long an idle connection is kept.
    #[arg(long, env = "SPECULA_HEADER_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    header_seconds: u64,
    /// Seconds that a request's body may take.
    #[arg(long, env = "SPECULA_BODY_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    body_seconds: u64,
    /// Connections held at once; more wait unaccepted.
    #[arg(long, env = "SPECULA_MAX_CONNECTIONS", default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..))]
    max_connections: u16,
    /// What is logged to stderr: a level (error, warn, info, debug, trace) or levels by module (`info,specula_server=debug`).
    /// No level up to debug logs what users write or read.
    #[arg(long, env = "SPECULA_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    /// A line of text or of JSON for each event.
    #[arg(long, env = "SPECULA_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

pub(crate) fn run(args: ServeArgs) -> Result<()> {
    start_log(&args)?;
    if !args.listen.ip().is_loopback() && args.keys.is_none() && !args.insecure {
        bail!(
            "--listen {}: anyone who reaches this address could use the server, and there are no keys; \
             name some with --keys, listen on 127.0.0.1, or say --insecure",
            args.listen
        );
    }
    let visitors = match &args.keys {
        Some(path) => Visitors::Keyed(keys::read(path)?),
        None => Visitors::Open(args.engine.plugin_limits),
    };
    let mut plugins = startup::plugins(&args.engine)?;
    if let Some(folder) = &args.data {
        let settings =
            UploadSettings { folder: folder.clone(), quota: Quota::default(), workshop: plugin::workshop()? };
        plugins.take_uploads(settings).with_context(|| format!("--data {}", folder.display()))?;
    }
    let engine = startup::engine_with(&args.engine, plugins)?;
    let config = ServerConfig {
        listen: args.listen,
        visitors,
        allowed_origins: args.allow_origin,
        drain_timeout: Duration::from_secs(args.drain_seconds),
        header_timeout: Duration::from_secs(args.header_seconds),
        body_timeout: Duration::from_secs(args.body_seconds),
        max_connections: args.max_connections.into(),
        ..ServerConfig::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let facts = engine.facts().clone();
        let server = Server::bind(config, engine, startup::PAGE).await?;
        println!("Specula serves {} on http://{}", facts.name, server.local_addr());
        if startup::PAGE.is_empty() {
            println!("This binary was built without its page; `cargo xtask build` builds it.");
        }
        server.run(stop_signal()).await;
        Ok(())
    })
}

fn start_log(args: &ServeArgs) -> Result<()> {
    let filter = EnvFilter::try_new(&args.log).with_context(|| format!("--log {}", args.log))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
    }
    Ok(())
}

/// Resolves at the first SIGTERM or Ctrl-C.
async fn stop_signal() {
    let interrupt = async {
        if signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        match signal::unix::signal(signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending::<()>().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}
