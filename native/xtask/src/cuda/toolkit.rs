//! A CUDA toolkit: the one that `CUDA_HOME` names, else one made of NVIDIA's packages on PyPI.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::clients;
use crate::files;

/// Where a toolkit lies.
pub(super) struct Toolkit {
    /// `bin`, `include` and the rest are below it.
    pub(super) home: PathBuf,
    /// Its libraries.
    pub(super) lib: PathBuf,
}

/// Libraries and the ends of their files' names: linkers look for those without.
const LIBRARIES: [(&str, &str); 5] =
    [("cudart", "13"), ("cublas", "13"), ("cublasLt", "13"), ("curand", "10"), ("nvrtc", "13")];

impl Toolkit {
    pub(super) fn find() -> Result<Self> {
        match ["CUDA_HOME", "CUDA_PATH"].into_iter().find_map(std::env::var_os) {
            Some(home) => Self::installed(Path::new(&home)),
            None => Self::of_packages(),
        }
    }

    fn installed(home: &Path) -> Result<Self> {
        if !home.join("bin/nvcc").is_file() {
            bail!(
                "CUDA_HOME={}: there is no bin/nvcc; unset it to have a toolkit made of PyPI's packages",
                home.display()
            );
        }
        let folders = ["lib64", "lib", "targets/x86_64-linux/lib"].map(|folder| home.join(folder));
        let lib = folders.into_iter().find(|folder| folder.join("libcudart_static.a").is_file());
        let lib = lib.with_context(|| format!("{}: libcudart_static.a is missing", home.display()))?;
        Ok(Self { home: home.to_path_buf(), lib })
    }

    fn of_packages() -> Result<Self> {
        let wanted = files::root().join("native/xtask/cuda-toolkit.txt");
        let programs = clients::venv(&wanted, &super::home().join("python"))?;
        let packages = programs.with_file_name("lib");
        let python = std::fs::read_dir(&packages)?.filter_map(|entry| Some(entry.ok()?.path()));
        let home = python.map(|folder| folder.join("site-packages/nvidia/cu13")).find(|folder| folder.is_dir());
        let home = home.with_context(|| format!("{}: no nvidia/cu13 in it", packages.display()))?;
        let lib = home.join("lib");
        files::link(Path::new("lib"), &home.join("lib64"))?;
        for (name, version) in LIBRARIES {
            files::link(Path::new(&format!("lib{name}.so.{version}")), &lib.join(format!("lib{name}.so")))?;
        }
        for folder in ["bin", "nvvm/bin"] {
            for (name, _) in files::read_folder(&home.join(folder))? {
                // Packages need not keep a program's permission to run.
                files::make_executable(&home.join(folder).join(name))?;
            }
        }
        Ok(Self { home, lib })
    }

    /// `LD_LIBRARY_PATH` with its libraries.
    pub(super) fn library_path(&self) -> Result<OsString> {
        super::prepended(&self.lib, "LD_LIBRARY_PATH")
    }
}
