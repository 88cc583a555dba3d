//! Every guest under `tests/plugins` must end with the code that its first line says, in bounded time, and leave its
//! neighbour unharmed. A first line is `;; KIND, STAGE: CODE`, `;; load: CODE`, `;; configured, load: CODE` for a guest that
//! exports `configuration`, or `;; laws KIND, CHECK: CODE` for one that breaks a law.

mod common;

use std::time::{Duration, Instant};

use common::guest;
use serde_json::json;
use specula_decoding::{Acceptance, PolicyError, Row};
use specula_policies::{LoadError, Plugin, Registry, laws};
use std::sync::Arc;

/// Far above the brakes, for machines that are busy with other tests.
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn every_hostile_guest_ends_as_it_says() {
    let registry = common::registry();
    let mut neighbour = well_behaved(&registry);
    let mut names: Vec<String> = std::fs::read_dir(common::root().join("tests/plugins"))
        .expect("the folder is there")
        .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned))
        .collect();
    names.sort();
    assert!(names.len() > 80, "found {}", names.len());
    let mut wrong = Vec::new();
    for name in &names {
        let text = common::guest_text(name);
        let (expected, _) = text.split_once('\n').expect("a first line");
        let expected = expected.trim_start_matches(";; ");
        let start = Instant::now();
        let found = match expected.split([' ', ',', ':']).next() {
            Some("load") => format!("load: {}", load(&registry, name, &guest(&text, None))),
            Some("configured") => {
                let bytes = guest(&text, Some(common::world("configured")));
                format!("configured, load: {}", load(&registry, name, &bytes))
            }
            Some("laws") => laws(&registry, name, &text, expected),
            _ => run(&registry, name, &text, expected),
        };
        let time = start.elapsed();
        println!("{name:<20} {found} ({time:.1?})");
        if found != expected || time > PATIENCE {
            wrong.push(format!("{name}: expected {expected}, found {found} after {time:?}"));
        }
        assert_eq!(neighbour.judge(&common::window(4, 1)), Ok(0), "the neighbour of {name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn well_behaved(registry: &Registry) -> Box<dyn Acceptance> {
    let bytes = guest(&common::guest_text("well-behaved"), Some("acceptor"));
    let plugin = registry.load("well-behaved", &bytes).expect("it passes");
    plugin.open_acceptance(&common::model(common::VOCABULARY), &json!({}), &[1, 2, 3]).expect("it opens").policy
}

fn load(registry: &Registry, name: &str, bytes: &[u8]) -> String {
    match registry.load(name, bytes) {
        Ok(_) => "ok".to_owned(),
        Err(error) => {
            println!("    {error}");
            error.code().to_owned()
        }
    }
}

fn laws(registry: &Registry, name: &str, text: &str, expected: &str) -> String {
    let kind = specula_guests::kind(expected);
    let plugin = registry.load(name, &guest(text, Some(common::world(kind)))).expect("it passes");
    match laws::check(&plugin, &common::model(common::VOCABULARY), None) {
        Ok(report) => format!("laws held: {report:?}"),
        Err(error) => {
            println!("    {error}");
            let LoadError::SelfTestFailed { kind, check, .. } = &error else { return error.code().to_owned() };
            format!("laws {kind}, {check}: {}", error.code())
        }
    }
}

/// Opens the guest and makes every call of its kind; the first that fails, or ends the text, is the result.
fn run(registry: &Registry, name: &str, text: &str, expected: &str) -> String {
    let (kind, _) = expected.split_once(',').expect("a kind");
    let bytes = guest(text, Some(common::world(kind)));
    let plugin = match registry.load(name, &bytes) {
        Ok(plugin) => plugin,
        Err(error) => return format!("load: {}: {error}", error.code()),
    };
    let (stage, code) = match kind {
        "acceptance" => acceptance(&plugin),
        "sampling" => sampling(&plugin),
        _ => stopping(&plugin),
    };
    format!("{kind}, {stage}: {code}")
}

fn code(error: &PolicyError) -> String {
    println!("    {error}");
    error.code.clone()
}

/// Failures while the prompt is told count as the stage `commit`.
fn opening_stage(error: &PolicyError, name: &str) -> (&'static str, String) {
    let stage =
        if name.starts_with("loop-in-commit") || name.starts_with("rows-in-commit") { "commit" } else { "open" };
    (stage, code(error))
}

fn acceptance(plugin: &Arc<Plugin>) -> (&'static str, String) {
    let model = common::model(common::VOCABULARY);
    let mut policy = match plugin.open_acceptance(&model, &json!({}), &[1, 2, 3]) {
        Ok(opened) => opened.policy,
        Err(error) => return opening_stage(&error, &plugin.info().name),
    };
    match policy.judge(&common::window(4, 1)) {
        Ok(_) => ("judge", "ok".to_owned()),
        Err(error) => ("judge", code(&error)),
    }
}

fn sampling(plugin: &Arc<Plugin>) -> (&'static str, String) {
    let model = common::model(common::VOCABULARY);
    let mut rule = match plugin.open_sampling(&model, &json!({}), &[1, 2, 3]) {
        Ok(opened) => opened.policy,
        Err(error) => return opening_stage(&error, &plugin.info().name),
    };
    let mut rows: Vec<Row> = (0..3).map(|seed| Row::new(&common::logits(common::VOCABULARY, seed))).collect();
    let mut lent: Vec<&mut Row> = rows.iter_mut().collect();
    let result = rule.apply(&[4, 5], 0, &mut lent);
    assert!(rows.iter().all(|row| row.vocab_size() == common::VOCABULARY as usize), "rows came back");
    let Err(error) = result else { return ("adjust", "ok".to_owned()) };
    assert_eq!(rule.commit(&[1]).map_err(|error| error.code), Err("instance-dead".to_owned()));
    ("adjust", code(&error))
}

fn stopping(plugin: &Arc<Plugin>) -> (&'static str, String) {
    let opened = plugin.open_stopping(&common::model(common::VOCABULARY), &json!({}));
    let mut criterion = match opened {
        Ok(opened) => opened.policy,
        Err(error) => return opening_stage(&error, &plugin.info().name),
    };
    match criterion.observe(&[1, 2], "ab", &[1, 2]) {
        Ok(None) => ("observe", "ok".to_owned()),
        Ok(Some(stop)) => {
            assert_eq!((stop.keep, stop.reason.as_str()), (1, "[31mred "));
            ("observe", "stop".to_owned())
        }
        Err(error) => {
            assert_eq!(criterion.observe(&[1], "a", &[1]).map_err(|e| e.code), Err("instance-dead".to_owned()));
            ("observe", code(&error))
        }
    }
}
