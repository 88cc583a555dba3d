//! `specula generate`: the same tokens whatever the method, and refusals that say what is wrong.

use specula_tests::{METHODS, generate, questions, refused};

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
        (&["--exit-layer", "8"], &["speculation.exit_layer", "1..=7", "8"]),
        (&["--exit-top", "0"], &["speculation.exit_top", "1..=32", "0"]),
        (&["--branch-budget", "65"], &["speculation.branch_budget", "1..=64", "65"]),
        (&["--roots", "tree"], &["speculation.roots", "draft, exit, both", "tree"]),
        (&["--allocation", "fair"], &["speculation.allocation", "scored, per-row", "fair"]),
        (&["--method", "fast"], &["--method", "fast", "mirror"]),
        (&["--max-tokens", "many"], &["--max-tokens", "many"]),
        (&["--max-running", "0"], &["--max-running", "0", "1..=256"]),
        (&["--plugin", "nosuch"], &["nosuch", "balanced-json, min-p, typical"]),
        (&["--plugin", "min-p={"], &["min-p", "not JSON"]),
        (&["--plugin", r#"min-p={"min_p": 2}"#], &["min-p", "min_p", "2"]),
        (&["--target", "nowhere.gguf"], &["nowhere.gguf"]),
        (&["--plugins", "nowhere"], &["--plugins", "nowhere"]),
        (&["--target-device", "cuda:7"], &["--target-device", "cuda:7", "cpu"]),
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
