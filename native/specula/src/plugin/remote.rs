//! `specula plugin push`, `list` and `rm`: a server's plugins from the command line.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use reqwest::{Client, Method, RequestBuilder};
use serde::de::DeserializeOwned;
use specula_protocol::{ErrorBody, PluginCard, PluginDeleted, PluginList};

use super::check::told;

/// Which server, and who asks.
#[derive(Args)]
pub(crate) struct ServerArgs {
    /// The server's address. Without TLS: put a tunnel before it where the way is not your own.
    #[arg(long, env = "SPECULA_SERVER", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    server: String,
    /// Your key, if the server has given out keys.
    #[arg(long, env = "SPECULA_KEY", hide_env_values = true)]
    key: Option<String>,
}

#[derive(Args)]
pub(crate) struct PushArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// A component, or a core module with its interface in it.
    file: PathBuf,
    /// Name for requests. Default: the file's.
    #[arg(long)]
    name: Option<String>,
    /// Let everyone use it.
    #[arg(long)]
    shared: bool,
    /// Configuration to examine it with, a JSON object.
    #[arg(long)]
    config: Option<String>,
}

#[derive(Args)]
pub(crate) struct RmArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The name, alone or with `@` and a version's number or digest.
    name: String,
}

pub(super) fn push(args: &PushArgs) -> Result<()> {
    let bytes = std::fs::read(&args.file).with_context(|| args.file.display().to_string())?;
    let stem = args.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = args.name.clone().unwrap_or(stem);
    let visibility = if args.shared { "shared" } else { "private" };
    let mut path = format!("/{}?visibility={visibility}", encoded(&name));
    if let Some(config) = &args.config {
        path += &format!("&config={}", encoded(config));
    }
    let request = args.server.request(Method::PUT, &path)?;
    let card: PluginCard = send(request.header("content-type", "application/wasm").body(bytes))?;
    let version = card.versions.last().map_or(0, |version| version.version);
    println!("{} version {version}, {}, {}", card.name, visibility, card.digest);
    if let Some(report) = &card.report {
        print!("{}", told(report));
    }
    Ok(())
}

pub(super) fn list(args: &ServerArgs) -> Result<()> {
    let list: PluginList = send(args.request(Method::GET, "")?)?;
    for card in list.data {
        let whose = match (&card.owner, &card.visibility) {
            (Some(owner), Some(visibility)) => format!("{owner}, {visibility}"),
            _ => "the operator's".to_owned(),
        };
        let stamp = card.report.as_ref().and_then(|report| Some(report.stamp.as_ref()?.stamp.as_str()));
        let version = card.versions.last().map(|version| format!("version {}", version.version));
        let facts = [Some(card.kinds.join(", ")), Some(whose), version, stamp.map(str::to_owned)];
        println!("{:<24} {}", card.name, facts.into_iter().flatten().collect::<Vec<_>>().join("; "));
    }
    Ok(())
}

pub(super) fn rm(args: &RmArgs) -> Result<()> {
    let gone: PluginDeleted = send(args.server.request(Method::DELETE, &format!("/{}", encoded(&args.name)))?)?;
    println!("{} is removed", gone.id);
    Ok(())
}

impl ServerArgs {
    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder> {
        if !self.server.starts_with("http://") {
            bail!("--server {}: must begin with http://; for TLS put a tunnel before it", self.server);
        }
        let request = Client::new().request(method, format!("{}/v1/plugins{path}", self.server.trim_end_matches('/')));
        Ok(match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        })
    }
}

fn encoded(text: &str) -> impl std::fmt::Display {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
}

/// The answer, or what the server says is wrong.
fn send<T: DeserializeOwned>(request: RequestBuilder) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let response = request.send().await.context("the server does not answer")?;
        let status = response.status();
        let body = response.bytes().await?;
        if status.is_success() {
            return serde_json::from_slice(&body).context("the server's answer is not understood");
        }
        Err(match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(ErrorBody { error }) => anyhow!("{} ({})", error.message, error.code.unwrap_or_default()),
            Err(_) => anyhow!("the server answers {status}"),
        })
    })
}
