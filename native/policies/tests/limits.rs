//! Each limit twice: at the bound, obeyed; one beyond, refused with its code.

mod common;

use std::time::{Duration, Instant};

use common::{VOCABULARY, acceptor, guest, model, window};
use serde_json::json;
use specula_decoding::{Acceptance, Row};
use specula_policies::{Budget, Limits, Registry};

/// Opens a guest under limits and lets it judge once; the code of its failure, if it fails.
fn judge(limits: Limits, bytes: &[u8]) -> Result<usize, String> {
    let registry = Registry::new(limits).expect("the sandbox works here");
    let plugin = registry.load("guest", bytes).map_err(|error| error.code().to_owned())?;
    let opened = plugin.open_acceptance(&model(VOCABULARY), &json!({}), &[]).map_err(|error| error.code)?;
    let mut policy = opened.policy;
    policy.judge(&window(4, 1)).map_err(|error| error.code)
}

fn refused(code: &str) -> Result<usize, String> {
    Err(code.to_owned())
}

#[test]
fn fuel() {
    let registry = common::registry();
    let counts = "(local $i i32) (loop $again
        (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000))))";
    let bytes = acceptor("", counts, "");
    let plugin = registry.load("guest", &bytes).expect("it passes");
    let opened = plugin.open_acceptance(&model(VOCABULARY), &json!({}), &[]).expect("it opens");
    let (mut policy, before) = (opened.policy, opened.usage.fuel());
    policy.judge(&window(4, 1)).expect("it judges");
    let needed = opened.usage.fuel() - before;
    assert!((5_000..20_000).contains(&needed), "{needed}");
    let with = |fuel| Limits { judge: Budget { fuel, brake_ms: 1000 }, ..Limits::default() };
    assert_eq!(judge(with(needed), &bytes), Ok(0));
    // Fuel is looked at where functions and turns of loops begin: the last few instructions may go unseen.
    assert_eq!(judge(with(needed - 50), &bytes), refused("fuel"));
}

#[test]
fn brake() {
    let forever = acceptor("", "(loop $again (br $again))", "");
    let limits = Limits { judge: Budget { fuel: u64::MAX / 2, brake_ms: 30 }, ..Limits::default() };
    let start = Instant::now();
    assert_eq!(judge(limits.clone(), &forever), refused("deadline"));
    let time = start.elapsed();
    assert!(time > Duration::from_millis(25) && time < Duration::from_secs(5), "{time:?}");
    assert_eq!(judge(limits, &acceptor("", "", "")), Ok(0));
}

#[test]
fn memory() {
    // The guest is born with two pages of 64 KiB.
    let grows = |pages: u32| acceptor("", &format!("(drop (memory.grow (i32.const {pages})))"), "");
    let limits = Limits { memory_bytes: 10 << 16, ..Limits::default() };
    assert_eq!(judge(limits.clone(), &grows(8)), Ok(0));
    assert_eq!(judge(limits, &grows(9)), refused("memory"));
}

#[test]
fn table() {
    let grows = |n: u32| {
        acceptor("(table $t 1 funcref)", &format!("(drop (table.grow $t (ref.null func) (i32.const {n})))"), "")
    };
    let limits = Limits { table_elements: 50, ..Limits::default() };
    assert_eq!(judge(limits.clone(), &grows(49)), Ok(0));
    assert_eq!(judge(limits, &grows(50)), refused("table"));
}

#[test]
fn stack() {
    let deep = |calls: u32| {
        let function = "(func $deeper (param i32) (result i32) (if (result i32) (local.get 0)
            (then (i32.add (call $deeper (i32.sub (local.get 0) (i32.const 1))) (local.get 0))) (else (i32.const 0))))";
        let text = acceptor_with_function(function, &format!("(drop (call $deeper (i32.const {calls})))"));
        judge(Limits::default(), &text)
    };
    assert_eq!(deep(1000), Ok(0));
    assert_eq!(deep(50_000), refused("stack"));
}

/// A function must come after the memory in the text, where no import follows.
fn acceptor_with_function(function: &str, judge: &str) -> Vec<u8> {
    acceptor(&format!("{function}\n"), judge, "")
}

#[test]
fn host_calls() {
    let calls = |n: u32| {
        let body = format!(
            "(local $i i32) (loop $again (drop (call $length))
            (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {n}))))"
        );
        let import = r#"(import "specula:policy/context@0.1.0" "length" (func $length (result i32)))"#;
        judge(Limits { host_calls: 20, ..Limits::default() }, &acceptor(import, &body, ""))
    };
    assert_eq!(calls(20), Ok(0));
    assert_eq!(calls(21), refused("host-calls"));
}

#[test]
fn handles() {
    // The session and the borrow of it for the call are two handles more.
    let makes = |n: usize| {
        let limits = Limits { handles: 5, ..Limits::default() };
        judge(limits, &acceptor("", &"(drop (call $new-session (i32.const 1)))".repeat(n), ""))
    };
    assert_eq!(makes(3), Ok(0));
    assert_eq!(makes(4), refused("handles"));
}

#[test]
fn bytes_to_the_host() {
    let logs = |n: u32| {
        let import = r#"(import "specula:policy/context@0.1.0" "log" (func $log (param i32 i32)))"#;
        let body = format!("(call $log (i32.const 0) (i32.const {n}))");
        judge(Limits { transfer_bytes: 1000, ..Limits::default() }, &acceptor(import, &body, ""))
    };
    assert_eq!(logs(1000), Ok(0));
    assert_eq!(logs(1001), refused("host-bytes"));
}

