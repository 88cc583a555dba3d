//! Folders for the length of a test.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::binary::target_folder;

/// A new folder below the target folder, removed when dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// An empty one.
    pub fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let path = target_folder().join("tmp").join("specula-tests").join(name);
        std::fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(path)
    }

    /// One with guests of `tests/plugins` as plugin files, named as they are.
    pub fn with_guests(names: &[&str]) -> Self {
        let folder = Self::new();
        for name in names {
            folder.write(&format!("{name}.wasm"), &specula_guests::plugin(name));
        }
        folder
    }

    /// Puts a file into it.
    pub fn write(&self, name: &str, content: &[u8]) {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where it is, for a command line.
    pub fn text(&self) -> &str {
        self.0.to_str().expect("the target folder's path is UTF-8")
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What a dying browser still writes may keep it from being empty; the target folder is no place for worry.
        std::fs::remove_dir_all(&self.0).ok();
    }
}
