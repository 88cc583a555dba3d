//! The kernels' decoder against candle's, on every architecture and format that both have: logits within the rounding
//! of their sums, and the same greedy texts.

mod random;

use std::path::Path;

use candle_core::DType;
use candle_core::quantized::GgmlDType;
use random::gguf::q4_k_m;
use random::{all, all_in_gguf, largest_gap, rows, text};
use specula_decoding::LanguageModel;
use specula_decoding::model::chain_nodes;
use specula_models::{ChatMessage, Compute, Form, LoadedModel};

fn both(path: &Path) -> (LoadedModel, LoadedModel) {
    both_as(path, Form::default())
}

fn both_as(path: &Path, form: Form) -> (LoadedModel, LoadedModel) {
    let open = |form| LoadedModel::open_as(path, form).unwrap_or_else(|error| panic!("{error}"));
    let on = |compute| open(Form { compute, ..form });
    let (fast, reference) = (on(Compute::Kernels), on(Compute::Candle));
    assert_eq!(fast.model.compute(), Compute::Kernels, "{}", fast.model.computed_by());
    assert_eq!(reference.model.compute(), Compute::Candle);
    (fast, reference)
}

/// Largest difference of logits; the files are removed.
fn gap(path: &Path) -> f32 {
    let (fast, reference) = both(path);
    std::fs::remove_dir_all(if path.is_dir() { path } else { path.parent().expect("a folder") }).expect("removed");
    largest_gap(&rows(&fast, &text(60), 60), &rows(&reference, &text(60), 60))
}

/// Both sum in f32, in another order: logits of up to 3 (30 with a tied head) differ by rounding alone.
#[test]
fn dense_formats_agree_to_rounding() {
    for model in all() {
        let bound = if model.tied { 2e-4 } else { 2e-5 };
        for kind in [DType::F32, DType::F16, DType::BF16] {
            let path = random::fresh(&format!("candle-{}-{kind:?}", model.name));
            model.write_folder(&path, kind, 1);
            let gap = gap(&path);
            assert!(gap < bound, "{} {kind:?}: {gap}", model.name);
        }
    }
    for model in all_in_gguf() {
        let bound = if model.tied { 2e-4 } else { 2e-5 };
        for kind in [GgmlDType::F32, GgmlDType::F16, GgmlDType::BF16] {
            let path = model.gguf_file(|_: &str| kind).write(&format!("candle-{}-{kind:?}", model.name));
            let gap = gap(&path);
            assert!(gap < bound, "{} GGUF {kind:?}: {gap}", model.name);
        }
    }
}

/// Candle rounds activations to 8 bits, in blocks that may span 256 values; the kernels in blocks of 32 for Q8_0, and not
/// at all for K-quants.
#[test]
fn quantised_formats_agree_to_the_rounding_of_activations() {
    for model in all_in_gguf() {
        for (name, kind) in [("Q8_0", (|_| GgmlDType::Q8_0) as fn(&str) -> GgmlDType), ("Q4_K_M", q4_k_m)] {
            let path = model.gguf_file(kind).write(&format!("candle-{}-{name}", model.name));
            let bound = if model.tied { 2.0 } else { 0.3 };
            let gap = gap(&path);
            assert!(gap < bound, "{} {name}: {gap}", model.name);
        }
    }
}

/// Greedy answers of the embedded pair, token for token: another one is chosen only where two are nearer to each other than
/// rounded activations can tell (on CPUs with VNNI candle rounds 256 of them by the largest).
#[test]
fn greedy_texts_agree() {
    for name in ["target.gguf", "draft.gguf"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../weights").join(name);
        // In f32: candle's rounding of activations differs from CPU to CPU, and is no measure of a text.
        let (fast, reference) = both_as(&path, Form { dequantised: true, ..Form::default() });
        for question in ["How do I list files by size?", "How do I undo a commit?", "Show free memory."] {
            let message = ChatMessage { role: "user".into(), content: question.into() };
            let template = fast.template.as_ref().expect("a template");
            let prompt = template.encode(&fast.tokenizer, &[message]).expect("a chat");
            let mut sessions = [&fast, &reference].map(|model| model.model.session().expect("cpu"));
            let mut next = prompt;
            for at in 0..60 {
                let rows = sessions.each_mut().map(|session| {
                    let session: &mut dyn LanguageModel = session.as_mut();
                    let rows = session.forward(&chain_nodes(&next, session.linear()), None).expect("rows");
                    rows.row(rows.rows() - 1).to_vec()
                });
                let gap = largest_gap(&rows[..1], &rows[1..]);
                assert!(gap < 0.01, "{name}, `{question}`, token {at}: rows differ by {gap}");
                let best = rows.each_ref().map(|row| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])));
                let [Some(a), Some(b)] = best else { panic!("empty rows") };
                let margin = rows[1][b] - rows[1][a];
                assert!(margin <= 0.01, "{name}, `{question}`, token {at}: {a} for {b}, {margin} apart");
                next = vec![b as u32];
            }
        }
    }
}
