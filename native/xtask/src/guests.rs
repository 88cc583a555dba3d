//! Compiles workspace members to wasm32 with whatever toolchain was found.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::toolchain::{TARGET, Toolchain};

/// A workspace member that is a guest.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    /// Name of its folder.
    pub(crate) name: String,
    /// One line on what it is.
    pub(crate) description: String,
    package: String,
}

impl Guest {
    /// Reads a folder's manifest; `None` if it is no guest, that is, builds no `cdylib`.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join("Cargo.toml");
        let Ok(text) = fs::read_to_string(&path) else { return Ok(None) };
        let manifest: toml::Table = text.parse().with_context(|| format!("read {}", path.display()))?;
        let kinds = manifest.get("lib").and_then(|lib| lib.get("crate-type")).and_then(toml::Value::as_array);
        if !kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind.as_str() == Some("cdylib"))) {
            return Ok(None);
        }
        let field = |key: &str| {
            let package = manifest.get("package").and_then(|package| package.get(key));
            package.and_then(toml::Value::as_str).unwrap_or_default().to_owned()
        };
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Some(Self { name, description: field("description"), package: field("name") }))
    }
}

/// Compiles guests and returns the core modules' paths, in order.
pub(crate) fn compile(toolchain: &Toolchain, what: &str, guests: &[Guest]) -> Result<Vec<PathBuf>> {
    let names: Vec<&str> = guests.iter().map(|guest| guest.name.as_str()).collect();
    let target_dir = toolchain.target_dir();
    let first = if target_dir.exists() { "" } else { " (the first build takes some minutes)" };
    let along = if toolchain.build_std.is_some() { ", with the standard library" } else { "" };
    eprintln!("==> {what}: {} with {}{along}{first}", names.join(", "), toolchain.rustc.display());
    let start = Instant::now();
    let mut command = cargo(toolchain, &crate::files::root(), &target_dir);
    command.args(["--profile", "wasm"]);
    for guest in guests {
        command.args(["-p", &guest.package]);
    }
    let status = command.status().context("cargo cannot be started")?;
    if !status.success() {
        bail!("{what} did not compile");
    }
    eprintln!("    compiled in {:.1} s", start.elapsed().as_secs_f64());
    let folder = target_dir.join(TARGET).join("wasm");
    Ok(guests.iter().map(|guest| folder.join(format!("{}.wasm", guest.package.replace('-', "_")))).collect())
}

/// `cargo build` for wasm32 of what lies in a folder, without a profile yet.
pub(crate) fn cargo(toolchain: &Toolchain, folder: &Path, target_dir: &Path) -> Command {
    let mut command = Command::new(&toolchain.cargo);
    command.current_dir(folder);
    // What the outer cargo has set would bind the inner one to the wrong toolchain and flags.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let flags = ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER"];
        if flags.contains(&text.as_ref()) || text.starts_with("CARGO_BUILD_") || text.starts_with("CARGO_PKG_") {
            command.env_remove(&name);
        }
    }
    command.env("RUSTC", &toolchain.rustc);
    command.args(["build", "--target", TARGET, "--target-dir"]).arg(target_dir);
    if let Some(linker) = &toolchain.build_std {
        command.arg("-Zbuild-std=std,panic_abort").env("RUSTC_BOOTSTRAP", "1");
        command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
    }
    command
}
