//! Uploaded plugins on disk. A file lies under its digest; a record, one for each name of each owner, points at the digests
//! of its versions. A file is on the disk before the record that points at it, and a record is before its owner is told, so
//! that whatever moment the process dies at, a name means what it meant before or what was asked for.
//!
//! ```text
//! DIR/lock                          held by the one process that serves this folder
//! DIR/secret                        random bytes that authenticate compiled code
//! DIR/staging/                      what is not finished; emptied at the start
//! DIR/blobs/<hex of sha-256>        files as uploaded
//! DIR/names/<owner>/<name>.json     records
//! DIR/code/                         compiled code, see `code_cache`; may be deleted at any time
//! ```

pub(crate) mod disk;
pub(crate) mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use disk::Disk;
use record::{Record, Version, Visibility};

use crate::digest::{digest, hex_of};

/// What an owner may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Versions of all names.
    pub versions: usize,
    /// Their files in sum, bytes.
    pub bytes: u64,
}

impl Default for Quota {
    fn default() -> Self {
        Self { versions: 100, bytes: 256 << 20 }
    }
}

/// Why the store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The owner has as much as he may.
    #[error("{owner} would have {value} {what} here, allowed are {limit}; delete some first")]
    Quota {
        /// Whose.
        owner: String,
        /// `versions of plugins` or `bytes of plugins`.
        what: &'static str,
        /// How many there would be.
        value: u64,
        /// Limit.
        limit: u64,
    },
    /// There is none.
    #[error("{owner} has no plugin `{name}`")]
    Unknown {
        /// Whose.
        owner: String,
        /// Name asked for.
        name: String,
    },
    /// Another process serves the folder.
    #[error("{0} is in use by another process; each needs a folder of its own")]
    InUse(PathBuf),
    /// A file is not what its name says.
    #[error("{0} is damaged: its content does not have the digest in its name")]
    Damaged(PathBuf),
    /// The disk failed.
    #[error("{path}: {source}")]
    Disk {
        /// Where.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// A file on its way into the store; gone when dropped, unless it was taken in.
#[derive(Debug)]
pub(crate) struct Staged {
    path: PathBuf,
    digest: String,
    bytes: u64,
}

impl Staged {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Published, or never written; at worst the next start clears it.
        let _ = fs::remove_file(&self.path);
    }
}

/// The folder where files wait for what becomes of them.
#[derive(Debug)]
pub(crate) struct Staging {
    folder: PathBuf,
    serial: AtomicU64,
}

impl Staging {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, serial: AtomicU64::new(0) }
    }

    /// A path that nothing else has.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join(self.serial.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Writes a file that may be taken in.
    pub(crate) fn write(&self, disk: &Disk, bytes: &[u8]) -> Result<Staged, StoreError> {
        let staged = Staged { path: self.path(), digest: digest(bytes), bytes: bytes.len() as u64 };
        disk.write(&staged.path, bytes).map_err(at(&staged.path))?;
        Ok(staged)
    }
}

/// The folder, and its records in memory.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    disk: Disk,
    quota: Quota,
    records: BTreeMap<(String, String), Record>,
    staging: Staging,
    _lock: File,
}

/// Records that cannot be read, with the reason. They stay where they are.
pub(crate) type Unreadable = Vec<(PathBuf, String)>;

