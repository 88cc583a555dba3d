//! The promise on the embedded pair: token for token what the target alone gives, whatever speculates. The full matrix is
//! `specula bench`'s business; this is a dozen questions of it.

mod common;

use std::sync::LazyLock;

use common::{ask, engine, generate, plugin, questions};
use serde_json::json;
use specula_decoding::FinishReason;
use specula_engine::{Engine, LogProbsSpec, OutputFormat, RequestSpec};

/// One for all tests of this file: two of them at once would fight for the cores.
static ENGINE: LazyLock<Engine> = LazyLock::new(|| engine(4));

type Change = fn(&mut RequestSpec);

const METHODS: [(&str, Change); 14] = [
    ("auto", |_| ()),
    ("recycling", |_| ()),
    ("recycling", |spec| {
        spec.speculation.window = Some(6);
        spec.speculation.branch_budget = Some(24);
    }),
    ("recycling", |spec| spec.deterministic = true),
    ("ssd", |_| ()),
    ("sps", |_| ()),
    ("lookup", |_| ()),
    ("lookup", |spec| spec.speculation.window = Some(12)),
    ("mirror", |_| ()),
    ("mirror", |spec| {
        spec.speculation.window = Some(7);
        spec.speculation.branch_budget = Some(16);
        spec.speculation.roots = Some("exit".into());
    }),
    ("mirror", |spec| {
        spec.speculation.window = Some(2);
        spec.speculation.roots = Some("draft".into());
        spec.speculation.allocation = Some("per-row".into());
        spec.deterministic = true;
    }),
    ("sps", |spec| look_ahead(spec, 2, "correct")),
    ("mirror", |spec| look_ahead(spec, 1, "keep")),
    ("mirror", |spec| {
        spec.speculation.window = Some(7);
        spec.deterministic = true;
        look_ahead(spec, 2, "correct");
    }),
];

fn look_ahead(spec: &mut RequestSpec, streams: u64, how: &str) {
    spec.speculation.streams = Some(streams);
    spec.speculation.look_ahead = Some(how.into());
}

/// Each question at each temperature, every method against `none`. Returns the tokens compared.
fn compare(questions: &[String], change: Change) -> usize {
    let mut compared = 0;
    for (i, question) in questions.iter().enumerate() {
        let temperature = [0.0, 0.7, 1.0][i % 3];
        let asked = |method: &str| {
            let mut spec = ask(&ENGINE, question, method);
            spec.temperature = Some(temperature);
            spec.seed = Some(i as u64);
            change(&mut spec);
            spec
        };
        let plain = generate(&ENGINE, &asked("none"));
        for (method, settings) in METHODS {
            let mut spec = asked(method);
            settings(&mut spec);
            let said = generate(&ENGINE, &spec);
            let what = format!("{:?}, temperature {temperature}, `{question}`", spec.speculation);
            assert_eq!(said.tokens(), plain.tokens(), "{what}");
            assert_eq!(said.text(), plain.text(), "{what}");
            assert_eq!(said.logprobs(), plain.logprobs(), "{what}");
            assert_eq!(said.finished.reason, plain.finished.reason, "{what}");
            assert_eq!(said.finished.completion_tokens, plain.finished.completion_tokens, "{what}");
            assert!(said.finished.report.lossless(), "{what}");
            compared += said.tokens().len();
        }
    }
    compared
}

#[test]
fn every_method_gives_the_targets_own_text() {
    assert!(compare(&questions(12), |_| ()) > 1000);
}

#[test]
fn with_every_sampling_parameter_and_a_sampling_plugin() {
    let compared = compare(&questions(6), |spec| {
        spec.top_k = Some(40);
        spec.top_p = Some(0.9);
        spec.min_p = Some(0.01);
        spec.logit_bias = vec![(300, 2.0), (301, -100.0)];
        spec.repetition_penalty = Some(1.1);
        spec.presence_penalty = Some(0.2);
        spec.frequency_penalty = Some(0.3);
        spec.stop = vec!["never in the text".into(), ". ".into()];
        spec.plugins = vec![plugin("min-p", json!({"min_p": 0.05}))];
    });
    assert!(compared > 100, "{compared}");
}

#[test]
fn with_several_rules_and_criteria_in_order() {
    let compared = compare(&questions(3), |spec| {
        spec.plugins = vec![
            plugin("dry", json!({"allowed": 1})),
            plugin("watermark", json!({"key": 7, "delta": 1.0})),
            plugin("top-n-sigma", json!({"n": 1.5})),
            plugin("repetition", json!({"times": 2, "tokens": 8})),
            plugin("budget", json!({"tokens": 16})),
        ];
    });
    assert!(compared > 100, "{compared}");
    let compared = compare(&questions(3), |spec| {
        spec.plugins = vec![plugin("regex", json!({"pattern": "([A-Za-z ]+[.,:]\\n?)+"}))];
    });
    assert!(compared > 100, "{compared}");
}

