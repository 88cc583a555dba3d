//! Models, windows and guests for the tests of this room.
#![allow(dead_code, unused_imports)] // each test file uses a part

use std::sync::Arc;

pub(crate) use specula_guests::{embed, encode as guest, root, text as guest_text, world};

use specula_decoding::{Row, TokenBytes, TokenId, WindowStats};
use specula_policies::{Limits, ModelInfo, Plugin, Registry};

/// Entries of a row in these tests.
pub(crate) const VOCABULARY: u32 = 64;

/// A registry with the default limits.
pub(crate) fn registry() -> Registry {
    Registry::new(Limits::default()).expect("the sandbox works here")
}

/// A model whose token `t` stands for the character `t` of ASCII.
pub(crate) fn model(vocab_size: u32) -> ModelInfo {
    let bytes = (0..vocab_size).map(|token| vec![(token % 128) as u8].into_boxed_slice()).collect();
    ModelInfo { vocab_size, end_tokens: vec![0], token_bytes: Arc::new(TokenBytes(bytes)), max_window: 16 }
}

/// A window whose rows are pseudo-random but the same every time.
pub(crate) fn window(n: usize, seed: u64) -> WindowStats {
    let mut stats = WindowStats { position: 10, ..WindowStats::default() };
    let mut random = random(seed);
    for _ in 0..n {
        let row = Row::new(&logits(VOCABULARY, random()));
        let draft = random() as TokenId % VOCABULARY;
        let own = if random().is_multiple_of(2) { draft } else { random() as TokenId % VOCABULARY };
        stats.push(&row, draft, own);
    }
    stats
}

/// Pseudo-random logits in −8..8.
pub(crate) fn logits(vocab_size: u32, seed: u64) -> Vec<f32> {
    let mut random = random(seed);
    (0..vocab_size).map(|_| (random() % 16_000) as f32 / 1000.0 - 8.0).collect()
}

/// SplitMix64.
pub(crate) fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) >> 8
    }
}

/// The well-behaved guest with instructions of the caller's put in front of what `judge` and `commit` do, and with more
/// declarations.
pub(crate) fn acceptor(declarations: &str, judge: &str, commit: &str) -> Vec<u8> {
    let mut text = guest_text("well-behaved");
    for (method, body) in [("judge", judge), ("commit", commit)] {
        let at = text.find(&format!("[method]session.{method}")).expect("the guest has the method");
        let body_at = at + text[at..].find('\n').expect("a body follows");
        text.insert_str(body_at, &format!("\n{body}"));
    }
    let at = text.find("  (memory").expect("the guest has a memory");
    text.insert_str(at, declarations);
    guest(&text, Some("acceptor"))
}

/// A shipped policy, as `cargo xtask build` left it.
pub(crate) fn shipped(registry: &Registry, name: &str) -> Arc<Plugin> {
    let path = root().join("target/dist/plugins").join(name).with_extension("wasm");
    let bytes = std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask build --only plugins` makes it", path.display()));
    registry.load(name, &bytes).expect("shipped policies pass the checks")
}
