//! What calls cost: `cargo test --release -p specula-policies --test cost -- --ignored --nocapture`.

mod common;

use std::time::Instant;

use common::{logits, model, registry, shipped, window};
use serde_json::json;
use specula_decoding::Row;

const VOCABULARY: u32 = 4096;

fn measure(what: &str, repeats: usize, mut work: impl FnMut()) {
    let mut micros: Vec<f64> = (0..repeats)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    micros.sort_by(f64::total_cmp);
    println!("{what:<44} best {:>8.2} µs, median {:>8.2} µs", micros[0], micros[repeats / 2]);
}

#[test]
#[ignore = "prints times; nothing to fail"]
fn cost() {
    let registry = registry();
    let (typical, min_p, json) =
        (shipped(&registry, "typical"), shipped(&registry, "min-p"), shipped(&registry, "balanced-json"));
    let (model, config) = (model(VOCABULARY), json!({}));

    measure("open typical and drop it", 500, || {
        typical.open_acceptance(&model, &config, &[]).expect("it opens");
    });
    let bytes = std::fs::read(common::root().join("target/dist/plugins/typical.wasm")).expect("built");
    measure("load typical", 5, || {
        registry.load("again", &bytes).expect("it passes");
    });

    let mut policy = typical.open_acceptance(&model, &config, &[]).expect("it opens").policy;
    for n in [4, 8, 16] {
        let stats = window(n, 1);
        measure(&format!("judge, window {n}"), 5000, || {
            policy.judge(&stats).expect("it judges");
        });
    }
    measure("commit of 5 tokens", 5000, || policy.commit(&[1, 2, 3, 4, 5]).expect("it hears"));

    let own_draw = shipped(&registry, "own-draw");
    let mut policy = own_draw.open_acceptance(&model, &config, &[]).expect("it opens").policy;
    let stats = window(8, 1);
    measure("judge (own-draw), window 8", 5000, || {
        policy.judge(&stats).expect("it judges");
    });

    let mut rule = min_p.open_sampling(&model, &config, &[]).expect("it opens").policy;
    for n in [1_usize, 9] {
        let path = vec![1; n - 1];
        let mut rows: Vec<Row> = (0..n as u64).map(|seed| Row::new(&logits(VOCABULARY, seed))).collect();
        measure(&format!("adjust (min-p), {n} rows of {VOCABULARY}"), 5000, || {
            rule.apply(&path, 0, &mut rows.iter_mut().collect::<Vec<_>>()).expect("it adjusts");
        });
        measure(&format!("the same edits natively, {n} rows"), 5000, || {
            rows.iter_mut().for_each(|row| row.keep_min_p(0.05));
        });
    }

    let n = 9;
    let path = vec![1; n - 1];
    for (name, config) in [
        ("top-n-sigma", json!({})),
        ("watermark", json!({"key": 7})),
        ("dry", json!({})),
        ("regex", json!({"pattern": "([a-z ]+[.,])+"})),
    ] {
        let plugin = shipped(&registry, name);
        let mut rule = plugin.open_sampling(&model, &config, &path).expect("it opens").policy;
        let mut rows: Vec<Row> = (0..n as u64).map(|seed| Row::new(&logits(VOCABULARY, seed))).collect();
        measure(&format!("adjust ({name}), {n} rows of {VOCABULARY}"), 2000, || {
            rule.apply(&path, 0, &mut rows.iter_mut().collect::<Vec<_>>()).expect("it adjusts");
        });
    }

    let mut criterion = json.open_stopping(&model, &config).expect("it opens").policy;
    measure("observe (balanced-json), 5 tokens, 20 bytes", 5000, || {
        criterion.observe(&[1, 2, 3, 4, 5], "some text, five toke", &[4, 8, 12, 16, 20]).expect("it observes");
    });
}
