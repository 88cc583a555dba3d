//! The whole server on a real socket, in front of the scripted engine: what a client sees, and what a client may not do.

mod http;
mod life;
mod socket;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::seam::Engine;
use crate::{Assets, Server, ServerConfig};

const PAGE: Assets = &[("index.html", b"<!doctype html>"), ("page.js", b"1")];

/// A running server.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    pub(super) engine: Engine,
    pub(super) stop: oneshot::Sender<()>,
    pub(super) ended: JoinHandle<()>,
}

pub(super) async fn start(change: impl FnOnce(&mut ServerConfig)) -> Running {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut config = ServerConfig { listen, ..ServerConfig::default() };
    change(&mut config);
    let engine = Engine::new();
    let server = Server::bind(config, engine.clone(), PAGE).await.expect("a free port");
    let address = server.local_addr();
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(server.run(async {
        stopped.await.ok();
    }));
    Running { address, engine, stop, ended }
}

pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e} in {}", self.body))
    }
}

impl Running {
    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the server accepts")
    }

    /// Sends a head (its own lines, each ended) and body; HTTP/1.0 so that no answer is chunked.
    pub(super) async fn ask(&self, line: &str, headers: &str, body: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        let host = if headers.to_lowercase().contains("host:") {
            String::new()
        } else {
            format!("host: {}\r\n", self.address)
        };
        let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let head = format!("{line} HTTP/1.0\r\n{host}{length}{headers}\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream.write_all(body).await.expect("sent");
        read_answer(stream).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), "", b"").await
    }

    pub(super) async fn post(&self, path: &str, body: &str) -> Answer {
        self.ask(&format!("POST {path}"), "content-type: application/json\r\n", body.as_bytes()).await
    }

    /// Waits until the engine runs that many generations.
    pub(super) async fn until_running(&self, count: usize) {
        for _ in 0..200 {
            if self.engine.running() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} generations run instead of {count}", self.engine.running());
    }
}

pub(super) async fn read_answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let deadline = Duration::from_secs(10);
    tokio::time::timeout(deadline, stream.read_to_end(&mut bytes)).await.expect("an answer in time").ok();
    let text = String::from_utf8(bytes).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
