//! The host side: the release binary, the tests, the lints.

use std::process::{Command, exit};

use anyhow::{Context, Result, bail};

use crate::doctor;
use crate::files;
use crate::onnxruntime;

/// `target/release/specula`.
pub(crate) fn build() -> Result<()> {
    eprintln!("==> host: target/release/specula (the first build takes some minutes)");
    succeed(&["build", "--release"])
}

/// Runs a command of the binary until it ends; its exit code becomes ours.
pub(crate) fn specula(subcommand: &str, args: &[&str]) -> Result<()> {
    run(Command::new(files::root().join("target/release/specula")), subcommand, args)
}

/// The same of another binary.
pub(crate) fn run(mut binary: Command, subcommand: &str, args: &[&str]) -> Result<()> {
    eprintln!("==> {} {subcommand} {}", binary.get_program().display(), args.join(" "));
    let status = binary.arg(subcommand).args(args).status().context("the binary cannot be started")?;
    exit(status.code().unwrap_or(1))
}

/// Serves, and keeps uploaded plugins in the target folder unless told where.
pub(crate) fn serve(args: &[&str]) -> Result<()> {
    let told = args.iter().any(|arg| arg.starts_with("--data")) || std::env::var_os("SPECULA_DATA").is_some();
    let data = files::root().join("target/data");
    match data.to_str().filter(|_| !told) {
        Some(data) => specula("serve", &[args, &["--data", data]].concat()),
        None => specula("serve", args),
    }
}

/// All tests: the guest SDK's on this machine, then those of the host crates and of `tests/`. With arguments only the
/// latter. cargo's exit code becomes ours.
pub(crate) fn test(args: &[&str]) -> Result<()> {
    eprintln!("==> tests");
    for (tier, state) in doctor::tiers() {
        eprintln!("    {tier}: {state}");
    }
    if args.is_empty() {
        succeed(&["test", "--release", "--lib", "-p", "specula-policy-sdk"])?;
    }
    let mut command = cargo();
    command.args(["test", "--release"]).args(args).envs(onnxruntime::variables());
    let status = command.status().context("cargo cannot be started")?;
    exit(status.code().unwrap_or(1))
}

/// Formatting and clippy.
pub(crate) fn lint() -> Result<()> {
    eprintln!("==> lint");
    succeed(&["fmt", "--all", "--check"])?;
    succeed(&["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

/// The kernels' tests under AddressSanitizer, in a build of their own: nearly all unsafe code is there.
pub(crate) fn sanitize() -> Result<()> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    eprintln!("==> kernels under AddressSanitizer ({TARGET})");
    let mut command = cargo();
    command.args(["test", "--release", "--package", "specula-kernels", "--lib", "--tests", "--target", TARGET]);
    command.args(["--target-dir", "target/sanitize"]);
    // The sanitizer comes with rustup's stable compiler; the switch for it does not.
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=address");
    let status = command.status().context("cargo cannot be started")?;
    if !status.success() {
        bail!("the kernels' tests failed under AddressSanitizer, or this compiler has none for {TARGET}");
    }
    Ok(())
}

fn succeed(args: &[&str]) -> Result<()> {
    let status = cargo().args(args).status().context("cargo cannot be started")?;
    if !status.success() {
        bail!("`cargo {}` failed", args.join(" "));
    }
    Ok(())
}

/// Cargo in the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.current_dir(files::root());
    // Set by the cargo that runs us, for this crate: as settings of another build they would spoil its cache.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_")
            || name == "CARGO_MANIFEST_DIR"
            || name == "CARGO_MANIFEST_PATH"
        {
            command.env_remove(name);
        }
    }
    command
}
