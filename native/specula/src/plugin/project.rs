//! `specula plugin new`: a project that builds, from templates in this binary.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use specula_policies::is_name;

#[derive(Args)]
pub(crate) struct NewArgs {
    /// What the plugin does: judge windows, edit rows, or end texts.
    #[arg(long)]
    kind: KindArg,
    /// Language to write it in.
    #[arg(long, default_value = "rust")]
    lang: Lang,
    /// Its name, 1 to 64 of a-z, 0-9 and -; also the folder's.
    name: String,
    /// Folder to make the project's folder in.
    #[arg(long, default_value = ".", value_name = "DIR")]
    at: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindArg {
    Acceptance,
    Sampling,
    Stopping,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Lang {
    Rust,
    #[value(name = "js", alias = "javascript")]
    JavaScript,
    Python,
}

/// Path in the project, and content.
type File = (&'static str, &'static str);

macro_rules! template {
    ($path:literal) => {
        include_str!(concat!("../../../../wasm-plugins/templates/", $path))
    };
}

macro_rules! sdk {
    ($file:literal) => {
        (concat!("sdk/src/", $file), include_str!(concat!("../../../../wasm-plugins/sdk/src/", $file)))
    };
}

const WIT: File = ("wit/policy.wit", include_str!("../../../../wasm-plugins/wit/policy.wit"));

const RUST: [File; 12] = [
    ("Cargo.toml", template!("rust/Cargo.toml")),
    (".cargo/config.toml", template!("rust/config.toml")),
    ("README.md", template!("rust/README.md")),
    ("sdk/Cargo.toml", template!("rust/sdk.toml")),
    sdk!("acceptance.rs"),
    sdk!("bindings.rs"),
    sdk!("config.rs"),
    sdk!("lib.rs"),
    sdk!("opened.rs"),
    sdk!("sampling.rs"),
    sdk!("schema.rs"),
    sdk!("stopping.rs"),
];

const JAVASCRIPT: [File; 2] =
    [("package.json", template!("javascript/package.json")), ("README.md", template!("javascript/README.md"))];

const PYTHON: [File; 2] =
    [("requirements.txt", template!("python/requirements.txt")), ("README.md", template!("python/README.md"))];

impl KindArg {
    /// Its name, and its world's.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Acceptance => ("acceptance", "acceptor"),
            Self::Sampling => ("sampling", "sampler"),
            Self::Stopping => ("stopping", "stopper"),
        }
    }
}

/// The plugin itself.
fn plugin(lang: Lang, kind: KindArg) -> File {
    match (lang, kind) {
        (Lang::Rust, KindArg::Acceptance) => ("src/lib.rs", template!("rust/acceptance.rs")),
        (Lang::Rust, KindArg::Sampling) => ("src/lib.rs", template!("rust/sampling.rs")),
        (Lang::Rust, KindArg::Stopping) => ("src/lib.rs", template!("rust/stopping.rs")),
        (Lang::JavaScript, KindArg::Acceptance) => ("acceptance.js", template!("javascript/acceptance.js")),
        (Lang::JavaScript, KindArg::Sampling) => ("sampling.js", template!("javascript/sampling.js")),
        (Lang::JavaScript, KindArg::Stopping) => ("stopping.js", template!("javascript/stopping.js")),
        (Lang::Python, KindArg::Acceptance) => ("acceptance.py", template!("python/acceptance.py")),
        (Lang::Python, KindArg::Sampling) => ("sampling.py", template!("python/sampling.py")),
        (Lang::Python, KindArg::Stopping) => ("stopping.py", template!("python/stopping.py")),
    }
}

pub(super) fn run(args: &NewArgs) -> Result<()> {
    if !is_name(&args.name) {
        bail!("`{}` is no name for a plugin; use 1 to 64 of a-z, 0-9 and -", args.name);
    }
    let folder = args.at.join(&args.name);
    if folder.exists() {
        bail!("{} is there already; choose another name or remove it", folder.display());
    }
    let fixed: &[File] = match args.lang {
        Lang::Rust => &RUST,
        Lang::JavaScript => &JAVASCRIPT,
        Lang::Python => &PYTHON,
    };
    for (path, content) in fixed.iter().copied().chain([WIT, plugin(args.lang, args.kind)]) {
        // What is not of the template is none of its places to fill in.
        let verbatim = path.starts_with("sdk/src") || path == WIT.0;
        let content = if verbatim { content.to_owned() } else { filled(content, args) };
        write(&folder.join(path), &content)?;
    }
    println!("{} is made; its README.md says how to build it", folder.display());
    Ok(())
}

fn filled(template: &str, args: &NewArgs) -> String {
    let (kind, world) = args.kind.names();
    let places = [("MODULE", args.name.replace('-', "_")), ("NAME", args.name.clone())];
    let places = places.into_iter().chain([("KIND", kind.to_owned()), ("WORLD", world.to_owned())]);
    places.fold(template.to_owned(), |text, (place, value)| text.replace(place, &value))
}

fn write(path: &Path, content: &str) -> Result<()> {
    let context = || format!("write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(context)?;
    }
    fs::write(path, content).with_context(context)
}
