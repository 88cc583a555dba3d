//! Turns the guests written as text under `tests/plugins` into plugins: for the tests of the plugin room, which call them
//! directly, and for the end-to-end tests, which put them before the server.

pub mod smith;

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wit_component::StringEncoding;

/// A guest under `tests/plugins` as a plugin file.
///
/// # Panics
/// If there is none of that name, or its first line says neither its kind nor that it is not to be loaded.
pub fn plugin(name: &str) -> Vec<u8> {
    let text = text(name);
    let first = text.lines().next().and_then(|line| line.strip_prefix(";; ")).expect("a first line");
    let kind = kind(first);
    encode(&text, (kind != "load").then(|| world(kind)))
}

/// The kind that a guest's first line says.
pub fn kind(first: &str) -> &str {
    first.trim_start_matches("laws ").split([',', ':']).next().unwrap_or_default()
}

/// A guest written as text: a component as it is, a core module with the interface of `world` in it, as compilers leave it.
///
/// # Panics
/// If the text is not WebAssembly.
pub fn encode(text: &str, world: Option<&str>) -> Vec<u8> {
    match world {
        Some(world) => encode_with(text, &root().join("wasm-plugins/wit"), world),
        None => wat::parse_str(text).expect("the text is WebAssembly"),
    }
}

/// A core module written as text with an interface in it: a `world` of the WIT in this folder, or several joined by `+`.
///
/// # Panics
/// If the text is not WebAssembly, or there is no such interface.
pub fn encode_with(text: &str, wit: &Path, worlds: &str) -> Vec<u8> {
    embed(wat::parse_str(text).expect("the text is WebAssembly"), wit, worlds)
}

/// A core module with an interface in it, as for [`encode_with`].
///
/// # Panics
/// If there is no such interface.
pub fn embed(mut module: Vec<u8>, wit: &Path, worlds: &str) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_dir(wit).expect("the interface is readable");
    for world in worlds.split('+') {
        let world = resolve.select_world(&[package], Some(world)).expect("the world exists");
        wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
            .expect("the interface can be embedded");
    }
    module
}

/// Text of a guest under `tests/plugins`.
///
/// # Panics
/// If there is none of that name.
pub fn text(name: &str) -> String {
    let path = root().join("tests/plugins").join(name).with_extension("wat");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// World of a kind of plugin.
///
/// # Panics
/// If there is no such kind.
pub fn world(kind: &str) -> &'static str {
    match kind {
        "acceptance" => "acceptor",
        "sampling" => "sampler",
        "stopping" => "stopper",
        "configured" => "acceptor+configurable",
        other => panic!("no kind of plugin: {other}"),
    }
}

/// SHA-256 in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