impl Store {
    /// Opens a folder, makes it if need be, and clears away what a dead process left unfinished.
    pub(crate) fn open(folder: &Path, quota: Quota, disk: Disk) -> Result<(Self, Unreadable), StoreError> {
        for part in ["", "blobs", "names", "code"] {
            let part = folder.join(part);
            disk.make_folder(&part).map_err(at(&part))?;
        }
        let path = folder.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(folder.to_owned())),
            Err(TryLockError::Error(source)) => return Err(StoreError::Disk { path, source }),
        }
        let staging = folder.join("staging");
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(at(&staging))?;
        }
        disk.make_folder(&staging).map_err(at(&staging))?;
        let (records, unreadable) = read_records(folder)?;
        let staging = Staging::new(staging);
        let store = Self { folder: folder.to_owned(), disk, quota, records, staging, _lock: lock };
        if unreadable.is_empty() {
            store.clear_blobs()?;
        }
        Ok((store, unreadable))
    }

    /// All names, by owner and name.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    pub(crate) fn record(&self, owner: &str, name: &str) -> Option<&Record> {
        self.records.get(&(owner.to_owned(), name.to_owned()))
    }

    /// Whether an owner may have one more version of so many bytes.
    pub(crate) fn has_room(&self, owner: &str, bytes: u64) -> Result<(), StoreError> {
        let kept = self.records().filter(|record| record.owner == owner).flat_map(|record| &record.versions);
        let (versions, sum) = kept.fold((1, bytes), |(n, sum), version| (n + 1, sum + version.bytes));
        let bounds = [
            ("versions of plugins", versions, self.quota.versions as u64),
            ("bytes of plugins", sum, self.quota.bytes),
        ];
        match bounds.into_iter().find(|(_, value, limit)| value > limit) {
            Some((what, value, limit)) => Err(StoreError::Quota { owner: owner.to_owned(), what, value, limit }),
            None => Ok(()),
        }
    }

    /// Writes a file beside the store, to be examined and then kept or not.
    pub(crate) fn stage(&self, bytes: &[u8]) -> Result<Staged, StoreError> {
        self.staging.write(&self.disk, bytes)
    }

    /// A path in the staging folder.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.staging.path()
    }

    /// Adds a version to a name, which then means it. `make` is told the version's number.
    pub(crate) fn keep(
        &mut self,
        (owner, name, visibility): (&str, &str, Visibility),
        staged: Staged,
        make: impl FnOnce(u32) -> Version,
    ) -> Result<&Record, StoreError> {
        self.has_room(owner, staged.bytes())?;
        // Even if it is there: the content is the same, or was damaged.
        let blob = self.blob(staged.digest());
        self.disk.publish(staged.path(), &blob).map_err(at(&blob))?;
        let mut record = self.record(owner, name).cloned().unwrap_or_else(|| Record {
            owner: owner.to_owned(),
            name: name.to_owned(),
            visibility,
            next: 1,
            versions: Vec::new(),
        });
        record.visibility = visibility;
        record.versions.push(make(record.next));
        record.next += 1;
        self.write_record(record)
    }

    /// Lets others see a name, or no longer.
    pub(crate) fn show(&mut self, owner: &str, name: &str, visibility: Visibility) -> Result<&Record, StoreError> {
        let mut record = self.record(owner, name).cloned().ok_or_else(|| unknown(owner, name))?;
        record.visibility = visibility;
        self.write_record(record)
    }

    /// Takes versions away, or the whole name if none stays.
    pub(crate) fn drop_versions(
        &mut self,
        (owner, name): (&str, &str),
        goes: impl Fn(&Version) -> bool,
    ) -> Result<(), StoreError> {
        let mut record = self.record(owner, name).cloned().ok_or_else(|| unknown(owner, name))?;
        record.versions.retain(|version| !goes(version));
        if record.versions.is_empty() {
            let path = self.record_path(owner, name);
            self.disk.remove(&path).map_err(at(&path))?;
            self.records.remove(&(owner.to_owned(), name.to_owned()));
        } else {
            self.write_record(record)?;
        }
        self.clear_blobs()
    }

    /// A file as it was uploaded.
    pub(crate) fn read(&self, digest: &str) -> Result<Vec<u8>, StoreError> {
        read_blob(&self.blob(digest), digest)
    }

    /// Where a file lies.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        self.folder.join("blobs").join(hex_of(digest))
    }

    /// Owners and names are of a-z, 0-9 and -, checked where they came in.
    fn record_path(&self, owner: &str, name: &str) -> PathBuf {
        self.folder.join("names").join(owner).join(format!("{name}.json"))
    }

    fn write_record(&mut self, record: Record) -> Result<&Record, StoreError> {
        let path = self.record_path(&record.owner, &record.name);
        let failed = at(&path);
        let json = serde_json::to_vec_pretty(&record).map_err(|error| failed(io::Error::other(error)))?;
        let draft = self.staging.write(&self.disk, &json)?;
        let folder = path.parent().unwrap_or(&self.folder);
        self.disk.make_folder(folder).map_err(at(folder))?;
        self.disk.publish(draft.path(), &path).map_err(at(&path))?;
        let key = (record.owner.clone(), record.name.clone());
        self.records.insert(key.clone(), record);
        self.records.get(&key).ok_or_else(|| unknown(&key.0, &key.1))
    }

    /// Removes files that no record points at.
    fn clear_blobs(&self) -> Result<(), StoreError> {
        let wanted: BTreeSet<&str> =
            self.records().flat_map(|record| &record.versions).map(|version| hex_of(&version.digest)).collect();
        let folder = self.folder.join("blobs");
        for entry in fs::read_dir(&folder).map_err(at(&folder))? {
            let entry = entry.map_err(at(&folder))?;
            if !wanted.contains(entry.file_name().to_string_lossy().as_ref()) {
                self.disk.remove(&entry.path()).map_err(at(&entry.path()))?;
            }
        }
        Ok(())
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::Disk { path: path.clone(), source }
}

fn unknown(owner: &str, name: &str) -> StoreError {
    StoreError::Unknown { owner: owner.to_owned(), name: name.to_owned() }
}

/// A file that has the digest by which it is asked for.
pub(crate) fn read_blob(path: &Path, wanted: &str) -> Result<Vec<u8>, StoreError> {
    let bytes = fs::read(path).map_err(at(path))?;
    if digest(&bytes) == wanted { Ok(bytes) } else { Err(StoreError::Damaged(path.to_owned())) }
}

type Records = BTreeMap<(String, String), Record>;

fn read_records(folder: &Path) -> Result<(Records, Unreadable), StoreError> {
    let (mut records, mut unreadable) = (BTreeMap::new(), Vec::new());
    let names = folder.join("names");
    for owner in entries(&names)? {
        for path in entries(&owner)? {
            match read_record(&path) {
                Ok(record) => {
                    records.insert((record.owner.clone(), record.name.clone()), record);
                }
                Err(why) => unreadable.push((path, why)),
            }
        }
    }
    Ok((records, unreadable))
}

fn read_record(path: &Path) -> Result<Record, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let named = Path::new(&record.owner).join(format!("{}.json", record.name));
    if record.current().is_none() {
        Err("it has no version".to_owned())
    } else if path.ends_with(&named) {
        Ok(record)
    } else {
        Err(format!("it is the record of {}", named.display()))
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = fs::read_dir(folder).map_err(at(folder))?;
    entries.map(|entry| Ok(entry.map_err(at(folder))?.path())).collect()
}

#[cfg(test)]
mod tests;
