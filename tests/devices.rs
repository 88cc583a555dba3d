//! Targets on devices, as far as a machine without one can tell: what is missing is said with its remedy, and candle's CPU
//! device stands for one, whose rows stay where they are.

use serde_json::{Value, json};
use specula_tests::{CHAT, Server, bench, question, refused, refused_bench, with};

#[test]
fn a_device_that_no_build_can_have_is_refused_with_what_to_do() {
    // Of the two vendors' devices no machine has both.
    let other = if cfg!(target_os = "macos") { "cuda:0" } else { "metal" };
    let said = refused(&["--prompt", "Hello", "--target-device", other]);
    assert!(said.contains(other) && said.contains("build with"), "{said}");
    let said = refused(&["--prompt", "Hello", "--target-device", "rocm:0"]);
    assert!(said.contains("`rocm:0`") && said.contains("cuda"), "{said}");
}

/// Log-probabilities need whole rows, and change no token: the draws from reduced rows are those from whole ones.
#[tokio::test]
async fn answers_from_reduced_rows_are_those_from_whole_ones() {
    let server = Server::start(&["--target-device", "candle"]);
    let card = server.get("/v1/models").await.json();
    assert_eq!(card["data"][0]["row_invariant"], false, "{card}");
    for (i, sampling) in [
        json!({"temperature": 0}),
        json!({"temperature": 1}),
        json!({"temperature": 0.8, "top_p": 0.9}),
        json!({"temperature": 1.2, "top_k": 30, "min_p": 0.02}),
    ]
    .into_iter()
    .enumerate()
    {
        for method in ["none", "sps", "mirror"] {
            // Both ways make the same passes, so that even a device's rows are the same.
            let more = json!({
                "seed": i, "max_tokens": 24, "deterministic": true, "speculation": {"method": method, "window": 3}
            });
            let request = with(&with(&question(i), sampling.clone()), more);
            let reduced = server.whole(CHAT, &request).await;
            let whole = server.whole(CHAT, &with(&request, json!({"logprobs": true}))).await;
            assert_eq!(reduced.text, whole.text, "{method}, {sampling}");
            assert!(!reduced.report.row_invariant && reduced.report.lossless, "{:?}", reduced.report);
        }
    }
}

#[test]
fn the_suite_of_devices_leaves_its_files() {
    let folder = bench(&["--suite", "devices", "--target-device", "candle", "--shape", "tiny", "--passes", "2"]);
    let read = |file: &str| std::fs::read_to_string(folder.path().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    let results: Value = serde_json::from_str(&read("devices.json")).expect("JSON");
    let rows: Vec<_> = results["passes"]["by_rows"].as_array().expect("rows").iter().map(|row| &row["rows"]).collect();
    assert_eq!(rows, [1, 4, 8, 16]);
    assert_eq!(results["exactness"]["rows"], 8 * 48);
    // On one device the same passes would give the same tokens but where two are as good as equal.
    assert!(results["exactness"]["windows"]["largest_gap"].as_f64().is_some_and(|gap| gap < 1.0), "{results}");
    assert_eq!(results["mirror"].as_array().map(Vec::len), Some(4));
    assert!(read("devices.md").contains("| one row, of the floor ≤ 1.30 |"));
    let trace: Value = serde_json::from_str(&read("trace.json")).expect("JSON");
    assert!(trace["traceEvents"].as_array().is_some_and(|events| events.len() > 20));
    let said = refused_bench(&["--suite", "devices"]);
    assert!(said.contains("--target-device"), "{said}");
}
