//! `specula generate`: the same tokens whatever the method, and refusals that say what is wrong.

use std::collections::BTreeMap;

use serde_json::Value;
use specula_tests::{Folder, METHODS, generate, questions, refused};

/// A mirror unlike the default one in every setting.
const OTHER_MIRROR: [&str; 14] = [
    "--method",
    "mirror",
    "--window",
    "7",
    "--exit-layer",
    "6",
    "--exit-top",
    "2",
    "--branch-budget",
    "16",
    "--roots",
    "exit",
    "--allocation",
    "per-row",
];

#[test]
fn greedy_tokens_do_not_depend_on_the_method() {
    same_in_every_method("0");
}

#[test]
fn sampled_tokens_do_not_depend_on_the_method() {
    same_in_every_method("0.7");
}

#[test]
fn tokens_of_the_bare_distribution_do_not_depend_on_the_method() {
    same_in_every_method("1.0");
}

fn same_in_every_method(temperature: &str) {
    for (question, seed) in questions(2).iter().zip(["1", "2"]) {
        let common = ["--prompt", question, "--temperature", temperature, "--seed", seed, "--max-tokens", "32"];
        let plain = generate(&[&common[..], &["--method", "none"]].concat());
        assert_eq!(plain.tokens.len() as u64, plain.answer.tokens());
        let methods = METHODS.iter().skip(1).map(|method| vec!["--method", method]);
        for settings in methods.chain([OTHER_MIRROR.to_vec()]) {
            let other = generate(&[&common[..], &settings].concat());
            assert_eq!(other.tokens, plain.tokens, "{settings:?}, {question}");
            assert_eq!(other.answer.text, plain.answer.text, "{settings:?}, {question}");
            assert_eq!(other.answer.finish_reason, plain.answer.finish_reason, "{settings:?}, {question}");
            assert_eq!(other.answer.usage, plain.answer.usage, "{settings:?}, {question}");
            let report = &other.answer.report;
            assert!(report.lossless && report.row_invariant && report.deviations == 0, "{settings:?}");
            assert_eq!(report.settings.method, settings[1]);
        }
    }
}

#[test]
fn what_is_asked_of_the_mirror_is_in_force() {
    let asked = [&["--prompt", "How do I list files?", "--temperature", "0", "--max-tokens", "24"], &OTHER_MIRROR[..]];
    let settings = generate(&asked.concat()).answer.report.settings;
    assert_eq!((settings.window, settings.exit_layer, settings.exit_top), (7, Some(6), Some(2)));
    assert_eq!(settings.branch_budget, Some(16));
    assert_eq!((settings.roots.as_deref(), settings.allocation.as_deref()), (Some("exit"), Some("per-row")));
}

#[test]
fn rounds_add_up_to_the_answer() {
    let got = generate(&["--prompt", &questions(1)[0], "--seed", "3", "--max-tokens", "32", "--method", "sps"]);
    let rounds = got.json["rounds"].as_array().expect("rounds");
    let sum = |field: &str| rounds.iter().map(|round| round[field].as_u64().expect("a count")).sum::<u64>();
    let report = &got.answer.report;
    assert_eq!((rounds.len() as u64, sum("accepted"), sum("window")), (report.rounds, report.accepted, report.drafted));
    let (_, all_but_last) = rounds.split_last().expect("at least one round");
    for round in all_but_last {
        let tokens = round["tokens"].as_array().expect("tokens").len() as u64;
        assert_eq!(round["accepted"], tokens - 1, "one token of the target's follows those accepted");
    }
    let tokens = rounds.iter().flat_map(|round| round["tokens"].as_array().expect("tokens"));
    let text: String = tokens.map(|token| token["text"].as_str().expect("text")).collect();
    assert_eq!(text, got.answer.text);
}

