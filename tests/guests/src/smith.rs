//! What wasm-smith makes of random bytes: whole components, and core modules that have our interface's shape and nothing else
//! in common with a plugin. Their functions call the host with whatever is at hand.

use arbitrary::Unstructured;
use wasm_smith::{Component, Config, Module};

/// Any component at all.
///
/// # Panics
/// If the bytes are too few for one; some thousands are enough.
pub fn component(bytes: &[u8]) -> Vec<u8> {
    Component::new(Config::default(), &mut Unstructured::new(bytes)).expect("enough bytes").to_bytes()
}

/// A core module with the imports and exports of `like`, a guest written as text. Unless it may have `all_features` it keeps
/// to what plugins may use, so that it is not refused for that.
///
/// # Panics
/// If the text is not WebAssembly, or the bytes are too few.
pub fn module(bytes: &[u8], like: &str, all_features: bool) -> Vec<u8> {
    let config = Config {
        module_shape: Some(wat::parse_str(like).expect("the text is WebAssembly")),
        exceptions_enabled: all_features,
        gc_enabled: all_features,
        memory64_enabled: all_features,
        relaxed_simd_enabled: all_features,
        tail_call_enabled: all_features,
        threads_enabled: all_features,
        ..Config::default()
    };
    Module::new(config, &mut Unstructured::new(bytes)).expect("enough bytes").to_bytes()
}
