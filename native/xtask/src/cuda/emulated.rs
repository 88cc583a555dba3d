//! What models do on a device, tried without one: on a driver whose device is the CPU, and which does what streams do not
//! order in several orders. No toolkit is needed: the kernels' sources are compiled as C++, for the driver
//! (`native/models/tests/cuda`).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::candle;
use crate::clients::succeed;
use crate::files;

/// What the driver's `device.cpp` knows.
const ORDERS: [&str; 3] = ["now", "copies-first", "copies-last"];

const SOURCES: [&str; 5] = ["candle.cpp", "device.cpp", "driver.cpp", "libraries.cpp", "own.cpp"];
const DRIVER: &str = "libspecula-cuda.so";
/// The names under which programs look for what it stands for.
const STANDS_FOR: [&str; 3] = ["libcuda.so.1", "libcublas.so.13", "libcurand.so.10"];

/// The version that the driver's functions are of.
const CUDA_VERSION: &str = "13000";

/// Runs tests on it, in every order.
pub(super) fn test(args: &[&str]) -> Result<()> {
    let home = super::home();
    let driver = driver(&home.join("emulated"))?;
    let no_compiler = no_compiler(&driver)?;
    let candle = candle::loading(&home.join("candle-core"))?;
    let kernels = candle::without_kernels(&home.join("candle-kernels"))?;
    let copies = [("candle-core", candle), ("candle-kernels", kernels)];
    // Not the folder of builds with kernels: their cache would be turned over.
    let target_dir = files::root().join("target/cuda-emulated");
    for order in ORDERS {
        eprintln!("==> cuda, emulated; what streams do not order: {order}");
        let mut cargo = super::cargo(args, &target_dir, &copies);
        cargo.env("CUDARC_CUDA_VERSION", CUDA_VERSION).env("NVCC", &no_compiler);
        cargo.env("LD_LIBRARY_PATH", &driver).env("SPECULA_CUDA_ORDER", order);
        super::succeed(&mut cargo)?;
    }
    Ok(())
}

/// Compiles the driver. The folder where it lies.
fn driver(folder: &Path) -> Result<PathBuf> {
    let sources = files::root().join("native/models/tests/cuda");
    std::fs::create_dir_all(folder)?;
    let mut compiler = Command::new(std::env::var("CXX").unwrap_or_else(|_| "c++".into()));
    compiler.args(["-std=c++17", "-O2", "-shared", "-fPIC", "-Wl,--no-undefined"]);
    // Fused multiply-adds would change bits, as they would on a device; and kernels take numbers for vectors of others. Candle's
    // are not ours to warn of.
    compiler.args(["-ffp-contract=off", "-fno-strict-aliasing", "-w"]);
    compiler.arg("-I").arg(sources.join("include")).arg("-I").arg(candle::sources("candle-kernels")?.join("src"));
    compiler.args(SOURCES.map(|name| sources.join(name))).arg("-o").arg(folder.join(DRIVER));
    succeed(&mut compiler).context("a C++ compiler is needed (Debian: g++)")?;
    for name in STANDS_FOR {
        files::link(Path::new(DRIVER), &folder.join(name))?;
    }
    Ok(folder.to_path_buf())
}

/// What stands for the compiler to PTX: the driver knows kernels by their names alone.
fn no_compiler(folder: &Path) -> Result<PathBuf> {
    // An empty file where PTX is wanted.
    let script = "#!/bin/sh\nwhile [ \"$1\" != -o ]; do shift; done\n: > \"$2\"\n";
    files::write_changed(folder, &("nvcc".into(), script.into()))?;
    let program = folder.join("nvcc");
    files::make_executable(&program)?;
    Ok(program)
}