#[test]
fn tokens_asked_for() {
    let asks = |n: u32| {
        let import = r#"(import "specula:policy/context@0.1.0" "token-bytes" (func $token-bytes (param i32 i32 i32)))"#;
        let body = format!("(call $token-bytes (i32.const 8192) (i32.const {n}) (i32.const 64))");
        judge(Limits { asked_tokens: 10, ..Limits::default() }, &acceptor(import, &body, ""))
    };
    assert_eq!(asks(10), Ok(0));
    assert_eq!(asks(11), refused("asked-tokens"));
}

#[test]
fn edits() {
    let edits = |limit: usize| {
        let registry = Registry::new(Limits { edits: limit, ..Limits::default() }).expect("the sandbox works here");
        let flood = common::guest_text("edit-flood");
        let plugin = registry.load("guest", &guest(&flood, Some("sampler"))).expect("it passes");
        let mut rule = plugin.open_sampling(&model(VOCABULARY), &json!({}), &[]).expect("it opens").policy;
        let mut row = Row::new(&common::logits(VOCABULARY, 1));
        rule.apply(&[], 0, &mut [&mut row]).map_err(|error| error.code)
    };
    assert_eq!(edits(5000), Ok(()));
    assert_eq!(edits(4999), Err("edits".to_owned()));
}

#[test]
fn structure() {
    let load = |limits: Limits, text: &str| {
        let registry = Registry::new(limits).expect("the sandbox works here");
        let error = registry.load("guest", &guest(text, None)).err().expect("none of these is a policy");
        if error.code() == "export-missing" { "passed".to_owned() } else { error.to_string() }
    };
    let with = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        limits
    };
    let part =
        "(component (core module (memory 1) (table 3 funcref) (func) (func) (data (i32.const 0) \"0123456789\")))";
    assert_eq!(load(Limits::default(), part), "passed");
    for (limits, what) in [
        (with(|l| l.core_modules = 0), "1 core modules, allowed are 0"),
        (with(|l| l.memories = 0), "1 memories, allowed are 0"),
        (with(|l| l.tables = 0), "1 tables, allowed are 0"),
        (with(|l| l.functions = 1), "2 functions, allowed are 1"),
        (with(|l| l.nesting = 0), "1 levels of nesting, allowed are 0"),
        (with(|l| l.data_bytes = 9), "bytes of data segments, allowed are 9"),
        (with(|l| l.file_bytes = 20), "bytes, allowed are 20"),
    ] {
        let message = load(limits, part);
        assert!(message.contains(what), "{message}");
    }
    let exact = with(|l| (l.core_modules, l.memories, l.tables, l.functions, l.nesting) = (1, 1, 1, 2, 1));
    assert_eq!(load(exact, part), "passed");
}

/// Accepts as many tokens as it was told modulo 5; traps if the window begins at position 666.
fn counting() -> Vec<u8> {
    acceptor(
        "(global $seen (mut i32) (i32.const 0))",
        "(if (i32.eq (local.get 1) (i32.const 666)) (then unreachable))
         (i32.store (i32.const 1028) (i32.rem_u (global.get $seen) (i32.const 5)))",
        "(global.set $seen (i32.add (global.get $seen) (local.get 2)))",
    )
}

#[test]
fn an_acceptance_policy_comes_back_knowing_the_text_until_it_has_three_strikes() {
    let registry = common::registry();
    let plugin = registry.load("counting", &counting()).expect("it passes");
    let prompt: Vec<u32> = (0..1301).map(|i| i % VOCABULARY).collect();
    let opened = plugin.open_acceptance(&model(VOCABULARY), &json!({}), &prompt).expect("it opens");
    let mut policy = opened.policy;
    let ask = |policy: &mut Box<dyn Acceptance>, position| {
        let stats = specula_decoding::WindowStats { position, ..window(4, 1) };
        policy.judge(&stats).map_err(|error| error.code)
    };
    assert_eq!(ask(&mut policy, 1), Ok(1), "1301 tokens");
    for strike in 1..=3 {
        assert_eq!(ask(&mut policy, 666), refused("trap-unreachable"));
        // Heard of while there was no instance.
        policy.commit(&[1]).expect("kept");
        let expected = if strike < 3 { Ok((1 + strike) % 5) } else { refused("off") };
        assert_eq!(ask(&mut policy, 1), expected, "strike {strike}");
    }
    policy.commit(&[1]).expect("nothing to tell");
    assert_eq!(opened.usage.failures(), 3);
}

#[test]
fn what_a_guest_logged_last_tells_its_author_why_it_trapped() {
    let declarations = r#"(import "specula:policy/context@0.1.0" "log" (func $log (param i32 i32)))
        (data (i32.const 16) "panicked at lib.rs:7")"#;
    // Data before the memory's declaration is legal text.
    let bytes = acceptor(declarations, "(call $log (i32.const 16) (i32.const 20)) unreachable", "");
    let plugin = common::registry().load("guest", &bytes).expect("it passes");
    let mut policy = plugin.open_acceptance(&model(VOCABULARY), &json!({}), &[]).expect("it opens").policy;
    let error = policy.judge(&window(4, 1)).expect_err("it traps");
    assert_eq!((error.policy.as_str(), error.code.as_str()), ("guest", "trap-unreachable"));
    assert!(error.message.ends_with("; last log line: panicked at lib.rs:7"), "{}", error.message);
}