/// The grammar's state follows every window and comes back.
#[test]
fn with_a_format() {
    let change: Change = |spec| {
        spec.max_tokens = Some(80);
        spec.format = Some(OutputFormat::JsonSchema(json!({
            "type": "object",
            "properties": {
                "command": {"type": "string", "maxLength": 12},
                "safe": {"type": "boolean"},
                "levels": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "maxItems": 3}
            },
            "required": ["command", "safe", "levels"],
            "additionalProperties": false
        })));
    };
    assert!(compare(&questions(3), change) > 100);
    for question in questions(3) {
        let mut spec = ask(&ENGINE, &question, "mirror");
        change(&mut spec);
        // The schema bounds every part, and the grammar the blanks between them.
        spec.max_tokens = Some(600);
        let said = generate(&ENGINE, &spec);
        let text = said.text();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(value["command"].is_string() && value["safe"].is_boolean() && value["levels"].is_array(), "{text}");
        assert_eq!(said.finished.reason, Some(FinishReason::EndToken));
    }
}

/// A policy that would keep anything changes nothing where only exact answers are wanted, and nothing forbidden is kept.
#[test]
fn exactness_does_not_rest_on_acceptance_policies() {
    let lenient = || vec![plugin("top-k-lenient", json!({"k": 64, "ratio": 0.0}))];
    let compared = compare(&questions(3), |spec| {
        spec.exact_only = true;
        spec.plugins = vec![plugin("top-k-lenient", json!({"k": 64, "ratio": 0.0}))];
    });
    assert!(compared > 100, "{compared}");
    let mut deviations = 0;
    for (i, question) in questions(4).iter().enumerate() {
        let mut spec = ask(&ENGINE, question, "sps");
        (spec.temperature, spec.seed, spec.plugins) = (Some(1.0), Some(i as u64), lenient());
        deviations += generate(&ENGINE, &spec).finished.report.totals.deviations;
        spec.format =
            Some(OutputFormat::JsonSchema(json!({"type": "array", "items": {"enum": ["a", 1]}, "maxItems": 9})));
        let text = generate(&ENGINE, &spec).text();
        assert!(text.starts_with('[') || text.trim_start().starts_with('['), "{text}");
    }
    assert!(deviations > 0, "it would keep anything");
}

/// Ends and choices that the rounds know nothing of, and log-probabilities as far as their last bit.
#[test]
fn with_ends_choices_and_log_probabilities() {
    let compared = compare(&questions(6), |spec| {
        spec.choice = 2;
        spec.min_tokens = Some(12);
        spec.stop = vec![".".into(), "e".into()];
        spec.logprobs = Some(LogProbsSpec { top: 3, processed: false });
    });
    assert!(compared > 300, "{compared}");
    let compared = compare(&questions(6), |spec| {
        spec.ignore_eos = true;
        spec.top_p = Some(0.9);
        spec.logprobs = Some(LogProbsSpec { top: 0, processed: true });
    });
    assert_eq!(compared, 6 * METHODS.len() * 32, "nothing but `max_tokens` ends these");
}

/// Corrected look-ahead proposes what a draft without streams does; kept look-ahead takes fewer steps.
#[test]
fn look_ahead_changes_steps_and_if_corrected_nothing_else() {
    for (i, question) in questions(4).iter().enumerate() {
        let totals = |change: Change| {
            let mut spec = ask(&ENGINE, question, "sps");
            spec.temperature = Some([0.0, 1.0][i % 2]);
            spec.speculation.window = Some(6);
            spec.ignore_eos = true;
            change(&mut spec);
            generate(&ENGINE, &spec).finished.report.totals
        };
        let plain = totals(|_| ());
        let corrected = totals(|spec| look_ahead(spec, 2, "correct"));
        assert_eq!((plain.rounds, plain.drafted), (corrected.rounds, corrected.drafted));
        assert_eq!(plain.by_position, corrected.by_position);
        assert!(corrected.draft_steps <= plain.draft_steps, "{corrected:?}");
        let kept = totals(|spec| look_ahead(spec, 2, "keep"));
        assert!(kept.draft_steps * 2 <= kept.drafted, "{} steps for {} tokens", kept.draft_steps, kept.drafted);
    }
}

/// Neighbours take turns round by round; nobody's text depends on them.
#[test]
fn neighbours_do_not_matter() {
    let specs: Vec<RequestSpec> = questions(4)
        .iter()
        .zip(["mirror", "sps", "lookup", "mirror"])
        .map(|(question, method)| ask(&ENGINE, question, method))
        .collect();
    let alone: Vec<Vec<u32>> = specs.iter().map(|spec| generate(&ENGINE, spec).tokens()).collect();
    let streams: Vec<_> = specs.iter().map(|spec| common::submit(&ENGINE, spec)).collect();
    let together: Vec<Vec<u32>> = streams.into_iter().map(|stream| common::listen(stream).tokens()).collect();
    assert_eq!(together, alone);
}
