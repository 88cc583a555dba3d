//! `specula bench`: what its files hold, on runs too small to say anything about speed.

use serde_json::{Value, json};
use specula_tests::{Folder, bench, refused_bench};

const SMALL: [&str; 4] = ["--max-tokens", "12", "--temperature", "0"];

fn read(folder: &Folder, file: &str) -> String {
    std::fs::read_to_string(folder.path().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn summary(folder: &Folder) -> Value {
    serde_json::from_str(&read(folder, "summary.json")).expect("JSON")
}

fn answers(folder: &Folder) -> Vec<Value> {
    read(folder, "answers.jsonl").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn every_file_tells_of_a_padded_target_and_of_every_part() {
    let args = ["--questions", "2", "--methods", "lookup,sps,mirror", "--ablation", "--pad-target", "16"];
    let folder = bench(&[&args[..], &SMALL].concat());
    let summary = summary(&folder);
    let target = &summary["conditions"]["target"];
    assert_eq!((target["layers"].as_u64(), target["sha256"].as_str().map(str::len)), (Some(16), Some(64)));
    assert!(target["name"].as_str().is_some_and(|name| name.contains("padded to 16 layers")), "{target}");
    for (condition, value) in
        [("seed", json!(1)), ("max_tokens", json!(12)), ("questions", json!(2)), ("turns", json!(2))]
    {
        assert_eq!(summary["conditions"][condition], value, "{condition}");
    }
    let methods = summary["methods"].as_array().expect("methods");
    let named = |name: &str| methods.iter().find(|line| line["method"] == name).unwrap_or_else(|| panic!("{name}"));
    for name in ["none", "lookup", "sps", "mirror", "mirror:roots=draft", "mirror:roots=exit", "mirror:roots=both"] {
        let line = named(name);
        assert_eq!(
            (&line["lossless"], &line["differing"], &line["answers"]),
            (&json!(true), &json!(0), &json!(2)),
            "{name}"
        );
        for key in ["tokens_per_second", "speedup", "acceptance_length", "exposed_draft_fraction"] {
            assert!(line[key].as_f64().is_some_and(f64::is_finite), "{name}: {key} in {line}");
        }
    }
    assert_eq!(named("none")["speedup"], 1.0);
    assert_eq!(named("none")["hit_rate"], Value::Null);
    let mirror = named("mirror");
    let exit = mirror["settings"]["exit_layer"].as_u64().expect("an exit");
    assert!(exit.is_multiple_of(2), "{exit}: exits of the 8 own layers stand behind every second of the 16");
    assert!(mirror["hit_rate"].is_number() && !mirror["accepted_by_position"].as_array().expect("shares").is_empty());
    let steps: Vec<&str> =
        summary["ablation"].as_array().expect("steps").iter().filter_map(|s| s["step"].as_str()).collect();
    let parts = ["serial draft", "draft roots", "exit roots", "both roots", "both roots and streams", "infinite draft"];
    assert_eq!(steps, parts);
    assert_eq!(summary["mirrors"].as_array().map(Vec::len), Some(1), "one draft at one temperature");
    assert_eq!(answers(&folder).len(), 2 * methods.len());
    let table = read(&folder, "table.md");
    assert!(table.contains("padded to 16 layers") && table.contains("| 0 | mirror | as it is |"), "{table}");
    let page = read(&folder, "report.html");
    assert!(page.contains("padded to 16 layers") && page.contains("<svg"));
    for foreign in ["<script", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(foreign), "the page needs nothing else: {foreign}");
    }
}

#[test]
fn questions_of_spec_bench_are_asked_turn_by_turn_and_cut_to_fit() {
    let long = "Summarise: ".to_owned() + &"the quick brown fox jumps over the lazy dog. ".repeat(400);
    let lines = [
        json!({"question_id": 81, "category": "writing", "turns": ["Write a line about tar.", "And one about gzip."]}),
        json!({"question_id": 300, "category": "summarization", "turns": [long]}),
    ];
    let folder = Folder::new();
    folder.write("questions.jsonl", lines.map(|line| line.to_string()).join("\n").as_bytes());
    let file = folder.path().join("questions.jsonl");
    let asked = ["--suite", "spec-bench", file.to_str().expect("UTF-8"), "--methods", "sps", "--target-format", "f32"];
    let folder = bench(&[&asked[..], &SMALL].concat());
    let answers = answers(&folder);
    assert_eq!(answers.len(), 4, "two questions to two methods");
    for answer in &answers {
        let choice = &answer["choices"][0];
        let turns = if answer["question_id"] == 81 { 2 } else { 1 };
        for list in ["turns", "decoding_steps", "new_tokens", "wall_time"] {
            assert_eq!(choice[list].as_array().map(Vec::len), Some(turns), "{list} of {answer}");
        }
        let sum = |list: &str| choice[list].as_array().expect("numbers").iter().filter_map(Value::as_u64).sum::<u64>();
        assert_eq!(sum("accept_lengths"), sum("new_tokens"), "every token came with a pass");
        let passes = choice["accept_lengths"].as_array().map(|lengths| lengths.len() as u64);
        assert_eq!(passes, Some(sum("decoding_steps")));
        assert_eq!(answer["cut"].as_array().expect("turns")[0], json!(answer["question_id"] == 300));
    }
    let summary = summary(&folder);
    let conditions = &summary["conditions"];
    assert_eq!(
        (&conditions["turns"], &conditions["cut_turns"], &conditions["skipped_turns"]),
        (&json!(3), &json!(1), &json!(0))
    );
    assert!(conditions["target"]["name"].as_str().is_some_and(|name| name.ends_with(", f32")), "{conditions}");
    let tasks: Vec<&Value> =
        summary["tasks"][0]["tasks"].as_array().expect("tasks").iter().map(|t| &t["task"]).collect();
    assert_eq!(tasks, ["mt_bench", "summarization"]);
}

#[test]
fn refusals_say_what_there_is() {
    for (args, named) in [
        (&["--suite", "mt-bench"][..], &["mt-bench", "embedded", "spec-bench FILE", "kernels"][..]),
        (&["--suite", "spec-bench", "nowhere.jsonl"], &["nowhere.jsonl"]),
        (&["--methods", "merlin"], &["merlin", "mirror"]),
        (&["--draft-latency", "5"], &["`5`", "5%"]),
        (&["--pad-target", "4"], &["8 layers", "8..=1024", "4"]),
        (&["--max-tokens", "1024"], &["--max-tokens", "1024"]),
        (&["--setting", "two-devices", "--target-device", "cpu:0"], &["--setting", "--target-device"]),
        (&["--questions", "0"], &["--questions", "0"]),
    ] {
        let told = refused_bench(args);
        for name in named {
            assert!(told.contains(name), "{args:?}: `{name}` is not named in {told}");
        }
    }
}
