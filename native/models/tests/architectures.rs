//! Every architecture against an independent implementation: Hugging Face's transformers, run by `reference.py` over the
//! very files that are loaded here. Where it is not installed, against the numbers it gave (`expected.json`).

mod random;

use std::path::PathBuf;

use candle_core::DType;
use candle_core::quantized::GgmlDType;
use random::reference::{numbers, python, reference};
use random::vocabulary::Vocabulary;
use random::{Model, all, all_in_gguf, fresh, largest_gap, open, rows, text};
use serde_json::{Value as Json, json};
use specula_models::{ChatMessage, LoadedModel};

const TOKENS: usize = 150;
/// Places whose first logits `expected.json` holds: the first, one past the scaled models' first context, the last.
const PLACES: [usize; 3] = [0, 77, TOKENS - 1];
const SHOWN: usize = 6;
/// Logits span some ten units; two orders of summing f32 differ in the sixth digit.
const TOLERANCE: f32 = 2e-4;

fn folder_of(model: &Model) -> PathBuf {
    let path = fresh(model.name);
    model.write_folder(&path, DType::F32, 1);
    path
}

#[test]
fn logits_are_those_that_transformers_gave() {
    let expected: Json = serde_json::from_str(include_str!("expected.json")).expect("JSON");
    for model in all() {
        let ours = rows(&open(&folder_of(&model)), &text(TOKENS), TOKENS);
        let shown: Vec<Vec<f32>> = PLACES.iter().map(|place| ours[*place][..SHOWN].to_vec()).collect();
        let gap = largest_gap(&shown, &numbers(&expected[model.name]));
        assert!(gap < TOLERANCE, "{}: {shown:?} differ by {gap}", model.name);
    }
}

/// Skipped where transformers is not installed. Prints what `expected.json` should hold.
#[test]
fn logits_are_those_that_transformers_gives() {
    let Some(python) = python() else { return };
    let mut files: Vec<(Model, PathBuf)> = all().into_iter().map(|model| (model.clone(), folder_of(&model))).collect();
    // What transformers does not read of GGUF is compared by folders alone: rope scaling, Qwen3's head size, Mistral's name.
    let readable = |model: &Model| model.scaling.is_null() && ["llama", "qwen2"].contains(&model.architecture);
    for model in all_in_gguf().into_iter().filter(readable) {
        files.push((model.clone(), model.gguf_file(|_| GgmlDType::F32).write(&format!("{}-gguf", model.name))));
    }
    let asked: Vec<Json> = files.iter().map(|(_, path)| json!([path, text(TOKENS)])).collect();
    let answers = reference(python, &[], &json!(asked));
    let mut expected = serde_json::Map::new();
    for (i, (model, path)) in files.iter().enumerate() {
        let theirs = numbers(&answers[i]);
        let gap = largest_gap(&rows(&open(path), &text(TOKENS), 16), &theirs);
        assert!(gap < TOLERANCE, "{}: {gap}", path.display());
        eprintln!("{}: largest gap {gap:e}", path.display());
        let shown: Vec<&[f32]> = PLACES.iter().map(|place| &theirs[*place][..SHOWN]).collect();
        expected.entry(model.name).or_insert_with(|| json!(shown));
    }
    println!("{}", Json::Object(expected));
}

/// The same numbers under GGUF's names, Llama's queries and keys interleaved: the same bits.
#[test]
fn gguf_and_folder_compute_the_same() {
    for model in all_in_gguf() {
        let want = rows(&model.folder(DType::F32, 1), &text(40), 40);
        let got = rows(&model.gguf("f32", |_| GgmlDType::F32), &text(40), 40);
        // Factors per frequency are rounded once more than frequencies.
        let bound = if model.scaling["rope_type"] == "llama3" { TOLERANCE } else { f32::MIN_POSITIVE };
        let gap = largest_gap(&got, &want);
        assert!(gap < bound, "{}: {gap}", model.name);
    }
}

fn asked() -> (Vec<&'static str>, Vec<Vec<ChatMessage>>) {
    let texts = vec![
        "hello world",
        "I'll say 12345 words, user's own!\n\n  Indented\t\r\n",
        "naïve 日本語 🦀 ＡＢＣ ٣٤٥",
        " ",
        "<tool> and <think> are text </think>",
    ];
    let message = |role: &str, content: &str| ChatMessage { role: role.into(), content: content.into() };
    let chats = vec![
        vec![message("user", "hello")],
        vec![
            message("system", " Be brief. "),
            message("user", "\nhi\n"),
            message("assistant", "hello"),
            message("user", "12?"),
        ],
    ];
    (texts, chats)
}

/// Skipped where transformers is not installed.
#[test]
fn tokens_are_those_that_transformers_gives() {
    let Some(python) = python() else { return };
    let (texts, chats) = asked();
    let models: Vec<Model> = all().into_iter().filter(|m| ["llama", "qwen2", "mistral"].contains(&m.name)).collect();
    let piece = |m: &Model| Model { vocabulary: Vocabulary::mistral(), name: "pieces", ..m.clone() };
    let models: Vec<Model> = models.iter().cloned().chain(models.last().map(piece)).collect();
    let entries: Vec<Json> = texts.iter().map(|t| json!(t)).chain(chats.iter().map(|c| json!(c))).collect();
    let asked: Vec<Json> = models.iter().map(|model| json!([folder_of(model), entries])).collect();
    let answers = reference(python, &["--texts"], &json!(asked));
    for (i, model) in models.iter().enumerate() {
        let theirs: Vec<Vec<u32>> = serde_json::from_value(answers[i].clone()).expect("tokens");
        assert_eq!(ours(&open(&folder_of(model)), &texts, &chats), theirs, "{}", model.name);
        if model.name != "pieces" {
            let loaded = model.gguf("tokens", |_| GgmlDType::F32);
            assert_eq!(ours(&loaded, &texts, &chats), theirs, "{}", loaded.name);
        }
    }
}

fn ours(model: &LoadedModel, texts: &[&str], chats: &[Vec<ChatMessage>]) -> Vec<Vec<u32>> {
    let template = model.template.as_ref().expect("a template");
    let texts = texts.iter().map(|text| model.tokenizer.encode_prompt(text).expect("tokens"));
    texts.chain(chats.iter().map(|chat| template.encode(&model.tokenizer, chat).expect("tokens"))).collect()
}
