//! Where the binary under test lies.

use std::path::PathBuf;

/// `target/release/specula` of the target folder that this test was built into.
pub fn specula() -> PathBuf {
    let binary = target_folder().join("release").join("specula").with_extension(std::env::consts::EXE_EXTENSION);
    assert!(
        binary.is_file(),
        "{} is not there; `cargo xtask build` builds it with its page and plugins",
        binary.display()
    );
    binary
}

/// The target folder: tests run from `TARGET/PROFILE/deps/`.
pub(crate) fn target_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let folder = test.ancestors().nth(3).expect("tests lie in TARGET/PROFILE/deps");
    folder.to_owned()
}
