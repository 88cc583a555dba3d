//! Every way in which weights come, for every architecture: folders of safetensors (F32, F16, BF16, in one file or in
//! shards) and GGUF files (F32, F16, Q8_0, Q4_K_M, and the other types that are read).

mod random;

use candle_core::DType;
use candle_core::quantized::GgmlDType;
use random::gguf::q4_k_m;
use random::{Model, all, all_in_gguf, fresh, largest_gap, open, open_once, refused, rows, text};
use specula_models::Compute;

#[test]
fn folders_of_every_type_are_one_computation() {
    for model in all() {
        let f32s = rows(&model.folder(DType::F32, 1), &text(40), 40);
        assert!(rows(&model.folder(DType::F32, 3), &text(40), 40) == f32s, "{}: shards are one model", model.name);
        // Random logits span some 3 units with an own head and 30 with the embedding table's.
        let scale = if model.tied { 10.0 } else { 1.0 };
        for (kind, bound) in [(DType::F16, 0.02), (DType::BF16, 0.2)] {
            let gap = largest_gap(&rows(&model.folder(kind, 2), &text(40), 40), &f32s);
            assert!((1e-6..bound * scale).contains(&gap), "{} {kind:?}: {gap}", model.name);
        }
    }
}

/// Against the same numbers dequantised: what differs is that activations are rounded to 8 bits for products with blocks.
#[test]
fn quantised_files_compute_what_their_numbers_say() {
    let check = |model: &Model, label: &str, kind: &dyn Fn(&str) -> GgmlDType| {
        let file = model.gguf_file(kind);
        let got = rows(&open_once(&file.write(&format!("{}-{label}", model.name))), &text(40), 40);
        let want = rows(&open_once(&file.dequantised().write(&format!("{}-{label}-dense", model.name))), &text(40), 40);
        let gap = largest_gap(&got, &want);
        let bound = if model.tied { 3.0 } else { 0.3 };
        assert!(gap < bound, "{} {label}: {gap}", model.name);
    };
    for model in all_in_gguf() {
        check(&model, "F16", &|_| GgmlDType::F16);
        check(&model, "Q8_0", &|_| GgmlDType::Q8_0);
        check(&model, "Q4_K_M", &q4_k_m);
    }
    for kind in OTHER_TYPES {
        check(&all()[0], &format!("{kind:?}"), &|_| kind);
    }
}

/// The kernels widen K-quants to the very numbers of the format's description, which candle's dequantisation follows.
#[test]
fn k_quants_have_the_bits_of_their_numbers() {
    let five: fn(&str) -> GgmlDType = |_| GgmlDType::Q5K;
    for (model, kind) in all_in_gguf().into_iter().flat_map(|model| [(model.clone(), q4_k_m as _), (model, five)]) {
        let file = model.gguf_file(kind);
        let label = format!("{}-k-quants", model.name);
        let (packed, dense) = (open_once(&file.write(&label)), open_once(&file.dequantised().write(&label)));
        for model in [&packed, &dense] {
            assert_eq!(model.model.compute(), Compute::Kernels, "{}", model.model.computed_by());
        }
        assert!(rows(&packed, &text(40), 40) == rows(&dense, &text(40), 40), "{}", model.name);
    }
}

const OTHER_TYPES: [GgmlDType; 9] = [
    GgmlDType::BF16,
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q5_0,
    GgmlDType::Q5_1,
    GgmlDType::Q2K,
    GgmlDType::Q3K,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
];

fn rows_are_invariant(model: &specula_models::LoadedModel, label: &str) {
    let text = text(70);
    let singles = rows(model, &text, 1);
    for window in [2, 3, 5, 8, 16, 17, 33, 64] {
        assert!(rows(model, &text, window) == singles, "{} {label}, windows of {window}", model.name);
    }
}

#[test]
fn rows_do_not_depend_on_the_window() {
    for model in all() {
        rows_are_invariant(&model.folder(DType::F32, 2), "safetensors F32");
    }
    for model in all_in_gguf() {
        rows_are_invariant(&model.gguf("F16-rows", |_| GgmlDType::F16), "F16");
        rows_are_invariant(&model.gguf("Q8_0-rows", |_| GgmlDType::Q8_0), "Q8_0");
        rows_are_invariant(&model.gguf("Q4_K_M-rows", q4_k_m), "Q4_K_M");
    }
    for kind in OTHER_TYPES {
        rows_are_invariant(&all()[0].gguf(&format!("{kind:?}-rows"), |_| kind), &format!("{kind:?}"));
    }
}

/// A folder may hold other weights beside those that its index names.
#[test]
fn the_index_says_which_files_count() {
    let model = &all()[3];
    let path = fresh("indexed");
    model.write_folder(&path, DType::F32, 2);
    std::fs::write(path.join("consolidated.safetensors"), b"none of this").expect("written");
    let want = rows(&model.folder(DType::F32, 1), &text(8), 8);
    assert!(rows(&open(&path), &text(8), 8) == want);
    std::fs::remove_file(path.join("model-00002-of-00002.safetensors")).expect("there");
    assert!(refused(&path).contains("`model-00002-of-00002.safetensors`"), "{}", refused(&path));
}
