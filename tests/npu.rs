//! `--draft-device npu:…` as a user runs it: with a device the same text, without one the same text and a reason.

use std::path::{Path, PathBuf};
use std::process::Command;

use specula_tests::{Folder, generate, questions, specula};

/// ONNX Runtime's library; without one there is less to test, and the test says so.
fn library() -> Option<String> {
    let named = std::env::var("SPECULA_ONNXRUNTIME").ok();
    if named.is_none() {
        eprintln!("left out: SPECULA_ONNXRUNTIME names no library; `cargo xtask onnxruntime` installs it");
    }
    named
}

/// A device that computes on the CPU, let in although the kernels are quicker.
fn device<'a>(library: &'a str, cache: &'a Folder) -> [&'a str; 7] {
    ["--draft-device", "npu:cpu", "--onnxruntime", library, "--npu-cache", cache.text(), "--npu-even-if-slower"]
}

#[test]
fn texts_are_the_targets_own_with_an_onnx_draft() {
    let Some(library) = library() else { return };
    let cache = Folder::new();
    let mirror = ["--method", "mirror"];
    let settings: [(&str, &str, Vec<&str>); 5] = [
        ("0", "f32", mirror.into()),
        ("0", "dyn8", [&mirror[..], &["--streams", "2", "--window", "6"]].concat()),
        ("0.8", "f32", [&mirror[..], &["--streams", "1", "--look-ahead", "keep"]].concat()),
        ("0.8", "w8", mirror.into()),
        ("0.8", "f16", vec!["--method", "sps"]),
    ];
    for (temperature, variant, settings) in settings {
        let question = &questions(2)[usize::from(temperature == "0")];
        let common = ["--prompt", question, "--temperature", temperature, "--seed", "5", "--max-tokens", "32"];
        let plain = generate(&[&common[..], &["--method", "none"]].concat());
        let on = [&device(&library, &cache)[..], &["--npu-variant", variant]].concat();
        let got = generate(&[&common[..], &settings, &on].concat());
        assert_eq!(got.tokens, plain.tokens, "{settings:?} {variant} {question}");
        assert!(got.answer.report.lossless && got.answer.report.drafted > 0, "{settings:?}");
    }
}

/// Where their packages are installed: OpenVINO on a CPU, and Qualcomm's HTP as its library emulates it.
#[test]
fn texts_are_the_targets_own_on_other_providers() {
    let named = |name: &str| std::env::var(name).ok();
    let devices = [
        ("npu:openvino:CPU", named("SPECULA_ONNXRUNTIME_OPENVINO"), Some(None)),
        ("npu:qnn", named("SPECULA_ONNXRUNTIME"), named("SPECULA_ONNXRUNTIME_QNN").map(Some)),
    ];
    let common = ["--prompt", &questions(1)[0], "--temperature", "0", "--max-tokens", "12"];
    let plain = generate(&[&common[..], &["--method", "none"]].concat());
    for (name, runtime, plugin) in devices {
        let (Some(runtime), Some(plugin)) = (runtime, plugin) else {
            eprintln!("left out: {name}; `cargo xtask onnxruntime openvino qnn` installs what it needs");
            continue;
        };
        let cache = Folder::new();
        let mut on = device(&runtime, &cache).to_vec();
        on[1] = name;
        on.extend(plugin.iter().flat_map(|plugin| ["--npu-plugin", plugin]));
        let (doctor, _) = told(&[&["doctor"], &on[..]].concat());
        assert!(doctor.contains("rows alike"), "{name}: {doctor}");
        let got = generate(&[&common[..], &["--method", "mirror", "--streams", "1"], &on].concat());
        assert_eq!(got.tokens, plain.tokens, "{name}");
        assert!(got.answer.report.drafted > 0, "{name}");
    }
}

/// The draft is the same model, so its greedy windows are those of the cores, but for rounding.
#[test]
fn an_onnx_draft_is_accepted_as_often_as_the_same_on_cores() {
    let Some(library) = library() else { return };
    let cache = Folder::new();
    let common = ["--prompt", &questions(1)[0], "--temperature", "0", "--max-tokens", "48", "--ignore-eos"];
    let common = [&common[..], &["--method", "sps", "--window", "4"]].concat();
    let on_cores = generate(&common).answer.report.accepted;
    let on_device = generate(&[&common[..], &device(&library, &cache)].concat()).answer.report.accepted;
    assert!(on_cores.abs_diff(on_device) <= on_cores / 5, "{on_cores} and {on_device}");
}

