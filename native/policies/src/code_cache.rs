//! Compiled code on disk, so that a start compiles nothing anew. Running it means to trust it, hence every file bears a
//! message authentication code under this installation's secret: what was not written by us is not run. A file that is
//! missing, of another engine or not ours is a reason to compile again, nothing more.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wasmtime::Engine;

use crate::Class;
use crate::digest::{hex, hex_of};
use crate::store::disk::Disk;

const TAG_BYTES: usize = 32;

/// The folder of compiled code.
#[derive(Debug)]
pub(crate) struct CodeCache {
    folder: PathBuf,
    secret: Vec<u8>,
    /// Engines that read each other's code have the same.
    engine: String,
}

impl CodeCache {
    /// In a store's folder, whose secret is made if there is none. Code of that class for other engines is deleted.
    pub(crate) fn open(folder: &Path, (class, engine): (Class, &Engine), disk: &Disk) -> io::Result<Self> {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        let cache = Self {
            secret: secret(folder, disk)?,
            folder: folder.join("code").join(class.as_str()),
            engine: hex(&hasher.finish().to_be_bytes()),
        };
        disk.make_folder(&cache.folder)?;
        for entry in fs::read_dir(&cache.folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| *extension != *cache.engine) {
                fs::remove_file(path)?;
            }
        }
        Ok(cache)
    }

    /// The code of a file, if it is there and ours.
    pub(crate) fn get(&self, digest: &str) -> Option<Vec<u8>> {
        let path = self.path(digest);
        let mut bytes = fs::read(&path).ok()?;
        let code = bytes.get(TAG_BYTES..)?;
        let tag = bytes.get(..TAG_BYTES)?;
        if self.mac(digest, code).verify_slice(tag).is_err() {
            tracing::error!(path = %path.display(), "compiled code that this installation did not write; it is not run");
            return None;
        }
        bytes.drain(..TAG_BYTES);
        Some(bytes)
    }

    /// Keeps code, in a draft at `draft` until it is whole.
    pub(crate) fn put(&self, digest: &str, code: &[u8], draft: &Path) -> io::Result<()> {
        let tag = self.mac(digest, code).finalize().into_bytes();
        let disk = Disk::default();
        disk.write(draft, &[&tag, code].concat())?;
        disk.publish(draft, &self.path(digest))
    }

    /// Forgets code, if it is there.
    pub(crate) fn forget(&self, digest: &str) {
        // What stays is only a cache.
        let _ = fs::remove_file(self.path(digest));
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{}.{}", hex_of(digest), self.engine))
    }

    /// Over the engine and the digest too, so that no file can stand in for another.
    fn mac(&self, digest: &str, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("a key of any length will do");
        mac.update(format!("{} {digest}\n", self.engine).as_bytes());
        mac.update(code);
        mac
    }
}

/// Random bytes that were made when the folder was.
fn secret(folder: &Path, disk: &Disk) -> io::Result<Vec<u8>> {
    let path = folder.join("secret");
    match fs::read(&path) {
        Ok(secret) if secret.len() >= TAG_BYTES => Ok(secret),
        Ok(_) => Err(io::Error::other(format!("{} is too short; delete it, and a new one is made", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut secret = vec![0; TAG_BYTES];
            getrandom::fill(&mut secret).map_err(io::Error::other)?;
            let draft = folder.join("staging/secret");
            disk.write(&draft, &secret)?;
            disk.publish(&draft, &path)?;
            Ok(secret)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_that_was_touched_moved_or_made_elsewhere_is_not_run() {
        let folder = std::env::temp_dir().join(format!("specula-code-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        for part in ["code", "staging"] {
            fs::create_dir_all(folder.join(part)).expect("made");
        }
        let engine = Engine::default();
        let cache = CodeCache::open(&folder, (Class::Standard, &engine), &Disk::default()).expect("opens");
        let draft = folder.join("staging/draft");
        cache.put("sha256:aa", b"machine code", &draft).expect("kept");
        assert_eq!(cache.get("sha256:aa").as_deref(), Some(&b"machine code"[..]));
        assert_eq!(cache.get("sha256:bb"), None);
        let again = CodeCache::open(&folder, (Class::Standard, &engine), &Disk::default()).expect("opens");
        assert_eq!(again.get("sha256:aa").as_deref(), Some(&b"machine code"[..]), "the secret stays");
        fs::copy(cache.path("sha256:aa"), cache.path("sha256:bb")).expect("copied");
        assert_eq!(cache.get("sha256:bb"), None, "another file's");
        let mut bytes = fs::read(cache.path("sha256:aa")).expect("there");
        *bytes.last_mut().expect("not empty") ^= 1;
        fs::write(cache.path("sha256:aa"), bytes).expect("written");
        assert_eq!(cache.get("sha256:aa"), None, "touched");
        fs::write(cache.path("sha256:aa"), b"short").expect("written");
        assert_eq!(cache.get("sha256:aa"), None);
        fs::write(folder.join("code/standard/cc.other-engine"), b"old").expect("written");
        CodeCache::open(&folder, (Class::Standard, &engine), &Disk::default()).expect("opens");
        assert!(!folder.join("code/standard/cc.other-engine").exists());
        fs::remove_dir_all(&folder).expect("removed");
    }
}
