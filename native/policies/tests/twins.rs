//! Every shipped policy beside its native twin, written for itself and as plainly as may be, over windows and texts at random:
//! the same bits.

#[path = "twins/acceptance.rs"]
mod acceptance;
mod common;
#[path = "../../../wasm-plugins/watermark/src/green.rs"]
mod green;
#[path = "twins/sampling.rs"]
mod sampling;
#[path = "twins/stopping.rs"]
mod stopping;

use common::{VOCABULARY, logits, model, random, registry, shipped, window};
use serde_json::{Value, json};
use specula_decoding::{Row, Rule, Stop, Stopping, TokenId, WindowStats};

type Judge = fn(&WindowStats, &Value) -> usize;

#[test]
fn acceptance_policies() {
    let cases: [(&str, Judge, Vec<Value>); 4] = [
        ("own-draw", acceptance::own_draw, vec![json!({})]),
        (
            "typical",
            acceptance::typical,
            vec![
                json!({"epsilon": 0.09, "delta": 0.3}),
                json!({"epsilon": 0.001, "delta": 0.3}),
                json!({"epsilon": 1.0, "delta": 0.05}),
                json!({"epsilon": 0.0, "delta": 0.0}),
            ],
        ),
        (
            "top-k-lenient",
            acceptance::top_k_lenient,
            vec![json!({"k": 1, "ratio": 0.0}), json!({"k": 8, "ratio": 0.1}), json!({"k": 64, "ratio": 0.02})],
        ),
        (
            "entropy-gate",
            acceptance::entropy_gate,
            vec![
                json!({"gate": 1.0, "floor": 0.0, "per_window": 8}),
                json!({"gate": 1.8, "floor": 0.01, "per_window": 2}),
                json!({"gate": 0.0, "floor": 0.05, "per_window": 0}),
            ],
        ),
    ];
    let registry = registry();
    for (name, twin, configs) in cases {
        let plugin = shipped(&registry, name);
        let mut lengths = [0; 9];
        for config in configs {
            let opened = plugin.open_acceptance(&model(VOCABULARY), &config, &[]).expect("it opens");
            let mut policy = opened.policy;
            for seed in 0..200 {
                let stats = window(8, seed);
                let kept = twin(&stats, &config);
                assert_eq!(policy.judge(&stats), Ok(kept), "{name} {config}, seed {seed}");
                lengths[kept] += 1;
            }
            assert_eq!((opened.usage.calls(), opened.usage.failures()), (201, 0));
        }
        assert!(
            lengths.iter().filter(|count| **count > 0).count() > 2,
            "{name} keeps windows of all lengths: {lengths:?}"
        );
    }
}

type MakeRule = fn(&Value) -> Box<dyn Rule>;

#[test]
fn sampling_rules() {
    let cases: [(&str, MakeRule, Vec<Value>); 5] = [
        ("min-p", sampling::min_p, vec![json!({"min_p": 0.05}), json!({"min_p": 0.0}), json!({"min_p": 1.0})]),
        ("top-n-sigma", sampling::top_n_sigma, vec![json!({"n": 1.0}), json!({"n": 0.0}), json!({"n": 2.5})]),
        (
            "dry",
            sampling::dry,
            vec![
                json!({"multiplier": 0.8, "base": 1.75, "allowed": 2, "range": 512}),
                json!({"multiplier": 3.0, "base": 4.0, "allowed": 1, "range": 20}),
            ],
        ),
        (
            "watermark",
            sampling::watermark,
            vec![
                json!({"key": 7, "gamma": 0.5, "delta": 2.0}),
                json!({"key": 4_294_967_295_u32, "gamma": 0.125, "delta": 0.3}),
            ],
        ),
        (
            "regex",
            sampling::regex,
            vec![json!({"pattern": "[!-2]*(x|[%-)]{3,9})*"}), json!({"pattern": "(ab|a|b)+,?"})],
        ),
    ];
    let registry = registry();
    for (name, twin, configs) in cases {
        let plugin = shipped(&registry, name);
        for config in configs {
            // Few different tokens, so that they repeat; those of the pattern among them.
            let mut random = random(9);
            let mut token = || [b'%', b'(', b'!', b'a', b'b', b'1'][random() as usize % 6].into();
            let prompt: Vec<TokenId> = (0..30).map(|_| token()).collect();
            let model = model(128);
            let mut rule = plugin.open_sampling(&model, &config, &prompt).expect("it opens").policy;
            let mut twin = twin(&config);
            twin.commit(&prompt).expect("twins do not fail");
            let mut edits = 0;
            for round in 0..40 {
                let path: Vec<TokenId> = (0..5).map(|_| token()).collect();
                for first in [0, 2, 5] {
                    let original: Vec<Row> =
                        (first as u64..=5).map(|i| Row::new(&logits(128, round * 100 + i))).collect();
                    let (mut ours, mut theirs) = (original.clone(), original.clone());
                    rule.apply(&path, first, &mut ours.iter_mut().collect::<Vec<_>>()).expect("it adjusts");
                    twin.apply(&path, first, &mut theirs.iter_mut().collect::<Vec<_>>()).expect("twins do not fail");
                    assert_eq!(ours, theirs, "{name} {config}, round {round}, from row {first}");
                    edits += usize::from(ours != original);
                }
                let committed = &path[..1 + round as usize % 5];
                rule.commit(committed).expect("it hears");
                twin.commit(committed).expect("twins do not fail");
            }
            assert!(edits > 60 || config == json!({"min_p": 0.0}), "{name} {config} edited {edits} times");
        }
    }
}

