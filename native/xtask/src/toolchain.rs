//! Finds a compiler for wasm32: the toolchain's own target; else a distribution's compiler with the standard library's
//! source, which is then built along. Looking changes nothing; only `serve`, `test` and `setup` may install the target.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The target of plugins and page.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

const LINKERS: [&str; 6] = ["rust-lld", "wasm-ld", "wasm-ld-19", "wasm-ld-18", "wasm-ld-16", "wasm-ld-14"];

/// A way to compile for [`TARGET`].
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// Its cargo.
    pub(crate) cargo: PathBuf,
    /// Its compiler.
    pub(crate) rustc: PathBuf,
    /// Set if the standard library has to be built along: the linker to use.
    pub(crate) build_std: Option<PathBuf>,
}

/// Whether a missing target may be installed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum MayInstall {
    /// Say what to do instead.
    No,
    /// With rustup, announced.
    Yes,
}

impl Toolchain {
    /// The best way this machine has.
    pub(crate) fn find(may_install: MayInstall) -> Result<Self> {
        let own = own();
        if has_target(&own.1) {
            return Ok(Self { cargo: own.0, rustc: own.1, build_std: None });
        }
        let mut tried = vec![format!("{}: no {TARGET} target", own.1.display())];
        for (cargo, rustc) in [own.clone(), ("/usr/bin/cargo".into(), "/usr/bin/rustc".into())] {
            match build_std_linker(&cargo, &rustc, &own.1) {
                Ok(linker) => return Ok(Self { cargo, rustc, build_std: Some(linker) }),
                Err(reason) => tried.push(format!("{}: {reason}", rustc.display())),
            }
        }
        if may_install == MayInstall::Yes && setup().is_ok() && has_target(&own.1) {
            return Ok(Self { cargo: own.0, rustc: own.1, build_std: None });
        }
        bail!(
            "no compiler for {TARGET} here:\n  {}\nDo one of:\n  cargo xtask setup    (rustup target add {TARGET})\n  \
             apt-get update && apt-get install rustc-web cargo-web rust-web-src lld    (Debian; builds the standard library along)",
            tried.join("\n  ")
        )
    }

    /// The folder of this toolchain's artefacts. Not the host's: another compiler must not turn its cache over, and the
    /// two builds must not wait for each other's lock.
    pub(crate) fn target_dir(&self) -> PathBuf {
        let name = if self.build_std.is_some() { "wasm-distro" } else { "wasm" };
        crate::files::root().join("target").join(name)
    }
}

/// Adds the target with rustup.
pub(crate) fn setup() -> Result<()> {
    eprintln!("==> rustup target add {TARGET}");
    let status = Command::new("rustup").args(["target", "add", TARGET]).status().context("rustup cannot be started")?;
    if !status.success() {
        bail!("`rustup target add {TARGET}` failed; `cargo xtask doctor` lists the alternatives");
    }
    Ok(())
}

/// The cargo that runs this program, and the compiler beside it.
fn own() -> (PathBuf, PathBuf) {
    let cargo = PathBuf::from(env::var_os("CARGO").unwrap_or("cargo".into()));
    let beside = cargo.with_file_name("rustc");
    let rustc = if beside.is_file() { beside } else { "rustc".into() };
    (cargo, rustc)
}

fn has_target(rustc: &Path) -> bool {
    let Some(folder) = output(rustc, ["--print", "target-libdir", "--target", TARGET]) else { return false };
    std::fs::read_dir(folder).is_ok_and(|mut entries| {
        entries.any(|e| e.is_ok_and(|e| e.file_name().to_string_lossy().starts_with("libstd-")))
    })
}

/// Whether a compiler takes this workspace's crates.
fn is_new_enough(rustc: &Path) -> bool {
    let Some(version) = output(rustc, ["--version"]) else { return false };
    is_at_least(version.split_whitespace().nth(1).unwrap_or_default(), env!("CARGO_PKG_RUST_VERSION"))
}

/// Compares major and minor versions.
fn is_at_least(version: &str, least: &str) -> bool {
    let numbers = |text: &str| -> Option<(u32, u32)> {
        let mut parts = text.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    numbers(version) >= numbers(least)
}

/// The linker with which this pair can build the standard library, or what it lacks.
fn build_std_linker(cargo: &Path, rustc: &Path, own_rustc: &Path) -> Result<PathBuf, &'static str> {
    let sysroot = output(rustc, ["--print", "sysroot"]).ok_or("not there")?;
    if !is_new_enough(rustc) {
        return Err(concat!(
            "older than ",
            env!("CARGO_PKG_RUST_VERSION"),
            " (Debian's is renewed with its security updates: apt-get update, then install it again)"
        ));
    }
    output(cargo, ["--version"]).ok_or("no cargo beside it")?;
    if !Path::new(&sysroot).join("lib/rustlib/src/rust/library/std/Cargo.toml").is_file() {
        return Err("no source of the standard library (rust-src)");
    }
    let bundled = bundled_linker(rustc).or_else(|| bundled_linker(own_rustc));
    bundled.or_else(|| LINKERS.iter().find_map(|name| on_path(name))).ok_or("no linker for wasm (rust-lld, wasm-ld)")
}

fn bundled_linker(rustc: &Path) -> Option<PathBuf> {
    let sysroot = output(rustc, ["--print", "sysroot"])?;
    let version = output(rustc, ["-vV"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "))?;
    let linker = Path::new(&sysroot).join("lib/rustlib").join(host).join("bin/rust-lld");
    linker.is_file().then_some(linker)
}

/// The first program of this name on the path.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// What a program prints, trimmed; `None` if it cannot run or fails.
pub(crate) fn output<S: AsRef<OsStr>>(program: &Path, args: impl IntoIterator<Item = S>) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (version, new_enough) in [
            ("1.95.0", true),
            ("1.100.0-nightly", true),
            ("2.0.0", true),
            ("1.85.0", false),
            ("1.9.9", false),
            ("", false),
        ] {
            assert_eq!(is_at_least(version, "1.95"), new_enough, "{version}");
        }
    }
}
