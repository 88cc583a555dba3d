//! Plugins that clients bring: examined in a workshop, kept in a store, served at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use wasmtime::component::Component;

use crate::card::Card;
use crate::checks::check_exports;
use crate::code_cache::CodeCache;
use crate::load_error::LoadError;
use crate::reference::Reference;
use crate::sandbox::Sandbox;
use crate::store::disk::Disk;
use crate::store::record::{Record, Version, Visibility};
use crate::store::{Quota, Staged, Store, StoreError, read_blob};
use crate::workshop::{Refusal, Workshop};
use crate::{Class, Plugin, PluginInfo};

/// Where uploads are kept and how they are examined.
#[derive(Debug)]
pub struct UploadSettings {
    /// The store's folder.
    pub folder: PathBuf,
    /// What an owner may keep.
    pub quota: Quota,
    /// Where they are examined.
    pub workshop: Workshop,
}

/// A file that someone wants kept under a name.
#[derive(Debug)]
pub struct Upload<'a> {
    /// Whose.
    pub owner: &'a str,
    /// The name.
    pub name: &'a str,
    /// Who may use it.
    pub visibility: Visibility,
    /// Limits that the owner was granted.
    pub class: Class,
    /// Configuration to examine it with.
    pub config: Value,
    /// The file.
    pub bytes: &'a [u8],
}

/// Why a plugin was not kept or not removed.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// This registry keeps nothing.
    #[error("this server keeps no plugins; its operator must name a folder for them (`--data DIR`)")]
    NoStore,
    /// A check failed.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The name means something already that is not the uploader's.
    #[error("the name `{0}` is taken by a plugin that is not yours; choose another")]
    NameTaken(String),
    /// The store's own reasons.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl UploadError {
    /// Stable code.
    pub fn code(&self) -> &str {
        match self {
            Self::NoStore => "no-store",
            Self::Refused(refusal) => &refusal.code,
            Self::NameTaken(_) => "name-taken",
            Self::Store(StoreError::Quota { .. }) => "quota",
            Self::Store(StoreError::Unknown { .. }) => "unknown-plugin",
            Self::Store(_) => "store",
        }
    }
}

impl From<LoadError> for UploadError {
    fn from(error: LoadError) -> Self {
        Self::Refused(error.into())
    }
}

/// The uploaded plugins of all owners.
pub(crate) struct Uploads {
    store: Mutex<Store>,
    shelf: RwLock<Shelf>,
    workshop: Workshop,
    rooms: BTreeMap<Class, Room>,
}

/// Where plugins of a class run, and their compiled code.
struct Room {
    sandbox: Arc<Sandbox>,
    code: CodeCache,
}

/// By owner and name.
type Shelf = BTreeMap<(String, String), Shelved>;

/// A name with its plugins, ready to be opened.
#[derive(Clone)]
pub(crate) struct Shelved {
    pub(crate) record: Arc<Record>,
    /// By number of version; one that could not be made ready is left out.
    plugins: BTreeMap<u32, Arc<Plugin>>,
}

impl Shelved {
    /// The version meant, with its plugin.
    pub(crate) fn find(&self, reference: &Reference<'_>) -> Option<(&Version, Arc<Plugin>)> {
        let current = self.record.current()?.number;
        // Of equal files the latest.
        let meant = |v: &&Version| reference.means(v.number, &v.digest, current);
        let version = self.record.versions.iter().rev().find(meant)?;
        Some((version, self.plugins.get(&version.number)?.clone()))
    }

    /// As shown when no version is asked for; `None` if the current one could not be made ready.
    pub(crate) fn card(&self) -> Option<Card> {
        let current = Reference { name: &self.record.name, pin: None };
        Some(Card::of_version(&self.record, self.find(&current)?.0))
    }
}

impl Uploads {
    /// Opens the store and makes its plugins ready. What cannot be made ready is logged and left out.
    pub(crate) fn open(settings: UploadSettings) -> Result<Self, UploadError> {
        let UploadSettings { folder, quota, workshop } = settings;
        let disk = Disk::default();
        let (store, unreadable) = Store::open(&folder, quota, Disk::default())?;
        for (path, why) in unreadable {
            tracing::error!(path = %path.display(), why, "a plugin's record cannot be read; the plugin is left out");
        }
        let mut rooms = BTreeMap::new();
        for class in Class::ALL {
            let sandbox = Arc::new(Sandbox::new(class.limits())?);
            let code = CodeCache::open(&folder, (class, &sandbox.engine), &disk)
                .map_err(|source| StoreError::Disk { path: folder.join("code"), source })?;
            rooms.insert(class, Room { sandbox, code });
        }
        let uploads = Self { store: Mutex::new(store), shelf: RwLock::default(), workshop, rooms };
        uploads.fill_shelf();
        Ok(uploads)
    }

