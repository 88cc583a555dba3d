//! The shipped policies, as components: what they compute against the same thing written natively, and the laws.

mod common;

use std::sync::Arc;

use common::{VOCABULARY, logits, model, registry, shipped};
use serde_json::{Value, json};
use specula_decoding::{PolicyError, Row, Stop, TokenId};
use specula_policies::{Kind, Plugin, laws};

/// All of them, in order of name.
const SHIPPED: [&str; 12] = [
    "balanced-json",
    "budget",
    "dry",
    "entropy-gate",
    "min-p",
    "own-draw",
    "regex",
    "repetition",
    "top-k-lenient",
    "top-n-sigma",
    "typical",
    "watermark",
];

#[test]
fn all_laws_hold() {
    let registry = registry();
    for name in SHIPPED {
        let report = laws::check(&shipped(&registry, name), &model(VOCABULARY), None);
        let report = report.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(report.kinds.iter().all(|kind| kind.compared > 10 && kind.fuel > 0), "{name}: {report:?}");
    }
}

#[test]
fn min_p_edits_as_the_row_does_and_only_the_rows_it_is_given() {
    let registry = registry();
    let plugin = shipped(&registry, "min-p");
    let mut rule = plugin.open_sampling(&model(VOCABULARY), &json!({"min_p": 0.1}), &[1, 2]).expect("it opens").policy;
    let original: Vec<Row> = (0..4).map(|seed| Row::new(&logits(VOCABULARY, seed))).collect();
    let mut expected = original.clone();
    expected.iter_mut().for_each(|row| row.keep_min_p(0.1));
    // The whole window at once, and each row in a call of its own with another tail behind it: causal.
    let mut whole = original.clone();
    rule.apply(&[5, 6, 7], 0, &mut whole.iter_mut().collect::<Vec<_>>()).expect("it adjusts");
    assert_eq!(whole, expected);
    for i in 0..4 {
        let mut row = original[i].clone();
        let path: Vec<TokenId> = [5, 6, 7][..i].iter().copied().chain([9, 9]).collect();
        rule.apply(&path, i, &mut [&mut row]).expect("it adjusts");
        assert_eq!(row, expected[i]);
    }
}

#[test]
fn balanced_json_ends_with_the_token_that_closes_the_value() {
    let cases: [(&str, Value, Option<usize>); 9] = [
        (r#"{"a": 1} rest"#, json!({}), Some(8)),
        (r#"Here: [1, {"b": "]}"}] rest"#, json!({}), Some(22)),
        (r#"{"a": "\"}"} rest"#, json!({}), Some(12)),
        (r#"{"a": "\\"} rest"#, json!({}), Some(11)),
        (r#"[1] {"a": 1} "#, json!({"value": "object"}), Some(12)),
        (r#"{} [2] "#, json!({"value": "array"}), Some(6)),
        (r#"{"a": 1"#, json!({}), None),
        (r#"{] {} "#, json!({}), Some(5)),
        (r#"no "json" here }"#, json!({}), None),
    ];
    let registry = registry();
    let plugin = shipped(&registry, "balanced-json");
    for (text, config, expected) in cases {
        let found = observe(&plugin, text, &config, text.len());
        assert_eq!(found.as_ref().map(|stop| stop.keep), expected, "{text}");
        for pieces in 1..text.len() {
            assert_eq!(observe(&plugin, text, &config, pieces), found, "{text} in pieces of {pieces}");
        }
    }
}

/// Gives a text, one token a byte, in pieces of `size` tokens; the stop's `keep` counts from the beginning.
fn observe(plugin: &Arc<Plugin>, text: &str, config: &Value, size: usize) -> Option<Stop> {
    let mut criterion = plugin.open_stopping(&model(128), config).expect("it opens").policy;
    let bytes: Vec<usize> = (0..text.len()).collect();
    bytes.chunks(size).find_map(|piece| {
        let tokens: Vec<TokenId> = piece.iter().map(|&at| u32::from(text.as_bytes()[at])).collect();
        let ends: Vec<u32> = (1..=piece.len() as u32).collect();
        let stop = criterion.observe(&tokens, &text[piece[0]..piece[0] + piece.len()], &ends).expect("it observes")?;
        Some(Stop { keep: piece[0] + stop.keep, ..stop })
    })
}

#[test]
fn wrong_configurations_are_refused_with_reasons() {
    let registry = registry();
    let typical = shipped(&registry, "typical");
    let refusal = |config: Value| match typical.open_acceptance(&model(VOCABULARY), &config, &[]) {
        Ok(_) => panic!("{config} was taken"),
        Err(PolicyError { code, message, .. }) => format!("{code}: {message}"),
    };
    assert_eq!(refusal(json!({"epsilon": 1.5})), "bad-config: `epsilon` must satisfy `maximum` 1, but is 1.5");
    assert_eq!(refusal(json!({"epsilom": 0.5})), "bad-config: unknown key `epsilom`; allowed: delta, epsilon");
    assert_eq!(refusal(json!({"delta": "x"})), "bad-config: `delta` must be of type \"number\", but is \"x\"");
    // What no schema can say, the policy says itself.
    let pattern = json!({"pattern": "(unclosed"});
    let regex = shipped(&registry, "regex").open_sampling(&model(VOCABULARY), &pattern, &[]).err().expect("no pattern");
    assert!(regex.code == "bad-config" && regex.message.contains("unclosed group"), "{regex}");
    let wrong_kind = typical.open_stopping(&model(VOCABULARY), &json!({})).err().map(|error| error.code);
    assert_eq!(wrong_kind.as_deref(), Some("wrong-kind"));
}

#[test]
fn the_registry_lists_what_was_loaded_and_reports_what_was_not() {
    let registry = registry();
    let folder = common::root().join("target/dist/plugins");
    assert_eq!(registry.load_folder(&folder), []);
    let list = registry.list("anyone");
    let names: Vec<&str> = list.iter().map(|plugin| plugin.name.as_str()).collect();
    assert_eq!(names, SHIPPED);
    assert_eq!(list[4].kinds, [Kind::Sampling]);
    assert!(list.iter().all(|plugin| plugin.digest.len() == 71 && plugin.digest.starts_with("sha256:")));
    assert!(list.iter().all(|plugin| plugin.description.is_some()));
    let schema = |name: &str| registry.get(name).and_then(|plugin| plugin.info().config_schema.clone());
    let without: Vec<&str> = names.iter().copied().filter(|name| schema(name).is_none()).collect();
    assert_eq!(without, ["own-draw"], "it has nothing to configure");
    assert!(registry.get("typical").is_some() && registry.get("other").is_none());
    assert_eq!(registry.load("Bad Name", b"").err().map(|error| error.code()), Some("bad-name"));
    assert_eq!(registry.load("text", b" (component)").err().map(|error| error.code()), Some("text-format"));
    assert_eq!(registry.load("junk", b"junk").err().map(|error| error.code()), Some("not-a-component"));
}