type MakeStopping = fn(&Value) -> Box<dyn Stopping>;

#[test]
fn stopping_criteria() {
    let cases: [(&str, MakeStopping, Vec<Value>); 3] = [
        (
            "repetition",
            stopping::repetition,
            vec![json!({"times": 2, "tokens": 4, "period": 8}), json!({"times": 3, "tokens": 1, "period": 3})],
        ),
        (
            "budget",
            stopping::budget,
            vec![
                json!({"tokens": 10, "grace": 20}),
                json!({"tokens": 3, "grace": 0}),
                json!({"tokens": 25, "grace": 8}),
            ],
        ),
        ("balanced-json", stopping::balanced_json, vec![json!({"value": "any"}), json!({"value": "object"})]),
    ];
    let registry = registry();
    for (name, make, configs) in cases {
        let plugin = shipped(&registry, name);
        for config in configs {
            let mut stops = 0;
            for seed in 0..200 {
                let text = text(seed);
                let mut criterion = plugin.open_stopping(&model(128), &config).expect("it opens").policy;
                let found = observe(&mut *criterion, &text, 1 + seed as usize % 7);
                assert_eq!(found, observe(&mut *make(&config), &text, text.len()), "{name} {config} on {text:?}");
                stops += usize::from(found.is_some());
            }
            assert!(stops > 20 && (stops < 200 || name == "budget"), "{name} {config} stopped {stops} of 200");
        }
    }
}

/// A text of marks and letters that repeats a part of itself.
fn text(seed: u64) -> String {
    let mut random = random(seed);
    let marks = b"ab.! \n{}[]\"\\";
    let mut part: String =
        (0..4 + seed as usize % 9).map(|_| char::from(marks[random() as usize % marks.len()])).collect();
    if seed.is_multiple_of(3) {
        part = format!("{{\"a\": [{part}x]}} ");
    }
    let mut text: String = (0..12).map(|_| char::from(marks[random() as usize % marks.len()])).collect();
    text.push_str(&part.repeat(1 + seed as usize % 4));
    text
}

/// Gives a text, one token a byte, in pieces of `size`; `keep` counts from the beginning.
fn observe(criterion: &mut dyn Stopping, text: &str, size: usize) -> Option<(usize, String)> {
    let places: Vec<usize> = (0..text.len()).collect();
    places.chunks(size).find_map(|piece| {
        let tokens: Vec<TokenId> = piece.iter().map(|&at| text.as_bytes()[at].into()).collect();
        let ends: Vec<u32> = (1..=piece.len() as u32).collect();
        let Stop { keep, reason } =
            criterion.observe(&tokens, &text[piece[0]..piece[0] + piece.len()], &ends).expect("it observes")?;
        Some((piece[0] + keep, reason))
    })
}
