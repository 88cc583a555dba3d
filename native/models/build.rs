//! With CUDA: compiles our own kernels to PTX, which the driver compiles for the device it meets.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// Kernels, and whether products and sums may be fused: not where bits must be those of the CPU.
const KERNELS: [(&str, bool); 2] = [("reduce", false), ("attention", true)];

/// Devices from Ampere on: the first that have bf16.
const ARCHITECTURE: &str = "compute_80";

fn main() {
    println!("cargo:rerun-if-changed=src/cuda");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let home = ["CUDA_HOME", "CUDA_PATH"].into_iter().find_map(env::var_os);
    let nvcc = env::var_os("NVCC").map(PathBuf::from).or(home.map(|home| PathBuf::from(home).join("bin/nvcc")));
    let nvcc = nvcc.unwrap_or("nvcc".into());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for (name, fused) in KERNELS {
        let mut command = Command::new(&nvcc);
        command.args(["-ptx", "-O3", "-std=c++17", "-arch", ARCHITECTURE, &format!("--fmad={fused}"), "-o"]);
        command.arg(out.join(format!("{name}.ptx"))).arg(format!("src/cuda/{name}.cu"));
        let status = command.status();
        assert!(
            status.as_ref().is_ok_and(|status| status.success()),
            "{} does not compile {name}.cu ({status:?}); `cargo xtask cuda` builds with a toolkit of its own",
            nvcc.display()
        );
    }
}
