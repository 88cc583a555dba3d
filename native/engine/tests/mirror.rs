//! Mirror speculative decoding at work: both halves overlap in time, its counts add up, lossy policies reproduce.

mod common;

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use common::{Said, ask, engine, generate, plugin, questions};
use serde_json::json;
use specula_decoding::branches::Source;
use specula_engine::{Engine, LaneKind, Origin, Round};

/// One for all tests of this file, one test at a time: two at once would fight for the cores.
static ENGINE: LazyLock<Mutex<Engine>> = LazyLock::new(|| Mutex::new(engine(4)));

fn alone() -> MutexGuard<'static, Engine> {
    // Another test's failure does not harm the engine.
    ENGINE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spans(round: &Round, kinds: &[LaneKind]) -> Vec<(u64, u64)> {
    round.lanes.iter().filter(|s| kinds.contains(&s.kind)).map(|s| (s.start_us, s.end_us)).collect()
}

fn long_answer(engine: &Engine, method: &str) -> Said {
    let mut spec = ask(engine, &questions(3)[0], method);
    spec.max_tokens = Some(160);
    generate(engine, &spec)
}

/// A draft that had to wait for the target (one thread, one lock, one pool for both models) could not begin and end a
/// step within a pass.
#[test]
fn the_draft_works_while_the_target_works() {
    let engine = alone();
    let said = long_answer(&engine, "mirror");
    // What the draft did during a pass is told with the round after it.
    let rounds = said.rounds.windows(2);
    let within = rounds.filter(|pair| {
        let passes = spans(&pair[0], &[LaneKind::TargetPrefix, LaneKind::Exit, LaneKind::TargetSuffix]);
        let from = passes.iter().map(|s| s.0).min().expect("a pass");
        let to = passes.iter().map(|s| s.1).max().expect("a pass");
        spans(&pair[1], &[LaneKind::DraftRollout]).iter().any(|s| from <= s.0 && s.1 <= to && s.0 < s.1)
    });
    let (within, all) = (within.count(), said.rounds.len() - 1);
    assert!(all > 10, "{all} rounds are too few to tell");
    assert!(within * 2 > all, "a draft step within the pass in only {within} of {all} rounds");
    assert!(said.finished.report.totals.hidden_draft_us > 0);

    let serial = long_answer(&engine, "sps");
    let kinds = [LaneKind::DraftRollout];
    assert!(serial.rounds.iter().all(|round| spans(round, &kinds).is_empty()), "serial speculation rolls nothing out");
}

#[test]
fn counts_add_up() {
    let engine = alone();
    for method in ["none", "lookup", "recycling", "sps", "ssd", "mirror"] {
        let said = long_answer(&engine, method);
        let totals = &said.finished.report.totals;
        assert_eq!(totals.rounds as usize, said.rounds.len(), "{method}");
        assert_eq!(totals.committed as usize, said.finished.completion_tokens, "{method}");
        assert_eq!(totals.drafted as usize, said.rounds.iter().map(|r| r.window).sum::<usize>(), "{method}");
        assert_eq!(totals.accepted as usize, said.rounds.iter().map(|r| r.accepted).sum::<usize>(), "{method}");
        let origins = |wanted: &[Origin]| {
            let tokens = said.rounds.iter().flat_map(|round| &round.tokens);
            tokens.filter(|token| wanted.contains(&token.origin)).count() as u64
        };
        assert_eq!(origins(&[Origin::Draft, Origin::Mirror]), totals.accepted, "{method}");
        assert_eq!(origins(&[Origin::Plain]) > 0, method == "none");
        assert_eq!(origins(&[Origin::Mirror]) > 0, ["ssd", "mirror"].contains(&method));
        let settled = said.rounds.iter().filter(|round| round.hit.is_some()).count() as u64;
        assert_eq!(totals.hits + totals.misses, settled, "{method}");
        assert_eq!(totals.hits_from_draft + totals.hits_from_exit, totals.hits, "{method}");
        assert_eq!(totals.hits_by_depth.iter().sum::<u64>(), totals.hits, "{method}");
        assert_eq!(totals.hits_from_exit_by_depth.iter().sum::<u64>(), totals.hits_from_exit, "{method}");
        let guessed = |by| said.rounds.iter().filter(|round| round.source == Some(by)).count() as u64;
        assert_eq!(guessed(Source::Draft), totals.hits_from_draft, "{method}");
        assert_eq!(guessed(Source::Exit), totals.hits_from_exit, "{method}");
        assert_eq!(totals.hits, totals.branches_used, "{method}");
        assert!(totals.branches_used <= totals.branches_expanded, "{method}");
        assert!(totals.covered <= totals.exits, "{method}");
        assert_eq!(totals.hits > 0, ["ssd", "mirror"].contains(&method), "{totals:?}");
        assert_eq!(totals.exits > 0, method == "mirror", "{totals:?}");
    }
}

/// A lossy policy's text depends on what was drafted; with `deterministic` that does not depend on timing.
#[test]
fn lossy_policies_reproduce_when_deterministic() {
    let engine = alone();
    let mut deviations = 0;
    for question in questions(4) {
        let mut spec = ask(&engine, &question, "mirror");
        spec.deterministic = true;
        spec.plugins = vec![plugin("typical", json!({}))];
        let alone = generate(&engine, &spec);
        // Neighbours shift all timing.
        let neighbours: Vec<_> =
            ["sps", "mirror", "none"].map(|m| common::submit(&engine, &ask(&engine, &question, m))).into();
        let busy = generate(&engine, &spec);
        drop(neighbours);
        assert_eq!(alone.tokens(), busy.tokens(), "`{question}`");
        let totals = &alone.finished.report.totals;
        assert_eq!(totals.deviations, busy.finished.report.totals.deviations);
        assert_eq!(alone.finished.report.lossless(), totals.deviations == 0);
        deviations += totals.deviations;
    }
    assert!(deviations > 0, "a lossy policy that never deviates shows nothing");
}