#[test]
fn a_trace_holds_every_lane_in_order() {
    let folder = Folder::new();
    let file = folder.path().join("trace.json");
    let asked = ["--prompt", &questions(1)[0], "--seed", "3", "--temperature", "0", "--max-tokens", "32"];
    let mirror = ["--method", "mirror", "--plugin", r#"min-p={"min_p": 0.01}"#, "--plugin", "typical"];
    let got = generate(&[&asked[..], &mirror, &["--trace", file.to_str().expect("UTF-8")]].concat());
    let trace: Value = serde_json::from_slice(&std::fs::read(&file).expect("a trace")).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events");
    let mut names = BTreeMap::new();
    // Per lane: begin, end, round.
    let mut lanes: BTreeMap<&str, Vec<(u64, u64, u64)>> = BTreeMap::new();
    for event in events {
        let name = |of: &'static str| event["args"][of].as_str().expect("a name");
        match event["ph"].as_str().expect("a phase") {
            "M" if event["name"] == "thread_name" => drop(names.insert(event["tid"].as_u64(), name("name"))),
            "M" => {}
            "X" => {
                let number = |value: &Value| value.as_u64().expect("a number");
                let (begin, long) = (number(&event["ts"]), number(&event["dur"]));
                let lane = names[&event["tid"].as_u64()];
                lanes.entry(lane).or_default().push((begin, begin + long, number(&event["args"]["round"])));
            }
            other => panic!("an event of phase {other}"),
        }
    }
    assert_eq!(lanes.keys().collect::<Vec<_>>(), {
        let mut named: Vec<_> = names.values().collect();
        named.sort();
        named
    });
    assert_eq!(lanes["rounds"].len() as u64, got.answer.report.rounds);
    for (lane, spans) in &lanes {
        // Messages may cross: a pass may begin before the exit of the last one was taken up.
        let ordered = *lane == "channel" || spans.is_sorted_by(|a, b| a.1 <= b.0 && a.2 <= b.2);
        assert!(ordered, "{lane}: {spans:?}");
    }
    let within = |outer: &str, inner: &str| {
        for (begin, end, round) in &lanes[inner] {
            let around = lanes[outer].iter().find(|o| o.2 == *round).expect("of every round");
            assert!(around.0 <= *begin && *end <= around.1, "{inner} {begin}..{end} is not within {outer} {around:?}");
        }
    };
    for lane in ["target: layers to the exit", "target: exit", "target: layers after the exit", "target: accept"] {
        within("rounds", lane);
    }
    within("target: accept", "target: policy calls");
    for (prefix, exit) in lanes["target: layers to the exit"].iter().zip(&lanes["target: exit"]) {
        assert_eq!((prefix.1, prefix.2), (exit.0, exit.2), "the exit follows the first layers");
    }
    let said = |name: &str| events.iter().filter(|event| event["name"] == name).count() as u64;
    assert!(said("proposal") >= got.answer.report.rounds, "every round asks the draft for a window");
    assert_eq!(said("verdict"), got.answer.report.rounds - 1, "every round but the last is told to the draft");
}

#[test]
fn seeds_matter_and_are_told() {
    let ask = |seed: &[&str]| generate(&[&["--prompt", "How do I use tar?", "--max-tokens", "16"], seed].concat());
    let (one, two) = (ask(&["--seed", "1"]), ask(&["--seed", "2"]));
    assert_ne!(one.tokens, two.tokens, "at temperature 1 another seed gives another text");
    let picked = ask(&[]);
    let again = ask(&["--seed", &picked.answer.report.seed.to_string()]);
    assert_eq!(picked.tokens, again.tokens, "a seed that was picked is told and reproduces");
}

#[test]
fn refusals_name_field_bound_and_value() {
    for (args, named) in [
        (&["--temperature", "2.5"][..], &["temperature", "0..=2", "2.5"][..]),
        (&["--top-p", "0"], &["top_p", "above 0", "0"]),
        (&["--seed", "9007199254740992"], &["seed", "9007199254740991", "9007199254740992"]),
        (&["--max-tokens", "0"], &["max_tokens", "at least 1"]),
        (&["--window", "17"], &["speculation.window", "0..=16", "17"]),
        (&["--method", "mirror", "--exit-layer", "8"], &["speculation.exit_layer", "1..=7", "8"]),
        (&["--method", "mirror", "--exit-top", "0"], &["speculation.exit_top", "1..=32", "0"]),
        (&["--method", "mirror", "--branch-budget", "65"], &["speculation.branch_budget", "1..=64", "65"]),
        (&["--method", "mirror", "--roots", "tree"], &["speculation.roots", "draft, exit, both", "tree"]),
        (&["--method", "mirror", "--allocation", "fair"], &["speculation.allocation", "scored, per-row", "fair"]),
        (&["--exit-layer", "2"], &["speculation.exit_layer", "`auto`"]),
        (&["--method", "fast"], &["--method", "fast", "mirror"]),
        (&["--max-tokens", "many"], &["--max-tokens", "many"]),
        (&["--max-running", "0"], &["--max-running", "0", "1..=256"]),
        (&["--plugin", "nosuch"], &["nosuch", "balanced-json, budget, dry"]),
        (&["--plugin", "min-p={"], &["min-p", "not JSON"]),
        (&["--plugin", r#"min-p={"min_p": 2}"#], &["min-p", "min_p", "2"]),
        (&["--target", "nowhere.gguf"], &["nowhere.gguf"]),
        (&["--plugins", "nowhere"], &["--plugins", "nowhere"]),
        (&["--target-device", "rocm:7"], &["--target-device", "rocm:7", "cpu"]),
        (&["--text", "x"], &["--prompt", "--text"]),
        (&["--speed", "9"], &["--speed"]),
    ] {
        let told = refused(&[&["--prompt", "x"], args].concat());
        for name in named {
            assert!(told.contains(name), "{args:?}: `{name}` is not named in {told}");
        }
    }
    assert!(refused(&[]).contains("--prompt"), "what is missing is named");
}
