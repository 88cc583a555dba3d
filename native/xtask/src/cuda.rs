//! The binary with models on NVIDIA's devices: `target/cuda/release/specula`. Neither a device nor a driver is needed to
//! build it, nor a driver to start it.

mod candle;
mod toolkit;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::files;
use crate::host;
use toolkit::Toolkit;

/// Of the devices that the kernels are compiled for, unless `CUDA_COMPUTE_CAP` or a device that is here says another.
const COMPUTE_CAPABILITY: &str = "90";

/// Builds it; with arguments, runs it with them, or the tests that a device can run.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let toolkit = Toolkit::find()?;
    if let ["test", args @ ..] = args {
        return cargo(&toolkit, &[&["test", "--release", "--test", "on_device"], args].concat());
    }
    cargo(&toolkit, &["build", "--release"])?;
    let binary = target_dir().join("release/specula");
    eprintln!("    {}", binary.display());
    eprintln!(
        "    run it with LD_LIBRARY_PATH={}, unless the system's CUDA has these libraries",
        toolkit.lib.display()
    );
    match args {
        [] => Ok(()),
        [subcommand, args @ ..] => {
            let mut command = Command::new(&binary);
            command.env("LD_LIBRARY_PATH", toolkit.library_path()?);
            host::run(command, subcommand, args)
        }
    }
}

/// Not the default build's folder: other features would turn its cache over.
fn target_dir() -> PathBuf {
    files::root().join("target/cuda")
}

/// Where the toolkit and the patched candle are made.
fn home() -> PathBuf {
    files::root().join("target/cuda13")
}

/// Cargo with the toolkit and the patched candle.
fn cargo(toolkit: &Toolkit, args: &[&str]) -> Result<()> {
    let candle = candle::patched(&home().join("candle-core"))?;
    let link = static_runtime(toolkit, &home().join("link"))?;
    eprintln!(
        "==> cuda: target/cuda/release/specula with {} (the first build takes a quarter of an hour)",
        toolkit.home.display()
    );
    // Cargo notes the patch in Cargo.lock, which is to stay that of the default build.
    let _lock = files::Kept::new(&files::root().join("Cargo.lock"))?;
    let mut cargo = host::cargo();
    cargo.args(args).args(["--features", "specula/cuda", "--target-dir"]).arg(target_dir());
    cargo.arg("--config").arg(format!("patch.crates-io.candle-core.path='{}'", candle.display()));
    cargo.env("CUDA_HOME", &toolkit.home).env("CUDA_PATH", &toolkit.home);
    // What tests take for their device, and where they find its libraries.
    cargo.env("SPECULA_TEST_DEVICE", "cuda:0").env("LD_LIBRARY_PATH", toolkit.library_path()?);
    // cudarc asks the first nvcc on the path for its version.
    cargo.env("PATH", prepended(&toolkit.home.join("bin"), "PATH")?);
    cargo.env("LIBRARY_PATH", prepended(&link, "LIBRARY_PATH")?);
    let asked = std::env::var_os("CUDA_COMPUTE_CAP").is_some();
    if !asked && crate::toolchain::on_path("nvidia-smi").is_none() {
        eprintln!("    for devices of compute capability 9.0 (H100, H200); others by CUDA_COMPUTE_CAP=89 and the like");
        cargo.env("CUDA_COMPUTE_CAP", COMPUTE_CAPABILITY);
    }
    if std::env::var_os("CUDAFORGE_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        cargo.env("CUDAFORGE_THREADS", cores.to_string());
    }
    if !cargo.status()?.success() {
        bail!("`cargo {}` with CUDA failed", args.join(" "));
    }
    Ok(())
}

/// A folder in which linkers find CUDA's runtime as a static library under the name of the shared one: candle-kernels asks
/// for that, and a machine without CUDA has none.
fn static_runtime(toolkit: &Toolkit, folder: &Path) -> Result<PathBuf> {
    let archive = toolkit.lib.join("libcudart_static.a");
    if !archive.is_file() {
        bail!("{} is missing: this is no whole CUDA toolkit", archive.display());
    }
    let script = format!("INPUT({})\n", archive.display());
    files::sync(folder, &[("libcudart.so".into(), script.into_bytes())])?;
    Ok(folder.to_path_buf())
}

/// A variable's list of folders with one more at its head.
fn prepended(folder: &Path, variable: &str) -> Result<std::ffi::OsString> {
    let others = std::env::var_os(variable).unwrap_or_default();
    let others = std::env::split_paths(&others).filter(|path| !path.as_os_str().is_empty());
    Ok(std::env::join_paths(std::iter::once(folder.to_path_buf()).chain(others))?)
}