    fn fill_shelf(&self) {
        let records: Vec<Record> = self.store().records().cloned().collect();
        for record in records {
            let mut plugins = BTreeMap::new();
            for version in &record.versions {
                match self.ready(&record.name, version) {
                    Ok(plugin) => {
                        plugins.insert(version.number, plugin);
                    }
                    Err(error) => {
                        let (owner, name, version) = (&record.owner, &record.name, version.number);
                        tracing::error!(owner, name, version, %error, "a stored plugin is left out");
                    }
                }
            }
            let key = (record.owner.clone(), record.name.clone());
            self.shelf_mut().insert(key, Shelved { record: Arc::new(record), plugins });
        }
    }

    /// A stored version as a plugin, compiled anew if its code is not there.
    fn ready(&self, name: &str, version: &Version) -> Result<Arc<Plugin>, UploadError> {
        let code = match self.room(version.class)?.code.get(&version.digest) {
            Some(code) => code,
            None => {
                let (file, draft) = {
                    let store = self.store();
                    store.read(&version.digest)?;
                    (store.blob(&version.digest), store.scratch())
                };
                let examined = self.workshop.examine(&file, &draft, (version.class, &version.config))?;
                self.keep_code(version.class, &version.digest, &examined.code)?;
                examined.code
            }
        };
        self.assemble(name, version, &code)
    }

    fn assemble(&self, name: &str, version: &Version, code: &[u8]) -> Result<Arc<Plugin>, UploadError> {
        let sandbox = &self.room(version.class)?.sandbox;
        // SAFETY: this code was made by our own compiler in this installation: it comes from the workshop, whose process is
        // this program, or from the cache, which authenticates it.
        let component = unsafe { Component::deserialize(&sandbox.engine, code) };
        let component = component.map_err(|error| LoadError::CompileFailed(format!("{error:#}")))?;
        let info = PluginInfo {
            name: name.to_owned(),
            kinds: version.facts.kinds.clone(),
            digest: version.digest.clone(),
            bytes: version.bytes as usize,
            description: version.facts.description.clone(),
            config_schema: None,
        };
        let offer = check_exports(&version.facts.interfaces)?;
        Ok(Arc::new(Plugin::assemble(sandbox.clone(), info, &component, &offer)?))
    }

    fn keep_code(&self, class: Class, digest: &str, code: &[u8]) -> Result<(), UploadError> {
        let draft = self.store().scratch();
        if let Err(error) = self.room(class)?.code.put(digest, code, &draft) {
            tracing::warn!(%error, "compiled code is not kept; the next start compiles it anew");
        }
        Ok(())
    }

    fn room(&self, class: Class) -> Result<&Room, LoadError> {
        self.rooms.get(&class).ok_or_else(|| LoadError::Sandbox(format!("no place for plugins of {}", class.as_str())))
    }

    /// Examines a file and keeps it as the name's new version; the same file again changes nothing but who may use it.
    /// Returns whether there is a new version.
    pub(crate) fn put(&self, upload: &Upload<'_>) -> Result<(Shelved, bool), UploadError> {
        let Upload { owner, name, visibility, class, config, bytes } = upload;
        let limit = class.limits().file_bytes;
        if bytes.len() > limit {
            return Err(LoadError::TooLarge { bytes: bytes.len(), limit }.into());
        }
        self.is_free(owner, name, *visibility)?;
        let (staged, draft) = {
            let store = self.store();
            store.has_room(owner, bytes.len() as u64)?;
            (store.stage(bytes)?, store.scratch())
        };
        if let Some(shelved) = self.same(upload, &staged) {
            return Ok((self.show(shelved, *visibility)?, false));
        }
        let examined = self.workshop.examine(staged.path(), &draft, (*class, config))?;
        self.keep_code(*class, staged.digest(), &examined.code)?;
        let version = Version {
            number: 0,
            digest: staged.digest().to_owned(),
            bytes: staged.bytes(),
            uploaded_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            class: *class,
            config: config.clone(),
            facts: examined.facts,
        };
        let plugin = self.assemble(name, &version, &examined.code)?;
        // From here on one change at a time: shelf and store must not part.
        let mut store = self.store();
        self.is_free(owner, name, *visibility)?;
        let record = store.keep((owner, name, *visibility), staged, |number| Version { number, ..version })?.clone();
        let number = record.current().map_or(0, |version| version.number);
        let mut shelf = self.shelf_mut();
        let key = ((*owner).to_owned(), (*name).to_owned());
        let mut plugins = shelf.get(&key).map(|shelved| shelved.plugins.clone()).unwrap_or_default();
        plugins.insert(number, plugin);
        let shelved = Shelved { record: Arc::new(record), plugins };
        shelf.insert(key, shelved.clone());
        Ok((shelved, true))
    }

