//! `specula plugin` as an author uses it. That what it makes also builds, in all languages, is for `cargo xtask authors`.

use std::process::{Command, Output};

use serde_json::Value;
use specula_tests::{Folder, Server, generate, questions, specula};

/// Runs `specula plugin`; gives what it says.
fn plugin(args: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(specula());
    command.arg("plugin").args(args);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SPECULA_")) {
        command.env_remove(name);
    }
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("messages are UTF-8");
    (status.success(), text(stdout), text(stderr))
}

fn succeeds(args: &[&str]) -> String {
    let (done, told, error) = plugin(args);
    assert!(done, "{args:?}: {error}");
    told
}

fn fails(args: &[&str]) -> String {
    let (done, told, error) = plugin(args);
    assert!(!done, "{args:?} was not refused: {told}");
    error
}

fn shipped(name: &str) -> String {
    let path = specula_guests::root().join("target/dist/plugins").join(name).with_extension("wasm");
    path.to_str().expect("readable").to_owned()
}

#[test]
fn new_makes_a_project_for_every_kind_and_language() {
    let folder = Folder::new();
    for (lang, source) in [("rust", "src/lib.rs"), ("js", "KIND.js"), ("python", "KIND.py")] {
        for (kind, world) in [("acceptance", "acceptor"), ("sampling", "sampler"), ("stopping", "stopper")] {
            let name = format!("my-{lang}-{kind}");
            succeeds(&["new", "--kind", kind, "--lang", lang, "--at", folder.text(), &name]);
            let read = |path: &str| {
                let path = folder.path().join(&name).join(path);
                std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            };
            assert!(!read(&source.replace("KIND", kind)).is_empty());
            assert!(read("wit/policy.wit").contains("package specula:policy@"));
            let readme = read("README.md");
            assert!(readme.contains(&name) && readme.contains(kind), "{readme}");
            for place in ["NAME", "KIND", "WORLD", "MODULE"] {
                assert!(!readme.contains(place), "{place} is left in {readme}");
            }
            if lang != "rust" {
                assert!(readme.contains(world) || read("package.json").contains(world));
            }
        }
    }
    let again = fails(&["new", "--kind", "stopping", "--at", folder.text(), "my-rust-stopping"]);
    assert!(again.contains("is there already"), "{again}");
    assert!(fails(&["new", "--kind", "stopping", "No Name"]).contains("a-z, 0-9 and -"));
}

#[test]
fn check_says_what_a_server_would() {
    let told = succeeds(&["check", &shipped("typical")]);
    assert!(
        told.contains("passes: acceptance") && told.contains("stamp        lossy") && told.contains("judge"),
        "{told}"
    );
    let report: Value = serde_json::from_str(&succeeds(&["check", "--json", &shipped("min-p")])).expect("JSON");
    assert!(report["costs"].as_array().is_some_and(|costs| !costs.is_empty()), "{report}");
    let folder = Folder::with_guests(&["wasi-import", "loop-in-judge", "memory64"]);
    for (guest, words) in [("wasi-import", "no WASI"), ("loop-in-judge", "used up"), ("memory64", "feature")] {
        let file = folder.path().join(guest).with_extension("wasm");
        let error = fails(&["check", file.to_str().expect("readable")]);
        assert!(error.contains("would be refused") && error.contains(words), "{error}");
    }
    let config = fails(&["check", "--config", "{", &shipped("min-p")]);
    assert!(config.contains("--config {"), "{config}");
    let unsuited = fails(&["check", "--config", r#"{"min_p": 2}"#, &shipped("min-p")]);
    assert!(unsuited.contains("bad-config") && unsuited.contains("give a configuration that suits it"), "{unsuited}");
}

#[test]
fn run_replays_a_window_that_generate_recorded() {
    let folder = Folder::new();
    let window = folder.path().join("window.json");
    let window = window.to_str().expect("readable");
    let args = [
        "--prompt",
        &questions(1)[0],
        "--seed",
        "4",
        "--temperature",
        "0.8",
        "--max-tokens",
        "24",
        "--method",
        "sps",
        "--window",
        "4",
    ];
    let bare = generate(&args);
    let recorded = generate(&[&args[..], &["--record-window", window]].concat());
    assert_eq!(recorded.tokens, bare.tokens, "who watches changes nothing");
    let file: Value = serde_json::from_slice(&std::fs::read(window).expect("written")).expect("JSON");
    let rounds = file["rounds"].as_array().expect("rounds");
    let committed: Vec<u64> =
        rounds.iter().flat_map(|r| r["committed"].as_array().expect("tokens")).filter_map(Value::as_u64).collect();
    assert_eq!(committed, bare.tokens[..committed.len()]);
    assert!(rounds.iter().any(|round| round["draft"].as_array().is_some_and(|draft| draft.len() == 4)));

    let calls: Value =
        serde_json::from_str(&succeeds(&["run", "--json", "--window", window, &shipped("typical")])).expect("JSON");
    let judged = calls.as_array().expect("calls").iter().filter(|call| call["function"] == "judge").count();
    assert_eq!(judged, rounds.iter().filter(|round| round["draft"] != Value::Array(Vec::new())).count());
    let told = succeeds(&["run", "--config", r#"{"min_p": 0.9}"#, "--window", window, &shipped("min-p")]);
    assert!(told.contains("sampling adjust") && told.contains("same best"), "{told}");
    let told = succeeds(&["run", &shipped("balanced-json")]);
    assert!(told.contains("stopping observe"), "{told}");
    let error = fails(&["run", "--config", r#"{"min_p": 9}"#, &shipped("min-p")]);
    assert!(error.contains("bad-config"), "{error}");
    folder.write("broken.json", b"{}");
    let broken = folder.path().join("broken.json");
    assert!(fails(&["run", "--window", broken.to_str().expect("readable"), &shipped("min-p")]).contains("not usable"));
}

#[test]
fn push_list_and_rm_manage_a_server_s_plugins() {
    let data = Folder::new();
    let server = Server::start(&["--data", data.text()]);
    let url = server.url("");
    let told = succeeds(&["push", "--server", &url, "--name", "mine", "--shared", &shipped("typical")]);
    assert!(told.contains("mine version 1, shared") && told.contains("stamp        lossy"), "{told}");
    let list = succeeds(&["list", "--server", &url]);
    assert!(list.contains("mine") && list.contains("local, shared") && list.contains("lossy"), "{list}");
    assert!(list.contains("the operator's"), "{list}");
    succeeds(&["rm", "--server", &url, "mine"]);
    assert!(fails(&["rm", "--server", &url, "mine"]).contains("unknown-plugin"));
    assert!(fails(&["push", "--server", &url, &shipped("typical")]).contains("name-taken"));
    assert!(fails(&["list", "--server", "https://127.0.0.1:1"]).contains("http://"));
}
