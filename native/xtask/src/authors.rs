//! What authors do, in every language: `specula plugin new` makes a project of each kind, its own tools build it, `plugin check`
//! and `plugin run` must be content with it, and a server takes it and generates with it. All below `target/authors`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::clients::{self, Server};
use crate::files;
use crate::guests;
use crate::toolchain::{TARGET, Toolchain};

const KINDS: [(&str, &str); 3] = [("acceptance", "acceptor"), ("sampling", "sampler"), ("stopping", "stopper")];

/// Makes, builds, checks, runs and pushes them all; fails with the first that fails.
pub(crate) fn run(toolchain: &Toolchain) -> Result<()> {
    let home = files::root().join("target/authors");
    let projects = home.join("projects");
    if projects.exists() {
        fs::remove_dir_all(&projects)?;
    }
    fs::create_dir_all(&projects)?;
    let data = projects.join("data");
    let data = data.to_str().context("the target folder's path is UTF-8")?;
    let server = Server::start(&["--data", data, "--plugin-limits", "interpreter"])?;
    for (kind, _) in KINDS {
        try_out(&server, Some("standard"), &rust(toolchain, &projects, &home, kind)?)?;
    }
    // CPython takes most of the time to compile: one of each kind in JavaScript, one in all in Python, examined once.
    for (kind, world) in KINDS {
        try_out(&server, Some("interpreter"), &javascript(&projects, &home, (kind, world))?)?;
    }
    try_out(&server, None, &python(&projects, &home, KINDS[1])?)
}

/// Makes a project and gives its folder.
fn new(projects: &Path, lang: &str, kind: &str) -> Result<PathBuf> {
    let name = format!("{lang}-{kind}");
    eprintln!("==> authors: {name}");
    specula(&["new", "--kind", kind, "--lang", lang, "--at", text(projects)?, &name])?;
    Ok(projects.join(name))
}

fn rust(toolchain: &Toolchain, projects: &Path, home: &Path, kind: &str) -> Result<PathBuf> {
    let project = new(projects, "rust", kind)?;
    let target = home.join("rust");
    let mut cargo = guests::cargo(toolchain, &project, &target);
    clients::succeed(cargo.args(["--release"]))?;
    let module = target.join(TARGET).join("release").join(format!("rust_{kind}.wasm"));
    let file = project.join(format!("rust-{kind}.wasm"));
    fs::copy(&module, &file).with_context(|| module.display().to_string())?;
    Ok(file)
}

fn javascript(projects: &Path, home: &Path, (kind, _): (&str, &str)) -> Result<PathBuf> {
    let project = new(projects, "js", kind)?;
    let (wanted, shelf) = (project.join("package.json"), home.join("javascript"));
    if !shelf.join("node_modules/componentize-qjs").is_dir() {
        fs::create_dir_all(&shelf)?;
        fs::copy(&wanted, shelf.join("package.json"))?;
        let mut npm = Command::new("npm");
        npm.current_dir(&shelf).args(["install", "--no-audit", "--no-fund", "--loglevel=error"]);
        clients::succeed(&mut npm).context("npm is needed, with node 20 or newer; Debian has it in `nodejs npm`")?;
    }
    let mut build = Command::new("npm");
    build.current_dir(&project).args(["run", "--silent", "build"]);
    // Packages of one version serve all projects.
    let tools = [shelf.join("node_modules/.bin")];
    let path = std::env::var_os("PATH").unwrap_or_default();
    build.env("PATH", std::env::join_paths(tools.into_iter().chain(std::env::split_paths(&path)))?);
    clients::succeed(&mut build)?;
    Ok(project.join(format!("js-{kind}.wasm")))
}

fn python(projects: &Path, home: &Path, (kind, world): (&str, &str)) -> Result<PathBuf> {
    let project = new(projects, "python", kind)?;
    let programs = clients::venv(&project.join("requirements.txt"), &home.join("python"))?;
    let file = project.join(format!("python-{kind}.wasm"));
    let mut build = Command::new(programs.join("componentize-py"));
    build.current_dir(&project).args(["-d", "wit", "-w", world, "componentize", kind, "-s", "-o"]).arg(&file);
    clients::succeed(&mut build)?;
    Ok(file)
}

/// Checks and runs a plugin here under some limits, if they are named, pushes it, and generates with it.
fn try_out(server: &Server, limits: Option<&str>, file: &Path) -> Result<()> {
    let (path, name) = (text(file)?, file.file_stem().unwrap_or_default().to_string_lossy().into_owned());
    if let Some(limits) = limits {
        specula(&["check", "--limits", limits, path])?;
        specula(&["run", "--limits", limits, path])?;
    }
    specula(&["push", "--server", &server.url, path])?;
    generate(server, &name).with_context(|| format!("generate with {name}"))
}

/// A short text with a plugin, by the server.
fn generate(server: &Server, plugin: &str) -> Result<()> {
    let body = format!(
        r#"{{"prompt": "- List all files", "seed": 7, "max_tokens": 24, "plugins": [{{"name": "{plugin}"}}]}}"#
    );
    let address = server.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "POST /v1/completions HTTP/1.0\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    // Without warnings: no call failed, and the plugin's costs are told.
    let fits =
        answer.split(' ').nth(1) == Some("200") && !answer.contains(r#""warnings":[{"#) && answer.contains(plugin);
    if !fits {
        bail!("the server answers {answer}");
    }
    Ok(())
}

fn specula(args: &[&str]) -> Result<()> {
    let mut command = Command::new(files::root().join("target/release/specula"));
    clients::succeed(command.arg("plugin").args(args)).with_context(|| format!("specula plugin {}", args.join(" ")))
}

fn text(path: &Path) -> Result<&str> {
    match path.to_str() {
        Some(text) => Ok(text),
        None => bail!("{} is not UTF-8", path.display()),
    }
}
