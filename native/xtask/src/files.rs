//! The tree's root, and writing only what changed: cargo rebuilds whatever embeds a file that is newer.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    // native/xtask lies two levels below it.
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(".")).to_path_buf()
}

/// Where built guests go: `plugins` and `page` below it.
pub(crate) fn dist() -> PathBuf {
    root().join("target/dist")
}

/// Makes a folder hold exactly these files, by name. Files that are already so are left alone.
pub(crate) fn sync(folder: &Path, files: &[(String, Vec<u8>)]) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let wanted: BTreeSet<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    for (name, _) in read_folder(folder)? {
        if !wanted.contains(name.as_str()) {
            fs::remove_file(folder.join(&name)).with_context(|| format!("remove {name} from {}", folder.display()))?;
        }
    }
    files.iter().try_for_each(|file| write_changed(folder, file))
}

/// Writes one file into a folder, unless it is already so.
pub(crate) fn write_changed(folder: &Path, (name, bytes): &(String, Vec<u8>)) -> Result<()> {
    let path = folder.join(name);
    if fs::read(&path).ok().as_ref() != Some(bytes) {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// A file that is given its content back when this is dropped.
pub(crate) struct Kept {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Kept {
    /// Reads it.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Ok(Self { path: path.to_path_buf(), bytes })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if fs::read(&self.path).ok().as_ref() != Some(&self.bytes)
            && let Err(error) = fs::write(&self.path, &self.bytes)
        {
            eprintln!("{} was changed and cannot be put back: {error}", self.path.display());
        }
    }
}

/// The files of a folder by name, without folders in it; none if there is no such folder.
pub(crate) fn read_folder(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| path.is_file()) {
            files.push((name.to_owned(), fs::read(&path).with_context(|| format!("read {}", path.display()))?));
        }
    }
    files.sort();
    Ok(files)
}

/// Has a name stand for a file, unless there is something under it.
pub(crate) fn link(to: &Path, at: &Path) -> Result<()> {
    if !at.exists() {
        std::os::unix::fs::symlink(to, at).with_context(|| format!("link {}", at.display()))?;
    }
    Ok(())
}

/// Lets a program run.
pub(crate) fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut permissions = fs::metadata(path)?.permissions();
    permissions.set_mode(permissions.mode() | 0o111);
    fs::set_permissions(path, permissions).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sync_writes_what_changed_and_removes_what_is_gone() {
        let folder = std::env::temp_dir().join(format!("specula-xtask-{}", std::process::id()));
        let file = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
        sync(&folder, &[file("a", "1"), file("b", "1")]).expect("written");
        let before = fs::metadata(folder.join("a")).and_then(|meta| meta.modified()).expect("there");
        std::thread::sleep(std::time::Duration::from_millis(20));
        sync(&folder, &[file("a", "1"), file("c", "1")]).expect("written");
        let after = fs::metadata(folder.join("a")).and_then(|meta| meta.modified()).expect("there");
        assert_eq!(before, after);
        assert_eq!(read_folder(&folder).expect("readable"), [file("a", "1"), file("c", "1")]);
        fs::remove_dir_all(&folder).expect("removed");
    }
}
