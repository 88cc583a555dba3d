//! The few things that are done to a folder, each so that it is there for good or not at all: what a file holds is on the
//! disk before its name is, and a name is before anyone is told. Every step can be made to fail under test.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Does it. Under test it fails from a given step on, as if the process had died there.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    pub(crate) steps_left: Option<std::cell::Cell<usize>>,
}

impl Disk {
    /// A new file that only this user can read, its content on the disk, its name perhaps not yet.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step()?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        let (first, second) = bytes.split_at(bytes.len() / 2);
        for part in [first, second] {
            self.step()?;
            file.write_all(part)?;
        }
        self.step()?;
        file.sync_all()
    }

    /// Gives a written file its name, in place of what had it.
    pub(crate) fn publish(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        fs::rename(from, to)?;
        self.sync_folder_of(to)
    }

    /// Takes a name away for good.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        fs::remove_file(path)?;
        self.sync_folder_of(path)
    }

    /// A folder that only this user can enter, if it is not there.
    pub(crate) fn make_folder(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        self.step()?;
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path)?;
        self.sync_folder_of(path)
    }

    fn sync_folder_of(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        match path.parent() {
            Some(here) if here.as_os_str().is_empty() => File::open(".")?.sync_all(),
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)] // under test there is something to it
    fn step(&self) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn step(&self) -> io::Result<()> {
        let Some(left) = &self.steps_left else { return Ok(()) };
        match left.get().checked_sub(1) {
            Some(fewer) => {
                left.set(fewer);
                Ok(())
            }
            None => Err(io::Error::other("the process died here")),
        }
    }
}
