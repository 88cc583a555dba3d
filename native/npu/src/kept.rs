//! Files that are kept from one start to the next: each has its SHA-256 beside it, by which one that was damaged is made anew.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Whether a file is there as it was written.
pub(crate) fn is_whole(path: &Path) -> bool {
    matches!((digest(path), fs::read_to_string(beside(path))), (Ok(is), Ok(was)) if is == was)
}

/// Has a file written, under another name, and puts it in its place: there whole or not at all, for other processes may be at
/// the same.
///
/// # Errors
/// The writer's, and the system's, with the path.
pub(crate) fn keep<T>(path: &Path, write: impl FnOnce(&Path) -> Result<T, String>) -> Result<T, String> {
    let draft = draft_of(path);
    let written = write(&draft)?;
    let placed = digest(&draft).and_then(|digest| {
        fs::rename(&draft, path)?;
        let note = draft_of(&beside(path));
        fs::write(&note, digest)?;
        fs::rename(&note, beside(path))
    });
    placed.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(written)
}

/// Where this process writes what is to be a file; the end of the name stays, which some go by.
fn draft_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{}.{name}", std::process::id()))
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{name}.sha256"))
}

fn digest(path: &Path) -> io::Result<String> {
    let (mut file, mut hash, mut piece) = (File::open(path)?, Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut piece)? {
            0 => break,
            read => hash.update(&piece[..read]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_files_are_told_from_whole_ones() {
        let folder = std::env::temp_dir().join(format!("specula-kept-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("made");
        let path = folder.join("weights.bin");
        assert!(!is_whole(&path));
        let write = |bytes: &'static [u8]| {
            keep(&path, |draft| fs::write(draft, bytes).map_err(|error| error.to_string())).expect("kept");
        };
        write(b"0123456789");
        assert!(is_whole(&path));
        // As long as it was.
        fs::write(&path, b"012345678_").expect("damaged");
        assert!(!is_whole(&path));
        write(b"0123456789");
        assert!(is_whole(&path));
        assert!(keep(&path, |_| Err::<(), _>("no".into())).is_err_and(|why| why == "no"));
        assert!(is_whole(&path), "what was there stays");
        fs::remove_dir_all(&folder).expect("removed");
    }
}
