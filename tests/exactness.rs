//! A slice of the exactness matrix: every profile of parameters, every method. `cargo xtask exactness` runs all of it.

use serde_json::json;
use specula_tests::{CHAT, Folder, Server, exactness, question, with};

/// A sampling rule against the law: what it was only asked about changes what it answers next. Every fifth call it wants a
/// `!`, whatever was committed.
const COUNTS_CALLS: &str = r#"(module
  (import "specula:policy/rows@0.1.0" "bias" (func $bias (param i32 i32 i32 i32 i32)))
  (import "[export]specula:policy/sampling@0.1.0" "[resource-new]session" (func $new-session (param i32) (result i32)))
  (memory (export "memory") 2)
  (global $calls (mut i32) (i32.const 0))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
  (func (export "specula:policy/sampling@0.1.0#open") (param i32 i32 i32 i32 i32 i32) (result i32)
    (i32.const 1024))
  (func (export "specula:policy/sampling@0.1.0#[constructor]session") (result i32)
    (call $new-session (i32.const 7)))
  (func (export "specula:policy/sampling@0.1.0#[method]session.adjust") (param i32 i32 i32 i32) (result i32)
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (if (i32.eqz (i32.rem_u (global.get $calls) (i32.const 5)))
      (then
        (i32.store (i32.const 64) (i32.const 9))
        (f32.store (i32.const 96) (f32.const 100))
        (call $bias (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 96) (i32.const 1))))
    (i32.const 1024))
  (func (export "specula:policy/sampling@0.1.0#[method]session.commit") (param i32 i32 i32) (result i32)
    (i32.const 1024))
  (func (export "specula:policy/sampling@0.1.0#[method]session.fork") (param i32) (result i32)
    (call $new-session (i32.const 7))))"#;

#[tokio::test]
async fn a_plugin_whose_state_moves_without_commit_is_noticed() {
    let folder = Folder::new();
    let guest = specula_guests::encode(COUNTS_CALLS, Some("sampler"));
    std::fs::write(folder.path().join("counts-calls.wasm"), guest).expect("a plugin file");
    let server = Server::start(&["--plugins", folder.path().to_str().expect("a readable path")]);
    let request = with(&question(1), json!({"plugins": [{"name": "counts-calls"}]}));
    let by = async |method: &str| {
        server.whole(CHAT, &with(&request, json!({"speculation": {"method": method, "window": 4}}))).await.text
    };
    let plain = by("none").await;
    assert_eq!(by("none").await, plain, "the target alone repeats itself");
    assert_ne!(by("sps").await, plain, "the comparison sees state that was not rewound");
}

#[test]
fn every_method_is_exact_under_every_parameter() {
    // Of twelve pages at three temperatures each meets another of the twenty-two profiles: all of them are met.
    let counts = exactness(&["--pages", "12", "--max-tokens", "16"]);
    let of = |dimension: &str| counts[dimension].as_object().expect("counts by name").len();
    assert_eq!((of("methods"), of("profiles"), of("temperatures")), (16, 22, 3), "{counts}");
    assert_eq!(counts["total"]["differences"], 0);
    assert!(counts["total"]["tokens"].as_u64().is_some_and(|tokens| tokens > 3000), "{counts}");
    for end in ["EndToken", "StopString", "MaxTokens", "ContextEnd", "Plugin"] {
        assert!(counts["ends"][end].as_u64().is_some_and(|texts| texts > 0), "no text ended by {end}: {counts}");
    }
    assert!(counts["cancelled_neighbours"].as_u64() > Some(0) && counts["company"]["8"].as_u64() > Some(0));
    assert_eq!(counts["prompts"][0], json!(1), "a prompt of one token");
}
