//! `cargo xtask`: builds plugins, page and host, runs the server and the test ladder.

mod authors;
mod clients;
mod cuda;
mod doctor;
mod files;
mod guests;
mod host;
mod onnxruntime;
mod page;
mod plugins;
mod toolchain;

use anyhow::{Result, bail};
use toolchain::{MayInstall, Toolchain};

const USAGE: &str = "\
cargo xtask COMMAND

  build [--only plugins|page]   plugins and page to target/dist, then the release binary (target/release/specula)
  wasm                          plugins and page alone
  serve [ARGS]                  build, then `specula serve ARGS`
  test [ARGS]                   build, then all tests; ARGS go to `cargo test`
  clients                       build, then OpenAI's packages and schemathesis against the server
  authors                       build, then plugins in Rust, JavaScript and Python as `specula plugin new` makes them
  onnxruntime [openvino] [qnn]  installs ONNX Runtime for the tests of drafts on accelerators, and packages with more of them
  exactness [ARGS]              build, then `specula exactness ARGS`: every method against the target alone
  cuda [COMMAND ARGS]           the binary with models on NVIDIA's devices (target/cuda/release/specula), which then runs
                                `specula COMMAND ARGS`; makes the CUDA toolkit of PyPI's packages unless CUDA_HOME names one
  cuda test [ARGS]              what models do on a device, tried on the first
  cuda emulated [ARGS]          the same on a driver of our own whose device is the CPU; no device is needed
  sanitize                      the kernels' tests under AddressSanitizer
  lint                          formatting and clippy, without changing anything
  doctor                        what this machine can build and test, and what is missing
  setup                         adds the wasm32 target with rustup";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["build"] => build(MayInstall::No),
        ["build", "--only", "plugins"] => plugins::build(&Toolchain::find(MayInstall::No)?),
        ["build", "--only", "page"] => page::build(&Toolchain::find(MayInstall::No)?),
        ["wasm"] => wasm(MayInstall::No),
        ["serve", rest @ ..] => {
            build(MayInstall::Yes)?;
            host::serve(rest)
        }
        ["test", rest @ ..] => {
            build(MayInstall::Yes)?;
            host::test(rest)
        }
        ["clients"] => {
            build(MayInstall::Yes)?;
            clients::run()
        }
        ["authors"] => {
            build(MayInstall::Yes)?;
            authors::run(&Toolchain::find(MayInstall::No)?)
        }
        ["onnxruntime", rest @ ..] => onnxruntime::install(rest),
        ["exactness", rest @ ..] => {
            build(MayInstall::Yes)?;
            host::specula("exactness", rest)
        }
        ["cuda", rest @ ..] => {
            wasm(MayInstall::No)?;
            cuda::run(rest)
        }
        ["sanitize"] => host::sanitize(),
        ["lint"] => host::lint(),
        ["doctor"] => doctor::report(),
        ["setup"] => toolchain::setup(),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => bail!("unknown: `{}`\n\n{USAGE}", args.join(" ")),
    }
}

fn wasm(may_install: MayInstall) -> Result<()> {
    let toolchain = Toolchain::find(may_install)?;
    plugins::build(&toolchain)?;
    page::build(&toolchain)
}

fn build(may_install: MayInstall) -> Result<()> {
    wasm(may_install)?;
    host::build()
}
