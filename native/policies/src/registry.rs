//! The plugins that requests can name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use crate::load_error::LoadError;
use crate::sandbox::Sandbox;
use crate::{Limits, Plugin, PluginInfo};

const NAME_BYTES: usize = 64;

/// Loaded plugins by name. Shared in an [`Arc`]; requests in progress keep the plugin they opened.
pub struct Registry {
    sandbox: Arc<Sandbox>,
    plugins: RwLock<BTreeMap<String, Arc<Plugin>>>,
}

impl Registry {
    /// An empty one.
    ///
    /// # Errors
    /// [`LoadError::Sandbox`] if wasmtime cannot run here with these limits.
    pub fn new(limits: Limits) -> Result<Self, LoadError> {
        Ok(Self { sandbox: Arc::new(Sandbox::new(limits)?), plugins: RwLock::default() })
    }

    /// Checks and compiles a component (or a core module, which is made one) and adds it, in place of one with that name.
    ///
    /// # Errors
    /// The first check that it fails.
    pub fn load(&self, name: &str, bytes: &[u8]) -> Result<Arc<Plugin>, LoadError> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(legal) {
            return Err(LoadError::BadName(crate::text::one_line(name, NAME_BYTES)));
        }
        let plugin = Arc::new(Plugin::load(self.sandbox.clone(), name, bytes)?);
        self.plugins.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), plugin.clone());
        Ok(plugin)
    }

    /// Loads every `*.wasm` of a folder in order of name, named by the file's stem. Returns what could not be loaded.
    pub fn load_folder(&self, folder: &Path) -> Vec<(PathBuf, LoadError)> {
        let unreadable = |error: std::io::Error| LoadError::Unreadable(error.to_string());
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return vec![(folder.to_owned(), unreadable(error))],
        };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "wasm"));
        paths.sort();
        let mut failed = Vec::new();
        for path in paths {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if let Err(error) = std::fs::read(&path).map_err(unreadable).and_then(|bytes| self.load(&name, &bytes)) {
                failed.push((path, error));
            }
        }
        failed
    }

    /// The plugin of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Plugin>> {
        self.plugins.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Facts on all plugins, in order of name.
    pub fn list(&self) -> Vec<PluginInfo> {
        let plugins = self.plugins.read().unwrap_or_else(PoisonError::into_inner);
        plugins.values().map(|plugin| plugin.info().clone()).collect()
    }
}
