//! What this machine can build and test.

use std::path::Path;

use anyhow::Result;

use crate::onnxruntime;
use crate::toolchain::{self, MayInstall, Toolchain};

const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Prints it.
pub(crate) fn report() -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("cores        {cores}");
    let rustc = toolchain::output(Path::new("rustc"), ["--version"]);
    println!("host         {}", rustc.as_deref().unwrap_or("no rustc on the path"));
    match Toolchain::find(MayInstall::No) {
        Ok(found) => {
            let version = toolchain::output(&found.rustc, ["--version"]).unwrap_or_default();
            println!("wasm32       {} ({version})", found.rustc.display());
            match &found.build_std {
                None => println!("             its own target"),
                Some(linker) => {
                    println!("             builds the standard library along, links with {}", linker.display())
                }
            }
        }
        Err(error) => println!("wasm32       {error}"),
    }
    for (tier, state) in tiers() {
        println!("{tier:<12} {state}");
    }
    Ok(())
}

/// The tiers of the test ladder and whether this machine runs them.
pub(crate) fn tiers() -> Vec<(&'static str, String)> {
    let browser = BROWSERS.iter().find_map(|name| toolchain::on_path(name));
    let browser = match browser {
        Some(path) => format!("runs, with {}", path.display()),
        None => format!(
            "fails: none of {} on the path (Debian: apt-get install chromium chromium-driver)",
            BROWSERS.join(", ")
        ),
    };
    let found: Vec<&str> = onnxruntime::variables().into_iter().map(|(name, _)| name).collect();
    let accelerators = match found.is_empty() {
        true => "less: no ONNX Runtime; `cargo xtask onnxruntime` installs it".to_owned(),
        false => format!("runs, with {}", found.join(", ")),
    };
    vec![
        ("units", "runs".to_owned()),
        ("plugins", "runs: shipped and hostile ones, in the real sandbox".to_owned()),
        ("end to end", "runs: the real binary over sockets".to_owned()),
        ("accelerators", accelerators),
        ("browser", browser),
    ]
}
