//! Embeds what `cargo xtask wasm` left in `target/dist`: the page and the shipped plugins. Without it the binary builds
//! too, and says at start what is missing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let dist = root.join("target/dist");
    println!("cargo:rerun-if-changed={}", dist.display());
    let mut code = String::new();
    for (constant, folder) in [("PAGE", "page"), ("PLUGINS", "plugins")] {
        let folder = dist.join(folder);
        println!("cargo:rerun-if-changed={}", folder.display());
        let _ = writeln!(code, "/// Files of `target/dist/{}`.", folder.file_name().unwrap_or_default().display());
        let _ = writeln!(code, "pub(crate) static {constant}: &[(&str, &[u8])] = &[");
        for (name, path) in files(&folder, "") {
            println!("cargo:rerun-if-changed={}", path.display());
            let _ = writeln!(code, "    ({name:?}, include_bytes!({path:?})),");
        }
        code.push_str("];\n");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("dist.rs");
    fs::write(out, code).expect("OUT_DIR is writable");
}

/// Files below a folder with their paths relative to it, in order; none if there is no such folder.
fn files(folder: &Path, prefix: &str) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = format!("{prefix}{name}");
        if path.is_dir() {
            found.extend(files(&path, &format!("{name}/")));
        } else if let Ok(path) = path.canonicalize() {
            found.push((name, path));
        }
    }
    found.sort();
    found
}
