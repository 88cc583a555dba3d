//! `specula serve`: until SIGTERM or Ctrl-C, then a drain.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use specula_server::{Server, ServerConfig};
use tokio::signal;

use crate::options::EngineArgs;
use crate::startup;

#[derive(Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// Address to listen on; port 0 picks a free one.
    #[arg(long, env = "SPECULA_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Allow an address that other machines can reach although there are no keys yet.
    #[arg(long)]
    insecure: bool,
    /// Origin (scheme://host[:port]) of a foreign page that may use this server; repeatable.
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// Seconds that running generations may go on after SIGTERM.
    #[arg(long, env = "SPECULA_DRAIN_SECONDS", default_value_t = 30)]
    drain_seconds: u64,
}

pub(crate) fn run(args: ServeArgs) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
    if !args.listen.ip().is_loopback() && !args.insecure {
        bail!(
            "--listen {}: anyone who reaches this address could use the server, and there are no keys; \
             listen on 127.0.0.1, or say --insecure",
            args.listen
        );
    }
    let engine = startup::engine(&args.engine)?;
    let config = ServerConfig {
        listen: args.listen,
        allowed_origins: args.allow_origin,
        drain_timeout: Duration::from_secs(args.drain_seconds),
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
