//! Drafts on Qualcomm's HTP as its library emulates it, where `SPECULA_ONNXRUNTIME_QNN` names that library (PyPI's
//! onnxruntime-qnn) and `SPECULA_ONNXRUNTIME` that of ONNX Runtime. Every graph is compiled with the CPU forbidden.

mod common;

use std::path::PathBuf;

use common::{draft, graphs, library, place, weights};
use specula_decoding::TokenId;
use specula_decoding::model::chain_nodes;
use specula_models::{ChatMessage, Compute, LoadedModel};
use specula_npu::{Device, Libraries, Place, Provider, Variant};

/// Questions, and tokens of each window.
const PROMPTS: usize = 20;
const WINDOW: usize = 4;

fn prompts(draft: &LoadedModel) -> Vec<Vec<TokenId>> {
    let file = std::fs::read_to_string(weights("prompts.jsonl")).expect("prompts");
    let pages: Vec<serde_json::Value> = file.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let step = pages.len() / PROMPTS;
    let template = draft.template.as_ref().expect("a template");
    let tokens = (0..PROMPTS).map(|i| {
        let content = pages[i * step]["short"].as_str().expect("a question").to_owned();
        template.encode(&draft.tokenizer, &[ChatMessage { role: "user".into(), content }]).expect("a chat")
    });
    tokens.collect()
}

fn best(row: &[f32]) -> usize {
    (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).expect("a row")
}

#[test]
fn first_windows_are_candles() {
    let Some(plugin) = library("SPECULA_ONNXRUNTIME_QNN") else { return };
    let runtime: Option<PathBuf> = library("SPECULA_ONNXRUNTIME");
    let draft = draft(Compute::Candle);
    let libraries = Libraries { runtime, plugin: Some(plugin) };
    for variant in [Variant::F32, Variant::F16] {
        first_windows(&draft, place(Provider::Qnn, Some(variant), libraries.clone()));
    }
}

fn first_windows(draft: &LoadedModel, place: Place) {
    let variant = place.variant;
    let device = Device::new(draft.model.clone(), graphs(&weights("draft.gguf"), &draft.model, place));
    let (mut rows, mut alike) = (0, 0);
    for prompt in prompts(draft) {
        let (mut theirs, mut ours) = (device.session(), draft.model.session().expect("cpu"));
        let (last, before) = prompt.split_last().expect("a prompt");
        theirs.prefill(before).unwrap_or_else(|error| panic!("{error}"));
        ours.prefill(before).expect("prefilled");
        let mut window = vec![*last];
        while window.len() < WINDOW {
            let nodes = chain_nodes(&window[window.len() - 1..], ours.linear());
            window.push(best(ours.forward(&nodes, None).expect("rows").row(0)) as TokenId);
        }
        ours.keep(before.len(), &[]).expect("kept");
        let nodes = chain_nodes(&window, before.len());
        // One window as one step, its streams along.
        let theirs = theirs.look_ahead(&nodes, &[WINDOW - 1], 2).unwrap_or_else(|error| panic!("{error}"));
        let ours = ours.look_ahead(&nodes, &[WINDOW - 1], 2).expect("rows");
        rows += ours.rows();
        alike += (0..ours.rows()).filter(|i| best(theirs.row(*i)) == best(ours.row(*i))).count();
    }
    println!("{alike} of {rows} greedy tokens are candle's in {variant:?}");
    assert_eq!(rows, PROMPTS * (WINDOW + 2));
    assert!(100 * alike >= 99 * rows, "{alike} of {rows} in {variant:?}");
}