    /// A shared name is one owner's.
    fn is_free(&self, owner: &str, name: &str, visibility: Visibility) -> Result<(), UploadError> {
        let taken = |shelved: Shelved| shelved.record.owner != owner;
        if visibility == Visibility::Shared && self.shared(name).is_some_and(taken) {
            return Err(UploadError::NameTaken(name.to_owned()));
        }
        Ok(())
    }

    /// The name, if it means this very file, examined the same way.
    fn same(&self, upload: &Upload<'_>, staged: &Staged) -> Option<Shelved> {
        let shelved = self.get(upload.owner, upload.name)?;
        let Version { digest, class, config, .. } = shelved.record.current()?;
        let same = digest == staged.digest() && *class == upload.class && *config == upload.config;
        same.then_some(shelved)
    }

    fn show(&self, shelved: Shelved, visibility: Visibility) -> Result<Shelved, UploadError> {
        if shelved.record.visibility == visibility {
            return Ok(shelved);
        }
        let mut store = self.store();
        self.is_free(&shelved.record.owner, &shelved.record.name, visibility)?;
        let record = store.show(&shelved.record.owner, &shelved.record.name, visibility)?.clone();
        let shown = Shelved { record: Arc::new(record), ..shelved };
        let key = (shown.record.owner.clone(), shown.record.name.clone());
        self.shelf_mut().insert(key, shown.clone());
        Ok(shown)
    }

    /// Forgets a name, or the version that is pinned.
    pub(crate) fn delete(&self, owner: &str, reference: &Reference<'_>) -> Result<(), UploadError> {
        let mut store = self.store();
        let key = (owner.to_owned(), reference.name.to_owned());
        let unknown = || StoreError::Unknown { owner: owner.to_owned(), name: reference.name.to_owned() };
        let record = store.record(owner, reference.name).ok_or_else(unknown)?;
        let goes = |version: &Version| reference.pin.is_none() || reference.means(version.number, &version.digest, 0);
        let gone: Vec<(u32, String)> =
            record.versions.iter().filter(|v| goes(v)).map(|v| (v.number, v.digest.clone())).collect();
        if gone.is_empty() {
            return Err(unknown().into());
        }
        store.drop_versions((owner, reference.name), goes)?;
        let mut shelf = self.shelf_mut();
        match store.record(owner, reference.name) {
            None => {
                shelf.remove(&key);
            }
            Some(record) => {
                if let Some(shelved) = shelf.get_mut(&key) {
                    shelved.record = Arc::new(record.clone());
                    shelved.plugins.retain(|number, _| gone.iter().all(|(n, _)| n != number));
                }
            }
        }
        drop(shelf);
        for (_, digest) in gone {
            if !store.records().flat_map(|record| &record.versions).any(|version| version.digest == digest) {
                self.rooms.values().for_each(|room| room.code.forget(&digest));
            }
        }
        Ok(())
    }

    /// A name of an owner.
    pub(crate) fn get(&self, owner: &str, name: &str) -> Option<Shelved> {
        self.shelf().get(&(owner.to_owned(), name.to_owned())).cloned()
    }

    /// The plugin that everyone may use under this name.
    pub(crate) fn shared(&self, name: &str) -> Option<Shelved> {
        let shared = |s: &&Shelved| s.record.name == name && s.record.visibility == Visibility::Shared;
        self.shelf().values().find(shared).cloned()
    }

    /// All names that an owner may use: his own and those shared.
    pub(crate) fn list(&self, owner: &str) -> Vec<Shelved> {
        let usable = |s: &&Shelved| s.record.owner == owner || s.record.visibility == Visibility::Shared;
        self.shelf().values().filter(usable).cloned().collect()
    }

    /// A file as it was uploaded.
    pub(crate) fn file(&self, digest: &str) -> Result<Vec<u8>, StoreError> {
        // Read without the lock: a slow disk must not keep others waiting. It may be deleted meanwhile, which is an error.
        let path = self.store().blob(digest);
        read_blob(&path, digest)
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shelf(&self) -> std::sync::RwLockReadGuard<'_, Shelf> {
        self.shelf.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn shelf_mut(&self) -> std::sync::RwLockWriteGuard<'_, Shelf> {
        self.shelf.write().unwrap_or_else(PoisonError::into_inner)
    }
}
