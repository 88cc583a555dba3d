//! Models by the hub's id, from a hub on this machine: what is fetched, kept and checked, and what is said when it cannot be.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use specula_tests::{Asked, Folder, Hub, generate, tiny_model};

/// Common to all runs: a short greedy answer of the target alone.
const ANSWER: [&str; 8] =
    ["--method", "none", "--temperature", "0", "--max-tokens", "8", "--prompt", "How do I list files?"];

fn draft() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../native/weights/draft.gguf")
}

/// A hub with the embedded draft as `tiny/pair`'s one file.
async fn hub() -> Hub {
    let hub = Hub::start().await;
    hub.put("tiny/pair", "draft.gguf", std::fs::read(draft()).expect("the draft"));
    hub.put("tiny/pair", "README.md", "A pair.");
    hub
}

fn asking(hub: &Hub, target: &str) -> Command {
    hub.client(&[&["generate", "--json", "--target", target], &ANSWER[..]].concat())
}

fn tokens(output: &Output) -> Vec<u64> {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {told}", output.status);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else on stdout");
    json["tokens"].as_array().expect("tokens").iter().map(|id| id.as_u64().expect("an id")).collect()
}

fn said(output: &Output) -> String {
    assert!(!output.status.success(), "it was not refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn by_path() -> Vec<u64> {
    let path = draft();
    generate(&[&["--target", path.to_str().expect("UTF-8")], &ANSWER[..]].concat()).tokens
}

/// Requests for bytes of large files.
fn large(asked: &[Asked]) -> Vec<Asked> {
    // Sizes are asked for by a first byte alone.
    asked.iter().filter(|a| a.path.starts_with("/large/") && a.range.as_deref() != Some("bytes=0-0")).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_fetched_once() {
    let hub = hub().await;
    let mut first = asking(&hub, "tiny/pair:draft.gguf");
    first.env("HF_TOKEN", "hf_secret");
    assert_eq!(tokens(&hub.run(first).await), by_path());
    let asked = hub.asked();
    assert_eq!(large(&asked).len(), 1);
    assert!(!asked.iter().any(|a| a.path.ends_with("README.md")), "only what is needed");
    assert_eq!(asked[0].authorization.as_deref(), Some("Bearer hf_secret"));
    // The only GGUF file needs no name; and it is there already.
    assert_eq!(tokens(&hub.run(asking(&hub, "tiny/pair")).await), by_path());
    assert_eq!(hub.asked().iter().map(|a| &*a.path).collect::<Vec<_>>(), ["/api/models/tiny/pair/revision/main"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_fetched_and_bears_its_name() {
    let hub = hub().await;
    for (file, content) in tiny_model("llama") {
        hub.put("tiny/llama", file, content);
    }
    for other in ["README.md", "original/model.safetensors", "consolidated.safetensors", "pytorch_model.bin"] {
        hub.put("tiny/llama", other, "not wanted");
    }
    let text =
        ["generate", "--json", "--target", "tiny/llama", "--temperature", "0", "--max-tokens", "8", "--text", "x"];
    assert_eq!(tokens(&hub.run(hub.client(&text)).await).len(), 8);
    let asked = hub.asked();
    for unwanted in ["README.md", "original/", "consolidated", ".bin"] {
        assert!(!asked.iter().any(|a| a.path.contains(unwanted)), "{unwanted}: {asked:?}");
    }
    let told = hub.run(hub.client(&["doctor", "--target", "tiny/llama"])).await;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("tiny/llama (llama, 2 layers"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_broke_off_goes_on() {
    let hub = hub().await;
    let size = std::fs::metadata(draft()).expect("the draft").len() as usize;
    hub.cut_at(Some(size / 3));
    let refused = said(&hub.run(asking(&hub, "tiny/pair")).await);
    assert!(refused.contains("broke off after") && refused.contains("goes on from there"), "{refused}");
    let starts = |asked: &[Asked]| -> Vec<usize> {
        let start = |a: &Asked| a.range.as_deref()?.strip_prefix("bytes=")?.split('-').next()?.parse().ok();
        large(asked).iter().map(|a| start(a).expect("a range")).collect()
    };
    let tried = starts(&hub.asked());
    assert_eq!(tried[0], 0);
    assert!(tried.len() > 1 && tried[1..].iter().all(|from| *from == size / 3), "{tried:?}");
    hub.cut_at(None);
    assert_eq!(tokens(&hub.run(asking(&hub, "tiny/pair")).await), by_path());
    assert_eq!(starts(&hub.asked()), [size / 3], "what was there is not fetched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_checksums_are_refused() {
    let hub = hub().await;
    hub.lies(true);
    let refused = said(&hub.run(asking(&hub, "tiny/pair")).await);
    for part in ["`draft.gguf` was fetched and thrown away", "SHA-256", "try again"] {
        assert!(refused.contains(part), "`{part}` is not in: {refused}");
    }
    hub.lies(false);
    hub.asked();
    assert_eq!(tokens(&hub.run(asking(&hub, "tiny/pair")).await), by_path());
    assert_eq!(large(&hub.asked()).len(), 1, "nothing of it was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said() {
    let hub = hub().await;
    hub.put("tiny/pair", "other.gguf", "GGUF");
    hub.put("tiny/pickled", "pytorch_model.bin", "…");
    for (id, parts) in [
        ("tiny/none", &["no model `tiny/none`", "HF_TOKEN"][..]),
        ("tiny/pair", &["several GGUF files", "draft.gguf, other.gguf", "tiny/pair:draft.gguf"]),
        ("tiny/pair:q8.gguf", &["no `q8.gguf`", "draft.gguf, other.gguf"]),
        ("tiny/pickled", &["neither safetensors nor GGUF", "`pytorch_model.bin`"]),
    ] {
        let refused = said(&hub.run(asking(&hub, id)).await);
        for part in parts.iter().chain(&["is no file or folder here"]) {
            assert!(refused.contains(part), "`{part}` is not in: {refused}");
        }
    }
    assert!(large(&hub.asked()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_network_the_cache_serves() {
    let hub = hub().await;
    let nowhere = |mut command: Command| {
        // A port of this machine that nobody listens on.
        command.env("HF_ENDPOINT", "http://127.0.0.1:9");
        command
    };
    let refused = said(&hub.run(nowhere(asking(&hub, "tiny/pair:draft.gguf"))).await);
    assert!(refused.contains("the hub cannot be reached"), "{refused}");
    let want = tokens(&hub.run(asking(&hub, "tiny/pair:draft.gguf")).await);
    let output = hub.run(nowhere(asking(&hub, "tiny/pair:draft.gguf"))).await;
    assert_eq!(tokens(&output), want);
    assert!(String::from_utf8_lossy(&output.stderr).contains("as it was when it was fetched"));
    hub.asked();
    let mut offline = asking(&hub, "tiny/pair:draft.gguf");
    offline.env("HF_HUB_OFFLINE", "1");
    assert_eq!(tokens(&hub.run(offline).await), want);
    assert!(hub.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_comes_first() {
    let hub = hub().await;
    let here = Folder::new();
    std::fs::create_dir(here.path().join("tiny")).expect("a folder");
    std::fs::copy(draft(), here.path().join("tiny/pair")).expect("a file");
    let mut command = asking(&hub, "tiny/pair");
    command.current_dir(here.path());
    assert_eq!(tokens(&hub.run(command).await), by_path());
    assert!(hub.asked().is_empty());
}
