//! A copy of candle-core whose CUDA libraries are loaded when a device is first asked for, where the released one links
//! them: its binaries do not start on a machine without a driver. One word of its manifest says which, and no feature of
//! candle's can say it (<https://github.com/huggingface/candle/issues/3208>).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value as Json;

use crate::{files, host};

const LINKED: &str = "\"dynamic-linking\"";
const LOADED: &str = "\"dynamic-loading\"";

/// Makes the copy, of the sources that cargo fetched.
pub(super) fn patched(copy: &Path) -> Result<PathBuf> {
    let released = sources()?;
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

/// Where cargo keeps the sources of the candle-core that is locked.
fn sources() -> Result<PathBuf> {
    let output = host::cargo().args(["metadata", "--format-version", "1", "--locked"]).output()?;
    if !output.status.success() {
        bail!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Json = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("`cargo metadata` lists packages")?;
    let candle = packages.iter().find(|package| package["name"] == "candle-core").context("candle-core is locked")?;
    let manifest = candle["manifest_path"].as_str().context("a package has a manifest")?;
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
