//! Places: who is admitted, who is refused, and when a place is free again.

mod common;

use std::time::{Duration, Instant};

use common::{ask, engine, generate, questions, submit};
use specula_engine::{Engine, Refused};

fn long(engine: &Engine) -> specula_engine::RequestSpec {
    let mut spec = ask(engine, &questions(1)[0], "mirror");
    spec.max_tokens = Some(400);
    // Without its end tokens the answer goes on.
    spec.logit_bias = (0..4).map(|id| (id, -100.0)).collect();
    spec
}

/// Waits for what must come, but not for ever.
fn eventually(what: &str, mut reached: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !reached() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_full_engine_refuses_and_a_gone_client_frees_its_place() {
    let engine = engine(1);
    let spec = long(&engine);
    let running = submit(&engine, &spec);
    let waiting = submit(&engine, &spec);
    let refused = engine.submit(engine.check(spec.clone()).expect("valid"));
    assert!(matches!(refused.err(), Some(Refused::Full { places: 2, .. })));

    drop(waiting);
    drop(running);
    eventually("both places are free", || engine.metrics().running == 0 && engine.metrics().queued == 0);
    let metrics = engine.metrics();
    assert_eq!((metrics.admitted, metrics.refused, metrics.finished), (2, 1, 0));
    assert_eq!(metrics.cancelled, 2);
    let rounds: u64 = metrics.methods.iter().map(|(_, totals)| totals.committed).sum();
    assert!(rounds < 400, "a gone client's generation stops early; it made {rounds} tokens");
    assert!(!generate(&engine, &ask(&engine, &questions(1)[0], "mirror")).tokens().is_empty());
}

#[test]
fn a_draining_engine_ends_what_runs_and_admits_nothing() {
    let engine = engine(2);
    let spec = ask(&engine, &questions(1)[0], "mirror");
    let want = generate(&engine, &spec).tokens();
    let running = submit(&engine, &spec);
    engine.drain();
    let refused = engine.submit(engine.check(spec).expect("valid"));
    assert!(matches!(refused.err(), Some(Refused::Draining)));
    assert_eq!(common::listen(running).tokens(), want);
}
