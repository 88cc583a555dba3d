//! Copies of candle's packages that are not quite as they were released. One of candle-core whose CUDA libraries are loaded
//! when a device is first asked for, where the released one links them: its binaries do not start on a machine without a
//! driver. One word of its manifest says which, and no feature of candle's can say it
//! (<https://github.com/huggingface/candle/issues/3208>). And one of candle-kernels without kernels.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value as Json;

use crate::{files, host};

const LINKED: &str = "\"dynamic-linking\"";
const LOADED: &str = "\"dynamic-loading\"";

/// Makes that copy, of the sources that cargo fetched.
pub(super) fn loading(copy: &Path) -> Result<PathBuf> {
    let released = sources("candle-core")?;
    let manifest = released.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).with_context(|| format!("read {}", manifest.display()))?;
    if text.matches(LINKED).count() != 1 {
        bail!(
            "{}: {LINKED} is not there once; this version of candle needs another patch, or none",
            manifest.display()
        );
    }
    mirror(&released, copy, &|path| path == manifest)?;
    let patched = ("Cargo.toml".to_owned(), text.replace(LINKED, LOADED).into_bytes());
    files::write_changed(copy, &patched)?;
    Ok(copy.to_path_buf())
}

/// A copy of candle-kernels that has none, nor needs a compiler for them: for a driver that has them itself.
pub(super) fn without_kernels(copy: &Path) -> Result<PathBuf> {
    const PTX: &str = "include!(concat!(env!(\"OUT_DIR\"), \"/ptx.rs\"));";
    let released = sources("candle-kernels")?;
    let read = |name: &str| {
        let path = released.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let (library, launchers) = (read("src/lib.rs")?, read("src/ffi.rs")?);
    let after = |text: &str, mark: &str, end: char| -> Vec<String> {
        text.split(mark).skip(1).filter_map(|rest| Some(rest.split_once(end)?.0.to_owned())).collect()
    };
    let modules = after(&library, "\nmdl!(", ',');
    if modules.is_empty() || library.matches(PTX).count() != 1 {
        bail!("{}: this version of candle needs another copy", released.display());
    }
    let empty: Vec<String> = modules.iter().map(|name| format!("pub const {name}: &str = \"\";")).collect();
    let absent =
        |name: String| format!("#[unsafe(no_mangle)] extern \"C\" fn {name}() {{ panic!(\"{name} is not here\") }}");
    let absent: Vec<String> = after(&launchers, "pub fn ", '(').into_iter().map(absent).collect();
    let library = format!("{}\nmod absent {{\n{}\n}}\n", library.replace(PTX, &empty.join("\n")), absent.join("\n"));
    let changed = [("build.rs", "fn main() {}\n".to_owned()), ("src/lib.rs", library)];
    mirror(&released, copy, &|path| changed.iter().any(|(name, _)| path == released.join(name)))?;
    for (name, text) in changed {
        files::write_changed(copy, &(name.to_owned(), text.into_bytes()))?;
    }
    Ok(copy.to_path_buf())
}

/// Where cargo keeps the sources of a package that is locked.
pub(super) fn sources(name: &str) -> Result<PathBuf> {
    let cuda = ["--features", "specula/cuda"];
    let output = host::cargo().args(["metadata", "--format-version", "1", "--locked"]).args(cuda).output()?;
    if !output.status.success() {
        bail!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Json = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("`cargo metadata` lists packages")?;
    let package = packages.iter().find(|package| package["name"] == name);
    let package = package.with_context(|| format!("{name} is no package that is locked"))?;
    let manifest = package["manifest_path"].as_str().context("a package has a manifest")?;
    Ok(Path::new(manifest).parent().context("a manifest lies in a folder")?.to_path_buf())
}

/// Copies a folder's files but those left out; what is already so is left alone, for cargo to see no change.
fn mirror(from: &Path, to: &Path, left_out: &dyn Fn(&Path) -> bool) -> Result<()> {
    for entry in std::fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            mirror(&path, &to.join(&name), left_out)?;
        } else if !left_out(&path) {
            files::write_changed(to, &(name, std::fs::read(&path)?))?;
        }
    }
    Ok(())
}