#[test]
fn a_simulated_device_stands_on_an_accelerator_too() {
    let Some(library) = library() else { return };
    let cache = Folder::new();
    let common = ["--prompt", &questions(1)[0], "--temperature", "0", "--max-tokens", "16"];
    let plain = generate(&[&common[..], &["--method", "none"]].concat());
    let mut on = device(&library, &cache);
    on[1] = "simulated:0.5±0.1@npu:cpu";
    assert_eq!(generate(&[&common[..], &["--method", "mirror"], &on].concat()).tokens, plain.tokens);
}

fn told(args: &[&str]) -> (String, String) {
    let output = Command::new(specula()).args(args).output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    assert!(output.status.success(), "{args:?}");
    (text(output.stdout), text(output.stderr))
}

#[test]
fn without_the_library_the_draft_runs_on_the_cpu_and_the_reason_is_told() {
    let common = ["--prompt", "How do I list files?", "--temperature", "0", "--max-tokens", "12"];
    let plain = generate(&[&common[..], &["--method", "none"]].concat());
    let nowhere = ["--method", "mirror", "--draft-device", "npu:qnn", "--onnxruntime", "/nowhere/libonnxruntime.so"];
    let got = generate(&[&common[..], &nowhere].concat());
    assert_eq!(got.tokens, plain.tokens);
    assert!(got.answer.report.drafted > 0, "on the cores");
    let (doctor, _) = told(&[&["doctor"], &nowhere[2..]].concat());
    assert!(doctor.contains("ONNX Runtime is not here") && doctor.contains("pip install"), "{doctor}");
}

#[test]
fn doctor_tells_what_was_tried_and_how_it_went() {
    let Some(library) = library() else { return };
    let cache = Folder::new();
    let slow = ["doctor", "--draft-device", "npu:cpu", "--onnxruntime", &library, "--npu-cache", cache.text()];
    for (args, verdict) in [(&slow[..], None), (&[&slow[..], &["--npu-even-if-slower"]].concat(), Some("rows alike"))] {
        let (doctor, _) = told(args);
        let tried = doctor.lines().find(|line| line.contains("tried")).unwrap_or_else(|| panic!("{doctor}"));
        // Whether ONNX Runtime is quicker than the kernels is the machine's business.
        assert!(tried.contains("npu:cpu") && verdict.is_none_or(|verdict| tried.contains(verdict)), "{tried}");
        assert!(doctor.contains("npu:qnn") && doctor.contains("onnxruntime-qnn"), "{doctor}");
        let by = if tried.contains("npu:cpu drafts") { "computed by npu:cpu, " } else { "computed by kernels" };
        let draft = doctor.split_once("\ndraft ").unwrap_or_else(|| panic!("{doctor}")).1;
        assert!(draft.lines().nth(1).is_some_and(|line| line.contains(by)), "{draft}");
    }
    let hasty = [&slow[..], &["--npu-time-limit", "0"]].concat();
    let (doctor, _) = told(&hasty);
    assert!(doctor.contains("not done after 0 s"), "{doctor}");
}

#[test]
fn an_exported_draft_is_a_folder_that_describes_itself() {
    let folder = Folder::new();
    let out: PathBuf = folder.path().join("draft");
    let (said, _) = told(&["export-draft", "--out", out.to_str().expect("readable"), "--variant", "w8"]);
    assert!(said.contains("graphs") && said.contains("w8"), "{said}");
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("draft.json")).expect("there")).expect("JSON");
    assert_eq!((json["contract"].as_str(), json["streams"].as_u64()), (Some("draft-v1"), Some(2)));
    let there = |name: &serde_json::Value| Path::new(&out).join(name.as_str().expect("a name")).is_file();
    assert!(there(&json["embeddings"]) && there(&json["weights"][0]));
    assert!(
        json["graphs"].as_array().is_some_and(|graphs| graphs.len() > 10 && graphs.iter().all(|g| there(&g["file"])))
    );
}
