//! Tensors on disk, replaced as a whole or not at all.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use safetensors::SafeTensors;

/// Writes a file beside the old one, then puts it in its place.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    let write = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&new, bytes)?;
        std::fs::File::open(&new)?.sync_all()?;
        std::fs::rename(&new, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Writes tensors with notes.
pub(crate) fn save_tensors(path: &Path, tensors: &BTreeMap<String, Tensor>, notes: &[(&str, &str)]) -> Result<()> {
    let notes = notes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    replace(path, &safetensors::serialize(tensors, Some(notes))?)
}

/// Tensors by name, and the file's notes.
pub(crate) type Kept = (HashMap<String, Tensor>, HashMap<String, String>);

/// Reads what [`save_tensors`] wrote; `None` if there is no such file.
pub(crate) fn load_tensors(path: &Path) -> Result<Option<Kept>> {
    if !path.exists() {
        return Ok(None);
    }
    let read = || -> Result<Kept> {
        let bytes = std::fs::read(path)?;
        let notes = SafeTensors::read_metadata(&bytes)?.1.metadata().clone().unwrap_or_default();
        Ok((candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?, notes))
    };
    read().map(Some).with_context(|| format!("cannot read {}", path.display()))
}
