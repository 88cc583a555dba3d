//! Random guests and damaged files: whatever comes, the host answers within its bounds and goes on. Each test runs for five
//! seconds, or as many as `SPECULA_FUZZ_SECONDS` says; it prints the seed of a finding.

mod common;
#[path = "fuzz/wild.rs"]
mod wild;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{VOCABULARY, logits, model, random, registry, window};
use serde_json::json;
use specula_decoding::Row;
use specula_guests::smith;
use specula_policies::{Kind, Plugin, Registry};

/// Far above the brakes, for machines that are busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// Does `work` with one seed after another until the time is over.
fn for_a_while(mut work: impl FnMut(u64)) {
    let seconds = std::env::var("SPECULA_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut seed = 0;
    while Instant::now() < end {
        let begin = Instant::now();
        let done = catch_unwind(AssertUnwindSafe(|| work(seed)));
        assert!(done.is_ok(), "seed {seed}");
        assert!(begin.elapsed() < PATIENCE, "seed {seed} took {:?}", begin.elapsed());
        seed += 1;
    }
    println!("{seed} seeds");
    assert!(seed > 0);
}

/// Opens a plugin as all it can be and makes every call; what they come to does not matter. How many answers there were.
fn use_it(plugin: &Arc<Plugin>) -> usize {
    let model = model(VOCABULARY);
    let mut answers = 0;
    for kind in &plugin.info().kinds {
        match kind {
            Kind::Acceptance => {
                let Ok(opened) = plugin.open_acceptance(&model, &json!({}), &[1, 2, 3]) else { continue };
                let mut policy = opened.policy;
                for seed in 0..3 {
                    answers += usize::from(policy.judge(&window(4, seed)).is_ok_and(|accepted| accepted <= 4));
                    answers += usize::from(policy.commit(&[1, 2]).is_ok());
                }
            }
            Kind::Sampling => {
                let Ok(opened) = plugin.open_sampling(&model, &json!({}), &[1, 2, 3]) else { continue };
                let mut rule = opened.policy;
                for seed in 0..3 {
                    let mut rows: Vec<Row> = (0..3).map(|i| Row::new(&logits(VOCABULARY, seed + i))).collect();
                    let adjusted = rule.apply(&[4, 5], 0, &mut rows.iter_mut().collect::<Vec<_>>());
                    let sound = |row: &Row| row.logits().iter().all(|l| *l < f32::INFINITY);
                    assert!(adjusted.is_err() || rows.iter().all(sound), "a row without a distribution");
                    assert!(rows.iter().all(|row| row.vocab_size() == VOCABULARY as usize), "rows came back");
                    answers += usize::from(adjusted.is_ok()) + usize::from(rule.commit(&[1]).is_ok());
                }
            }
            Kind::Stopping => {
                let Ok(opened) = plugin.open_stopping(&model, &json!({})) else { continue };
                let mut criterion = opened.policy;
                for _ in 0..3 {
                    let stop = criterion.observe(&[1, 2], "ab", &[1, 2]);
                    assert!(!matches!(&stop, Ok(Some(stop)) if stop.keep == 0 || stop.keep > 2), "{stop:?}");
                    answers += usize::from(stop.is_ok());
                }
            }
        }
    }
    answers
}

fn still_works(registry: &Registry) {
    let plugin = registry.load("neighbour", &specula_guests::plugin("well-behaved")).expect("it passes");
    let mut policy = plugin.open_acceptance(&model(VOCABULARY), &json!({}), &[]).expect("it opens").policy;
    assert_eq!(policy.judge(&window(4, 1)), Ok(0));
}

#[test]
fn damaged_files_are_refused_or_run_within_their_bounds() {
    let registry = registry();
    let whole: Vec<Vec<u8>> = ["well-behaved", "bias-nan", "keeps-none", "schema-reference", "many-modules"]
        .into_iter()
        .map(specula_guests::plugin)
        .collect();
    let mut passed = 0;
    for_a_while(|seed| {
        let mut random = random(seed);
        let mut bytes = whole[random() as usize % whole.len()].clone();
        for _ in 0..1 + random() % 4 {
            let at = random() as usize % bytes.len();
            match random() % 4 {
                0 => bytes[at] = random() as u8,
                1 => bytes[at] ^= 1 << (random() % 8),
                2 => bytes.truncate(at.max(1)),
                _ => drop(bytes.splice(at..at, [random() as u8, random() as u8])),
            }
        }
        if let Ok(plugin) = registry.load("damaged", &bytes) {
            passed += 1;
            use_it(&plugin);
        }
    });
    println!("{passed} passed the checks");
    still_works(&registry);
}

#[test]
fn what_wasm_smith_makes_is_refused_or_ends_within_its_bounds() {
    let registry = registry();
    let (mut refused, mut loaded) = (0, 0);
    for_a_while(|seed| {
        let mut random = random(seed);
        let bytes: Vec<u8> = (0..8192).map(|_| random() as u8).collect();
        let file = if seed % 4 == 0 {
            smith::component(&bytes)
        } else {
            let (text, kind) = wild::any(&mut random);
            let module = smith::module(&bytes, &text, random().is_multiple_of(2));
            common::embed(module, &common::root().join("wasm-plugins/wit"), common::world(kind))
        };
        match registry.load("smith", &file) {
            Ok(plugin) => {
                loaded += 1;
                use_it(&plugin);
            }
            Err(_) => refused += 1,
        }
    });
    println!("{refused} refused, {loaded} loaded");
    assert!(refused > 0 && loaded > 0, "{refused} refused, {loaded} loaded");
    still_works(&registry);
}

#[test]
fn random_guests_end_within_their_bounds() {
    let registry = registry();
    let (mut loaded, mut answers) = (0, 0);
    for_a_while(|seed| {
        let mut random = random(seed);
        let (text, kind) = wild::any(&mut random);
        let plugin = registry.load("random", &common::guest(&text, Some(common::world(kind))));
        let plugin = plugin.unwrap_or_else(|error| panic!("{error} in {text}"));
        loaded += 1;
        answers += use_it(&plugin);
    });
    println!("{loaded} guests gave {answers} answers");
    assert!(answers > 0, "none ever answered");
    still_works(&registry);
}
