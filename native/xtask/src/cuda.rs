//! The binary with models on NVIDIA's devices: `target/cuda/release/specula`. Neither a device nor a driver is needed to
//! build it, nor a driver to start it.

mod candle;
mod emulated;
mod toolkit;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::clients;
use crate::files;
use crate::host;
use toolkit::Toolkit;

/// Of the devices that the kernels are compiled for, unless `CUDA_COMPUTE_CAP` or a device that is here says another.
const COMPUTE_CAPABILITY: &str = "90";

/// What models do on a device.
const TEST: &[&str] = &["test", "--release", "--test", "on_device"];

/// Builds it; with arguments, runs it with them, or what models do on a device: on one that is here, or on a driver whose
/// device is the CPU.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    if let ["emulated", args @ ..] = args {
        return emulated::test(&[TEST, args].concat());
    }
    let toolkit = Toolkit::find()?;
    if let ["test", args @ ..] = args {
        return with_toolkit(&toolkit, &[TEST, args].concat());
    }
    with_toolkit(&toolkit, &["build", "--release"])?;
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

/// Cargo with the feature, and with copies of packages that are not as they were released.
fn cargo(args: &[&str], target_dir: &Path, copies: &[(&str, PathBuf)]) -> Command {
    // What comes after `--` is not cargo's.
    let (command, args) = args.split_at(1);
    let mut cargo = host::cargo();
    cargo.args(command).args(["--features", "specula/cuda", "--target-dir"]).arg(target_dir);
    for (name, copy) in copies {
        cargo.arg("--config").arg(format!("patch.crates-io.{name}.path='{}'", copy.display()));
    }
    cargo.args(args);
    // What tests take for their device.
    cargo.env("SPECULA_TEST_DEVICE", "cuda:0");
    cargo
}

/// Runs it.
fn succeed(cargo: &mut Command) -> Result<()> {
    // Cargo notes the copies in Cargo.lock, which is to stay that of the default build.
    let _lock = files::Kept::new(&files::root().join("Cargo.lock"))?;
    clients::succeed(cargo)
}

/// The same with a toolkit.
fn with_toolkit(toolkit: &Toolkit, args: &[&str]) -> Result<()> {
    let candle = candle::loading(&home().join("candle-core"))?;
    let link = static_runtime(toolkit, &home().join("link"))?;
    eprintln!(
        "==> cuda: target/cuda/release/specula with {} (the first build takes a quarter of an hour)",
        toolkit.home.display()
    );
    let mut cargo = cargo(args, &target_dir(), &[("candle-core", candle)]);
    cargo.env("CUDA_HOME", &toolkit.home).env("CUDA_PATH", &toolkit.home);
    // Where tests find a device's libraries.
    cargo.env("LD_LIBRARY_PATH", toolkit.library_path()?);
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
    succeed(&mut cargo)
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
