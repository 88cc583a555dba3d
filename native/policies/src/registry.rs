//! The plugins that requests can name: the operator's, loaded at the start, and those that clients upload.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use crate::card::Card;
use crate::load_error::LoadError;
use crate::reference::{Reference, is_name};
use crate::sandbox::Sandbox;
use crate::uploads::{Shelved, Upload, UploadError, UploadSettings, Uploads};
use crate::{Limits, Plugin};

/// Loaded plugins by name. Shared in an [`Arc`]; requests in progress keep the plugin they opened.
pub struct Registry {
    sandbox: Arc<Sandbox>,
    plugins: RwLock<BTreeMap<String, Loaded>>,
    uploads: Option<Uploads>,
}

/// One of the operator's.
struct Loaded {
    plugin: Arc<Plugin>,
    file: Arc<[u8]>,
}

impl Registry {
    /// An empty one.
    ///
    /// # Errors
    /// [`LoadError::Sandbox`] if wasmtime cannot run here with these limits.
    pub fn new(limits: Limits) -> Result<Self, LoadError> {
        Ok(Self { sandbox: Arc::new(Sandbox::new(limits)?), plugins: RwLock::default(), uploads: None })
    }

    /// Takes uploads from now on, and has those that were kept.
    ///
    /// # Errors
    /// The store's folder cannot be used, or no sandbox be set up.
    pub fn take_uploads(&mut self, settings: UploadSettings) -> Result<(), UploadError> {
        self.uploads = Some(Uploads::open(settings)?);
        Ok(())
    }

    /// Checks and compiles a component (or a core module, which is made one) and adds it, in place of one with that name.
    ///
    /// # Errors
    /// The first check that it fails.
    pub fn load(&self, name: &str, bytes: &[u8]) -> Result<Arc<Plugin>, LoadError> {
        if !is_name(name) {
            return Err(LoadError::BadName(crate::text::one_line(name, 128)));
        }
        let plugin = Arc::new(Plugin::load(self.sandbox.clone(), name, bytes)?);
        let loaded = Loaded { plugin: plugin.clone(), file: bytes.into() };
        self.plugins.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), loaded);
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

    /// The operator's plugin of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Plugin>> {
        self.loaded(name, |loaded| loaded.plugin.clone())
    }

    /// Whether a plugin is one of the operator's, which all may know of; others are their owners' affair.
    pub fn is_operators(&self, plugin: &Arc<Plugin>) -> bool {
        self.get(&plugin.info().name).is_some_and(|own| Arc::ptr_eq(&own, plugin))
    }

    /// The plugin that an owner's request means. The operator's come first, then the owner's own, then what others share.
    ///
    /// # Errors
    /// [`LoadError::BadName`] if the text is no reference.
    pub fn find(&self, owner: &str, reference: &str) -> Result<Option<Arc<Plugin>>, LoadError> {
        let reference = Reference::parse(reference)?;
        if let Some(plugin) = self.get(reference.name) {
            return Ok(reference.means(1, &plugin.info().digest, 1).then_some(plugin));
        }
        let shelved = self.shelved(owner, reference.name);
        Ok(shelved.and_then(|shelved| Some(shelved.find(&reference)?.1)))
    }

    /// What an owner calls by a name that is not the operator's.
    fn shelved(&self, owner: &str, name: &str) -> Option<Shelved> {
        let uploads = self.uploads.as_ref()?;
        uploads.get(owner, name).or_else(|| uploads.shared(name))
    }

    /// Examines a file and keeps it. Returns whether it is a new version.
    ///
    /// # Errors
    /// [`UploadError`].
    pub fn put(&self, upload: &Upload<'_>) -> Result<(Card, bool), UploadError> {
        if !is_name(upload.name) {
            return Err(LoadError::BadName(crate::text::one_line(upload.name, 128)).into());
        }
        let uploads = self.uploads.as_ref().ok_or(UploadError::NoStore)?;
        if self.get(upload.name).is_some() {
            return Err(UploadError::NameTaken(upload.name.to_owned()));
        }
        let (shelved, new) = uploads.put(upload)?;
        let card = shelved.card().ok_or_else(|| LoadError::Unreadable("it has no version".to_owned()))?;
        Ok((card, new))
    }

    /// Forgets an owner's plugin, or the version of it that is pinned.
    ///
    /// # Errors
    /// [`UploadError`].
    pub fn delete(&self, owner: &str, reference: &str) -> Result<(), UploadError> {
        let reference = Reference::parse(reference)?;
        if self.get(reference.name).is_some() {
            return Err(UploadError::NameTaken(reference.name.to_owned()));
        }
        self.uploads.as_ref().ok_or(UploadError::NoStore)?.delete(owner, &reference)
    }

    /// What is known of a plugin.
    ///
    /// # Errors
    /// [`LoadError::BadName`] if the text is no reference.
    pub fn card(&self, owner: &str, reference: &str) -> Result<Option<Card>, LoadError> {
        let reference = Reference::parse(reference)?;
        if let Some(plugin) = self.get(reference.name) {
            let info = plugin.info();
            return Ok(reference.means(1, &info.digest, 1).then(|| Card::of_plugin(info)));
        }
        let shelved = self.shelved(owner, reference.name);
        Ok(shelved.and_then(|shelved| Some(Card::of_version(&shelved.record, shelved.find(&reference)?.0))))
    }

    /// A plugin's file, as it was loaded or uploaded.
    ///
    /// # Errors
    /// A bad reference, or a disk that fails.
    pub fn file(&self, owner: &str, reference: &str) -> Result<Option<Vec<u8>>, UploadError> {
        let Some(plugin) = self.find(owner, reference)? else { return Ok(None) };
        if let Some(file) = self.loaded(&plugin.info().name, |loaded| loaded.file.to_vec()) {
            return Ok(Some(file));
        }
        let uploads = self.uploads.as_ref().ok_or(UploadError::NoStore)?;
        Ok(Some(uploads.file(&plugin.info().digest)?))
    }

    /// All plugins that an owner may use, in order of name; a name of his own hides one that another shares.
    pub fn list(&self, owner: &str) -> Vec<Card> {
        let mut cards = BTreeMap::new();
        let shelved = self.uploads.as_ref().map(|uploads| uploads.list(owner)).unwrap_or_default();
        let (own, others): (Vec<_>, Vec<_>) = shelved.into_iter().partition(|s| s.record.owner == owner);
        for shelved in others.into_iter().chain(own) {
            cards.extend(shelved.card().map(|card| (card.name.clone(), card)));
        }
        for (name, loaded) in &*self.plugins.read().unwrap_or_else(PoisonError::into_inner) {
            cards.insert(name.clone(), Card::of_plugin(loaded.plugin.info()));
        }
        cards.into_values().collect()
    }

    fn loaded<T>(&self, name: &str, take: impl FnOnce(&Loaded) -> T) -> Option<T> {
        self.plugins.read().unwrap_or_else(PoisonError::into_inner).get(name).map(take)
    }
}
