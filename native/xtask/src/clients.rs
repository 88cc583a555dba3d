//! Other people's clients against the server: OpenAI's packages for Python and JavaScript, and schemathesis with the server's
//! own description. All run from `tests/clients`; what they need is installed below `target/clients`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::files;

/// Requests of a path that schemathesis makes up, beside those at the edges of every field.
const EXAMPLES: &str = "40";

/// What schemathesis may find fault with.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance";

/// Installs the clients and runs them all; fails if one does.
pub(crate) fn run() -> Result<()> {
    let suites = files::root().join("tests/clients");
    let home = files::root().join("target/clients");
    let python = venv(&suites.join("requirements.txt"), &home.join("python"))?;
    let javascript = javascript(&suites, &home)?;
    let server = Server::start(&[])?;
    let small = Server::start(&["--max-running", "1", "--max-waiting", "0"])?;

    let mut schemathesis = Command::new(python.join("schemathesis"));
    schemathesis.current_dir(&suites).env("SCHEMATHESIS_HOOKS", "hooks").env("PYTHONPATH", &suites);
    schemathesis.arg("run").arg(format!("{}/openapi.json", server.url));
    schemathesis.args(["--checks", CHECKS, "--max-examples", EXAMPLES, "--seed", "1", "--request-timeout", "60"]);
    // A WebSocket is not schemathesis' business.
    // Nor is a body of WebAssembly.
    schemathesis.args([
        "--exclude-path",
        "/v1/stream",
        "--exclude-operation-id",
        "uploadPlugin",
        "--phases",
        "examples,coverage,fuzzing",
    ]);

    let mut node = Command::new("node");
    node.current_dir(&javascript).args(["--test", "--test-reporter=spec", "openai.test.js"]);

    let mut pytest = Command::new(python.join("pytest"));
    pytest.current_dir(&suites).args(["-q", "-p", "no:cacheprovider"]).env("PYTHONDONTWRITEBYTECODE", "1");

    let mut failed = Vec::new();
    for (name, mut suite) in [("schemathesis", schemathesis), ("JavaScript", node), ("Python", pytest)] {
        eprintln!("==> clients: {name}");
        suite.env("SPECULA_URL", &server.url).env("SPECULA_SMALL_URL", &small.url);
        if !suite.status().with_context(|| format!("{name} cannot be started"))?.success() {
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("these clients' suites failed: {}", failed.join(", "));
    }
    Ok(())
}

/// The programs of a virtual environment with the packages that a file lists.
pub(crate) fn venv(wanted: &Path, venv: &Path) -> Result<PathBuf> {
    let programs = venv.join("bin");
    if up_to_date(wanted, &venv.join("requirements.txt")) {
        return Ok(programs);
    }
    eprintln!("==> installing {}", wanted.display());
    let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(venv).status();
    if !made.is_ok_and(|status| status.success()) {
        bail!("`python3 -m venv` does not work here; Debian has it in `python3-venv`");
    }
    let mut pip = Command::new(programs.join("pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(wanted);
    succeed(&mut pip)?;
    std::fs::copy(wanted, venv.join("requirements.txt"))?;
    Ok(programs)
}

/// A folder with the JavaScript suite and its packages.
fn javascript(suites: &Path, home: &Path) -> Result<PathBuf> {
    let (from, to) = (suites.join("javascript"), home.join("javascript"));
    std::fs::create_dir_all(&to)?;
    let installed = up_to_date(&from.join("package-lock.json"), &to.join("package-lock.json"));
    for file in ["package.json", "package-lock.json", "openai.test.js"] {
        std::fs::copy(from.join(file), to.join(file)).with_context(|| format!("tests/clients/javascript/{file}"))?;
    }
    if !installed || !to.join("node_modules/openai").is_dir() {
        eprintln!("==> clients: installing {}", from.join("package-lock.json").display());
        let mut npm = Command::new("npm");
        npm.current_dir(&to).args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]);
        succeed(&mut npm).context("npm is needed, with node 20 or newer; Debian has it in `nodejs npm`")?;
    }
    Ok(to)
}

fn up_to_date(wanted: &Path, installed: &Path) -> bool {
    matches!((std::fs::read(wanted), std::fs::read(installed)), (Ok(wanted), Ok(installed)) if wanted == installed)
}

/// Runs a command; its failure is an error.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{:?} cannot be started", command.get_program()))?;
    if !status.success() {
        bail!("{:?} failed", command.get_program());
    }
    Ok(())
}

/// The release binary, serving on a free port; killed when dropped.
pub(crate) struct Server {
    process: Child,
    /// Its address, without a path.
    pub(crate) url: String,
}

impl Server {
    /// Starts one with more arguments.
    pub(crate) fn start(args: &[&str]) -> Result<Self> {
        let mut command = Command::new(files::root().join("target/release/specula"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--log", "warn"]).args(args).stdout(Stdio::piped());
        let mut process = command.spawn().context("the server cannot be started")?;
        let mut said = String::new();
        let stdout = process.stdout.take().context("its output is piped")?;
        BufReader::new(stdout).read_line(&mut said)?;
        let url = said.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned);
        match url {
            Some(url) => Ok(Self { process, url }),
            None => bail!("the server said `{}` instead of its address", said.trim()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
