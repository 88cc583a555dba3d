//! What a crowd of failing calls leaves behind: nothing. A process of its own, whose memory is looked at from outside.
#![cfg(target_os = "linux")]

mod common;

use std::sync::Arc;

use common::{VOCABULARY, model, registry, window};
use serde_json::json;
use specula_policies::Plugin;

/// Guests that fail at every call, each in its own way and soon enough for so many.
const GUESTS: [&str; 6] =
    ["unreachable", "wild-read", "accepts-too-many", "bad-discriminant", "division", "post-return-traps"];

/// Opens and fails until there were so many calls.
fn fail(plugins: &[Arc<Plugin>], calls: usize) {
    let (model, window) = (model(VOCABULARY), window(4, 1));
    for i in 0..calls {
        let opened = plugins[i % plugins.len()].open_acceptance(&model, &json!({}), &[1, 2, 3]).expect("it opens");
        let mut policy = opened.policy;
        assert!(policy.judge(&window).is_err(), "{} judged", GUESTS[i % plugins.len()]);
    }
}

fn memory_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells of processes");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
}

#[test]
fn a_hundred_thousand_failing_calls_leave_no_memory_behind() {
    let registry = registry();
    let load = |name: &&str| registry.load(name, &specula_guests::plugin(name)).expect("it passes");
    let plugins: Vec<Arc<Plugin>> = GUESTS.iter().map(load).collect();
    fail(&plugins, 5_000);
    let before = memory_kib();
    fail(&plugins, 100_000);
    let after = memory_kib();
    println!("{before} KiB before, {after} KiB after");
    assert!(after <= before + before / 20, "{before} KiB before, {after} KiB after");
}
