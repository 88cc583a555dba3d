//! A model hub on this machine, as far as fetching models goes: it lists repositories, redirects large files to a store of
//! their own and serves ranges. It can cut connections and lie about checksums.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest, Sha256};
use warp::http::StatusCode;
use warp::reply::{Reply, Response as Answer};
use warp::{Filter, reply};

use crate::binary::specula;
use crate::folder::Folder;

/// The only commit of every repository.
const COMMIT: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";

/// A running hub; ends with its process. Clients that it runs have a cache of their own.
pub struct Hub {
    address: SocketAddr,
    store: Arc<Mutex<Store>>,
    cache: Folder,
}

#[derive(Default)]
struct Store {
    /// By `org/name`, then by path.
    repositories: BTreeMap<String, BTreeMap<String, Bytes>>,
    asked: Vec<Asked>,
    /// No byte of a large file beyond this one is served: the connection is cut.
    cut_at: Option<usize>,
    lies: bool,
}

/// A request that the hub had.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Path.
    pub path: String,
    /// `Range`, if it had one.
    pub range: Option<String>,
    /// `Authorization`, if it had one.
    pub authorization: Option<String>,
}

impl Hub {
    /// Starts one that holds nothing, on the caller's runtime.
    pub async fn start() -> Self {
        let store: Arc<Mutex<Store>> = Arc::default();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let at = store.clone();
        let asked = warp::path::full()
            .and(warp::header::optional("range"))
            .and(warp::header::optional("authorization"))
            .map(move |path: warp::path::FullPath, range, authorization| {
                let asked = Asked { path: path.as_str().to_owned(), range, authorization };
                lock(&at).answer(address, asked)
            });
        tokio::spawn(warp::serve(asked).incoming(listener).run());
        Self { address, store, cache: Folder::new() }
    }

    /// Puts a file into a repository.
    pub fn put(&self, repository: &str, file: &str, content: impl Into<Bytes>) {
        lock(&self.store).repositories.entry(repository.into()).or_default().insert(file.into(), content.into());
    }

    /// Cuts connections that would serve bytes of a large file from this one on.
    pub fn cut_at(&self, byte: Option<usize>) {
        lock(&self.store).cut_at = byte;
    }

    /// States wrong checksums, or right ones again.
    pub fn lies(&self, lies: bool) {
        lock(&self.store).lies = lies;
    }

    /// Takes the requests that came since the last call.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut lock(&self.store).asked)
    }

    /// The binary with this hub as its hub; more can be set before it is run.
    pub fn client(&self, args: &[&str]) -> Command {
        let mut command = Command::new(specula());
        command.args(args);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if ["SPECULA_", "HF_"].iter().any(|prefix| name.starts_with(prefix))
                || name.to_lowercase().ends_with("_proxy")
            {
                command.env_remove(name);
            }
        }
        command.env("HF_ENDPOINT", format!("http://{}", self.address)).env("HF_HOME", self.cache.path());
        command
    }

    /// Runs it off the runtime's thread, on which the hub answers.
    pub async fn run(&self, mut command: Command) -> Output {
        tokio::task::spawn_blocking(move || command.output().expect("the binary runs")).await.expect("no panic")
    }
}

fn lock(store: &Mutex<Store>) -> MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    fn answer(&mut self, address: SocketAddr, asked: Asked) -> Answer {
        let (path, range) = (asked.path.clone(), asked.range.clone());
        self.asked.push(asked);
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let found = match &parts[..] {
            ["api", "models", org, name, "revision", "main"] => self.list(&format!("{org}/{name}")),
            ["large", org, name, file @ ..] => {
                let content = self.content(&format!("{org}/{name}"), &file.join("/"));
                content.map(|content| ranged(content, range.as_deref(), self.cut_at))
            }
            [org, name, "resolve", "main" | COMMIT, file @ ..] => {
                self.resolve(address, (&format!("{org}/{name}"), &file.join("/")), range.as_deref())
            }
            _ => None,
        };
        found.unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
    }

    fn content(&self, repository: &str, file: &str) -> Option<&Bytes> {
        self.repositories.get(repository)?.get(file)
    }

    fn list(&self, repository: &str) -> Option<Answer> {
        let files: Vec<_> = self.repositories.get(repository)?.keys().map(|file| json!({"rfilename": file})).collect();
        Some(reply::json(&json!({"id": repository, "sha": COMMIT, "siblings": files})).into_response())
    }

    /// Small files are served; large ones lie elsewhere.
    fn resolve(&self, address: SocketAddr, (repository, file): (&str, &str), range: Option<&str>) -> Option<Answer> {
        let content = self.content(repository, file)?;
        if !(file.ends_with(".gguf") || file.ends_with(".safetensors")) {
            let tag = format!("\"{:040x}\"", content.len());
            return Some(headed(ranged(content, range, None), [("etag", tag), ("x-repo-commit", COMMIT.into())]));
        }
        let hash: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        let stated: String = if self.lies { hash.chars().rev().collect() } else { hash };
        let headers = [
            ("location", format!("http://{address}/large/{repository}/{file}")),
            ("x-repo-commit", COMMIT.into()),
            ("x-linked-etag", format!("\"{stated}\"")),
        ];
        Some(headed(StatusCode::FOUND.into_response(), headers))
    }
}

/// What `range` asks of a file; the connection is cut where byte `cut_at` would come.
fn ranged(content: &Bytes, range: Option<&str>, cut_at: Option<usize>) -> Answer {
    let len = content.len();
    let bounds = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let (from, to) = bounds.map_or((0, len), |(from, to)| {
        (from.parse().unwrap_or(0), to.parse().map_or(len, |last: usize| len.min(last + 1)))
    });
    if from >= to {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    }
    let served = content.slice(from..cut_at.map_or(to, |cut| cut.clamp(from, to)));
    let cut = (served.len() < to - from).then(|| Err(std::io::Error::other("cut")));
    let body = reply::stream(futures_util::stream::iter([Ok(served)].into_iter().chain(cut)));
    let answer = reply::with_status(body, StatusCode::PARTIAL_CONTENT).into_response();
    let length = ("content-length", (to - from).to_string());
    headed(answer, [length, ("content-range", format!("bytes {from}-{}/{len}", to - 1))])
}

fn headed(mut answer: Answer, headers: impl IntoIterator<Item = (&'static str, String)>) -> Answer {
    for (name, value) in headers {
        answer.headers_mut().insert(name, value.parse().expect("a header"));
    }
    answer
}
