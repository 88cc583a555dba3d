//! `specula serve` on a port of its own, for the length of a test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use crate::binary::specula;
use crate::wait::until;

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Server {
    process: Mutex<Child>,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
}

/// What a process holds of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Resources {
    /// Memory in RAM.
    pub memory_bytes: u64,
    /// Open files, connections among them.
    pub files: usize,
}

impl Server {
    /// Starts one with more arguments and waits until it is ready.
    pub fn start(args: &[&str]) -> Self {
        let mut command = Command::new(specula());
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(args);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SPECULA_")) {
            command.env_remove(name);
        }
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the binary runs");
        let log = Arc::default();
        keep(process.stderr.take().expect("stderr is a pipe"), &log);
        let mut told = BufReader::new(process.stdout.take().expect("stdout is a pipe"));
        let mut line = String::new();
        told.read_line(&mut line).expect("stdout is UTF-8");
        let Some(address) = line.trim().rsplit_once("http://").and_then(|(_, address)| address.parse().ok()) else {
            process.wait().ok();
            let log = log.lock().unwrap_or_else(PoisonError::into_inner);
            panic!("the server did not start; it said {line:?} and\n{log}");
        };
        keep(told, &log);
        let server = Self { process: Mutex::new(process), address, log };
        assert!(server.is_ready(), "a server that tells its address takes requests");
        server
    }

    /// One for all tests of a file that need no settings of their own; ends with the last of them that runs.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start(&[]));
        *shared = Arc::downgrade(&server);
        server
    }

    /// Address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Address and port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has printed, log and all.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the process holds; Linux tells.
    pub fn resources(&self) -> Resources {
        let process = PathBuf::from(format!("/proc/{}", self.process().id()));
        let status = std::fs::read_to_string(process.join("status")).expect("Linux tells of processes");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        let kib: u64 = line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number");
        let files = std::fs::read_dir(process.join("fd")).expect("its files").count();
        Resources { memory_bytes: kib << 10, files }
    }

    /// Sends SIGTERM. By the shell, whose `kill` is built in: Rust's library cannot.
    pub fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.process().id());
        let status = Command::new("sh").args(["-c", &kill]).status().expect("there is a shell");
        assert!(status.success(), "{kill}: {status}");
    }

    /// Ends it at once, as a lost machine would.
    pub fn kill(&self) {
        let mut process = self.process();
        process.kill().and_then(|()| process.wait()).expect("it runs");
    }

    /// Processes that it has started and that still are.
    pub fn children(&self) -> usize {
        let tasks = PathBuf::from(format!("/proc/{}/task", self.process().id()));
        let of = |task: std::io::Result<std::fs::DirEntry>| {
            let path = task.ok()?.path().join("children");
            Some(std::fs::read_to_string(path).ok()?.split_whitespace().count())
        };
        std::fs::read_dir(tasks).expect("Linux tells of threads").filter_map(of).sum()
    }

    /// Waits for its end.
    pub async fn end(&self) -> ExitStatus {
        until("the server's end", async || self.status().is_some()).await;
        self.status().expect("it has ended")
    }

    fn status(&self) -> Option<ExitStatus> {
        self.process().try_wait().expect("a child can be asked")
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Child> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks /readyz, without the client under whose own runtime it could not block.
    fn is_ready(&self) -> bool {
        let mut stream = TcpStream::connect(self.address).expect("the server accepts");
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer in UTF-8");
        answer.split(' ').nth(1) == Some("200")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let process = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
        process.kill().ok();
        process.wait().ok();
        if thread::panicking() {
            eprintln!("the server's output:\n{}", self.log.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Gathers what a pipe brings, so that the server never waits for a reader.
fn keep(pipe: impl Read + Send + 'static, log: &Arc<Mutex<String>>) {
    let log = log.clone();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            *log += &line;
            *log += "\n";
        }
    });
}
