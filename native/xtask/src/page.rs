//! The playground: `web` becomes `target/dist/page/`: page.js, page_bg.wasm and the static files.

use std::fs;

use anyhow::{Context, Result, bail};
use wasm_bindgen_cli_support::Bindgen;

use crate::files;
use crate::guests::{self, Guest};
use crate::toolchain::Toolchain;

const STATIC_FILES: [&str; 2] = ["index.html", "style.css"];

/// Builds it.
pub(crate) fn build(toolchain: &Toolchain) -> Result<()> {
    let web = files::root().join("web");
    let Some(guest) = Guest::read(&web)? else { bail!("{} is no guest: its lib is not a cdylib", web.display()) };
    let modules = guests::compile(toolchain, "page", &[guest])?;
    let module = modules.first().context("the page has one module")?;

    let generated = toolchain.target_dir().join("page");
    if generated.exists() {
        fs::remove_dir_all(&generated).with_context(|| format!("clear {}", generated.display()))?;
    }
    let mut bindgen = Bindgen::new();
    // The library, unlike the command-line tool, leaves out the default path, without which `init()` finds no module.
    bindgen.input_path(module).out_name("page").typescript(false).omit_default_module_path(false).web(true)?;
    // Names of functions serve a debugger only, and are half of the file.
    bindgen.remove_name_section(true);
    bindgen.generate(&generated).with_context(|| format!("generate JavaScript for {}", module.display()))?;

    let mut page = files::read_folder(&generated)?;
    for name in STATIC_FILES {
        let path = web.join(name);
        if path.is_file() {
            page.push((name.to_owned(), fs::read(&path).with_context(|| format!("read {}", path.display()))?));
        }
    }
    page.extend(files::read_folder(&web.join("static"))?);
    for (name, bytes) in &page {
        eprintln!("    {name}: {} bytes", bytes.len());
    }
    files::sync(&files::dist().join("page"), &page)
}
