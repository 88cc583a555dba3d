//! ONNX Runtime for the tests of drafts on accelerators, from PyPI, below `target/onnxruntime`.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::clients::venv;
use crate::files;

/// A package: its name here, the variable by which tests find its library, and where that lies below `site-packages`.
struct Package {
    name: &'static str,
    variable: &'static str,
    folder: &'static str,
    file: &'static str,
}

const PACKAGES: [Package; 3] = [
    Package {
        name: "requirements",
        variable: "SPECULA_ONNXRUNTIME",
        folder: "onnxruntime/capi",
        file: "libonnxruntime.so.",
    },
    Package {
        name: "openvino",
        variable: "SPECULA_ONNXRUNTIME_OPENVINO",
        folder: "onnxruntime/capi",
        file: "libonnxruntime.so.",
    },
    // Its terms are Qualcomm's: whoever installs it reads them.
    Package {
        name: "qnn",
        variable: "SPECULA_ONNXRUNTIME_QNN",
        folder: "onnxruntime_qnn",
        file: "libonnxruntime_providers_qnn.so",
    },
];

/// Installs ONNX Runtime, and the packages named.
pub(crate) fn install(names: &[&str]) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| !PACKAGES.iter().any(|package| package.name == **name)) {
        bail!("no package `{unknown}`; there are openvino and qnn");
    }
    for package in PACKAGES.iter().filter(|package| package.name == "requirements" || names.contains(&package.name)) {
        let wanted = files::root().join("tests/onnxruntime").join(format!("{}.txt", package.name));
        venv(&wanted, &package.home())?;
        match package.library() {
            Some(library) => println!("{}={}", package.variable, library.display()),
            None => bail!("{} has no {}; the tests know the packages for Linux", wanted.display(), package.file),
        }
    }
    Ok(())
}

/// The variables by which tests find what is installed.
pub(crate) fn variables() -> Vec<(&'static str, PathBuf)> {
    PACKAGES.iter().filter_map(|package| Some((package.variable, package.library()?))).collect()
}

impl Package {
    fn home(&self) -> PathBuf {
        files::root().join("target/onnxruntime").join(self.name)
    }

    fn library(&self) -> Option<PathBuf> {
        let python = std::fs::read_dir(self.home().join("lib")).ok()?.next()?.ok()?.path();
        let folder = std::fs::read_dir(python.join("site-packages").join(self.folder)).ok()?;
        let mut libraries = folder.filter_map(|entry| Some(entry.ok()?.path()));
        libraries.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(self.file)))
    }
}
