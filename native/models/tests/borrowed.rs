//! Models that candle-transformers computes: the numbers are transformers', rows depend on their path alone, and what
//! such a model cannot do is refused with the reason.

mod random;

use random::borrowed::{Borrowed, borrowed};
use random::reference::{numbers, python, reference};
use random::{largest_gap, open, open_once, refused, rows, text};
use serde_json::{Value as Json, json};
use specula_decoding::NewNode;
use specula_models::{Form, LoadedModel, ModelFolder};

const TOKENS: usize = 150;
/// Places whose first logits `expected.json` holds: the first, one past the window of Gemma 3, the last.
const PLACES: [usize; 3] = [0, 77, TOKENS - 1];
const SHOWN: usize = 6;
/// Logits span some ten units; two orders of summing f32 differ in the sixth digit.
const TOLERANCE: f32 = 2e-4;

#[test]
fn logits_are_those_that_transformers_gave() {
    let expected: Json = serde_json::from_str(include_str!("expected.json")).expect("JSON");
    for model in borrowed() {
        let ours = rows(&open_once(&model.folder()), &text(TOKENS), TOKENS);
        let shown: Vec<Vec<f32>> = PLACES.iter().map(|place| ours[*place][..SHOWN].to_vec()).collect();
        let gap = largest_gap(&shown, &numbers(&expected[model.name]));
        assert!(gap < TOLERANCE, "{}: {shown:?} differ by {gap}", model.name);
    }
}

/// Skipped where transformers is not installed. Prints what `expected.json` should hold.
#[test]
fn logits_are_those_that_transformers_gives() {
    let Some(python) = python() else { return };
    let models: Vec<(Borrowed, _)> = borrowed().into_iter().map(|model| (model.clone(), model.folder())).collect();
    let asked: Vec<Json> = models.iter().map(|(_, path)| json!([path, text(TOKENS)])).collect();
    let answers = reference(python, &[], &json!(asked));
    let mut expected = serde_json::Map::new();
    for (i, (model, path)) in models.iter().enumerate() {
        let theirs = numbers(&answers[i]);
        let gap = largest_gap(&rows(&open(path), &text(TOKENS), 1), &theirs);
        eprintln!("{}: largest gap {gap:e}", path.display());
        assert!(gap < TOLERANCE, "{}: {gap}", path.display());
        let shown: Vec<&[f32]> = PLACES.iter().map(|place| &theirs[*place][..SHOWN]).collect();
        expected.insert(model.name.into(), json!(shown));
    }
    println!("{}", Json::Object(expected));
}

#[test]
fn rows_do_not_depend_on_how_tokens_come() {
    for model in borrowed() {
        let loaded = open_once(&model.folder());
        let singles = rows(&loaded, &text(70), 1);
        assert!(rows(&loaded, &text(70), 16) == singles, "{}", model.name);
        let mut session = loaded.model.session().expect("cpu");
        session.prefill(&text(70)[..69]).expect("fits");
        let last = NewNode { token: text(70)[69], parent: Some(68) };
        assert_eq!(session.forward(&[last], None).expect("a row").row(0), &singles[69][..], "{}", model.name);
        // All or nothing of a cache is kept.
        session.keep(70, &[]).expect("all of it");
        session.keep(0, &[]).expect("nothing of it");
        let first = NewNode { token: text(1)[0], parent: None };
        assert_eq!(session.forward(&[first], None).expect("a row").row(0), &singles[0][..], "{}", model.name);
    }
}

#[test]
fn what_it_cannot_do_is_refused_with_the_reason() {
    let model = &borrowed()[1];
    let path = model.folder();
    let loaded = open(&path);
    let why = loaded.model.cannot_speculate().expect("a reason");
    assert!(why.contains("`gemma3_text`") && why.contains("cut back"), "{why}");
    let mut session = loaded.model.session().expect("cpu");
    session.prefill(&text(5)).expect("fits");
    let node = |parent| NewNode { token: 1, parent: Some(parent) };
    for (nodes, kept) in [(vec![node(3)], None), (vec![node(4), node(4)], None), (vec![], Some(3))] {
        let refused = match kept {
            Some(from) => session.keep(from, &[]).expect_err("cut back"),
            None => session.forward(&nodes, None).map(drop).expect_err("a tree"),
        };
        assert!(refused.0.contains(&why), "{}", refused.0);
    }
    let exit = session.forward(&[node(4)], Some((1, &mut |_| ()))).map(drop).expect_err("an exit");
    assert!(exit.0.contains(&why), "{}", exit.0);
    let padded = LoadedModel::open_as(&path, Form { layers: Some(9), ..Form::default() }).map(drop);
    assert!(padded.expect_err("one form").to_string().contains(&why));
    assert!(ModelFolder::open(&path, None).map(drop).expect_err("not trained").to_string().contains("`gemma3_text`"));
}

fn edited(model: &Borrowed, key: &str, value: Json) -> String {
    let mut model = model.clone();
    model.config[key] = value;
    refused(&model.folder())
}

#[test]
fn what_candle_computes_otherwise_is_refused_by_key() {
    let all = borrowed();
    let of = |name: &str| all.iter().find(|model| model.name == name).expect("one of that name");
    for (name, key, value) in [
        ("gemma2", "query_pre_attn_scalar", json!(24)),
        ("gemma3_text", "query_pre_attn_scalar", json!(24)),
        ("gemma3_text", "rope_scaling", json!({"rope_type": "linear", "factor": 8.0})),
        ("gemma3_text", "sliding_window_pattern", json!(0)),
        ("gemma3_text", "num_hidden_layers", json!(1_u64 << 40)),
        ("phi", "partial_rotary_factor", json!(1.5)),
        ("phi", "partial_rotary_factor", json!(0.0)),
        ("phi", "head_dim", json!(1 << 20)),
        ("phi3", "rope_scaling", json!({"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]})),
        ("phi3", "quantization_config", json!({"quant_method": "awq"})),
        ("starcoder2", "tie_word_embeddings", json!(false)),
        ("starcoder2", "norm_epsilon", Json::Null),
    ] {
        let reason = edited(of(name), key, value.clone());
        let named = if key == "num_hidden_layers" || key == "head_dim" { name } else { key };
        assert!(reason.contains(named), "{name}, {key} = {value}: {reason}");
    }
    // A shape that is not the file's.
    let reason = edited(of("phi"), "vocab_size", json!(1000));
    assert!(reason.contains("embed_tokens"), "{reason}");
    // Tensors that would be left out.
    let reason = edited(of("phi3"), "model_type", json!("phi"));
    assert!(reason.contains("config.json"), "{reason}");
}

/// A window bounds the context where it is not computed.
#[test]
fn windows_bound_the_context() {
    let all = borrowed();
    for (name, window, context) in [("gemma2", 100, 100), ("phi3", 64, 64), ("gemma3_text", 16, 256)] {
        let mut model = all.iter().find(|model| model.name == name).expect("one of that name").clone();
        model.config["sliding_window"] = json!(window);
        assert_eq!(open_once(&model.folder()).model.config().context_length, context, "{name}");
    }
}
