//! Models in another form than their files': padded with identity layers they compute the same bits, exits and all; in
//! f32 they compute what their numbers say.

mod random;

use std::collections::HashMap;
use std::path::Path;

use candle_core::quantized::GgmlDType;
use candle_core::{DType, Device, Tensor};
use random::gguf::q4_k_m;
use random::{all, all_in_gguf, fresh, rows, text};
use specula_decoding::model::chain_nodes;
use specula_decoding::{Row, TokenId};
use specula_models::{Compute, Exits, Form, LoadedModel};

fn open(path: &Path, form: Form) -> LoadedModel {
    LoadedModel::open_as(path, form).unwrap_or_else(|error| panic!("{error}"))
}

fn padded(layers: usize, compute: Compute) -> Form {
    Form { layers: Some(layers), compute, ..Form::default() }
}

fn bits(rows: &[Vec<f32>]) -> Vec<u32> {
    rows.iter().flatten().map(|x| x.to_bits()).collect()
}

#[test]
fn identity_layers_change_no_bit_of_any_architecture_and_format() {
    for model in all() {
        let folder = fresh(&format!("{}-folder", model.name));
        model.write_folder(&folder, DType::BF16, 1);
        let mut paths = vec![folder];
        if model.in_gguf() {
            paths.push(model.gguf_file(|_| GgmlDType::Q8_0).write(&format!("{}-q8", model.name)));
            paths.push(model.gguf_file(q4_k_m).write(&format!("{}-q4", model.name)));
        }
        for path in &paths {
            for compute in [Compute::Kernels, Compute::Candle] {
                let plain = open(path, Form { compute, ..Form::default() });
                let own = plain.model.config().layers;
                let want = bits(&rows(&plain, &text(40), 5));
                for layers in [own + 1, 3 * own] {
                    let model = open(path, padded(layers, compute));
                    assert_eq!(model.model.config().layers, layers);
                    assert!(model.name.ends_with(&format!(", padded to {layers} layers")), "{}", model.name);
                    assert!(bits(&rows(&model, &text(40), 5)) == want, "{} {compute:?} {layers}", path.display());
                }
            }
        }
    }
}

#[test]
fn a_padded_target_covers_what_it_covers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../weights/target.gguf");
    let exits = exits(512, 8);
    let with_exits = |form| {
        let mut model = open(&path, form);
        model.model.set_exits(&exits).expect("of its shape");
        model
    };
    let (plain, padded) = (with_exits(Form::default()), with_exits(padded(40, Compute::Kernels)));
    assert_eq!(padded.model.compute(), Compute::Kernels);
    let text: Vec<TokenId> = (0..120_u32).map(|i| (i * 7919 + 13) % 4093 + 3).collect();
    for layer in 1..8 {
        let (want, got) = (exit_and_last(&plain, &text, layer), exit_and_last(&padded, &text, layer * 5));
        assert!(bits(&got.1) == bits(&want.1), "logits");
        assert!(bits(&got.0) == bits(&want.0), "exit after {layer}");
        let table = coverage(&want);
        assert_eq!(coverage(&got), table, "exit after {layer}");
        assert!(table.is_sorted() && table[0] < table[3], "a table that tells something: {table:?}");
    }
}

#[test]
fn exits_of_other_layers_are_refused_by_the_models_own_count() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../weights/target.gguf");
    let mut model = open(&path, padded(16, Compute::Kernels));
    let refused = model.model.set_exits(&exits(512, 9)).expect_err("no layer 8 to exit after");
    assert!(refused.contains("exit.8") && refused.contains("8 layers"), "{refused}");
}

#[test]
fn impossible_paddings_are_refused() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../weights/draft.gguf");
    let Err(error) = LoadedModel::open_as(&path, padded(1, Compute::Kernels)) else { panic!("a layer was lost") };
    assert!(error.to_string().contains("2..=1024"), "{error}");
}

#[test]
fn models_in_f32_compute_their_numbers_exactly() {
    let f32 = |compute| Form { dequantised: true, compute, ..Form::default() };
    for model in all_in_gguf() {
        for (label, kind) in [("q8", &(|_: &str| GgmlDType::Q8_0) as &dyn Fn(&str) -> GgmlDType), ("q4", &q4_k_m)] {
            let file = model.gguf_file(kind);
            let path = file.write(&format!("{}-{label}", model.name));
            let dense = file.dequantised().write(&format!("{}-{label}-dense", model.name));
            for compute in [Compute::Kernels, Compute::Candle] {
                let got = open(&path, f32(compute));
                assert_eq!(got.model.compute(), compute, "{}", got.model.computed_by());
                assert!(got.name.ends_with(", f32"), "{}", got.name);
                let want = open(&dense, Form { compute, ..Form::default() });
                assert!(bits(&rows(&got, &text(40), 40)) == bits(&rows(&want, &text(40), 40)), "{}", model.name);
            }
        }
    }
    for model in all() {
        let (half, single) = (fresh(&format!("{}-bf16", model.name)), fresh(&format!("{}-f32", model.name)));
        model.write_folder(&half, DType::BF16, 2);
        let got = rows(&open(&half, f32(Compute::Kernels)), &text(40), 40);
        let want = rows(&open(&half, f32(Compute::Candle)), &text(40), 40);
        assert!(random::largest_gap(&got, &want) < if model.tied { 2e-4 } else { 2e-5 }, "{}", model.name);
        model.write_folder(&single, DType::F32, 1);
        let as_it_is = rows(&open(&single, Form::default()), &text(40), 40);
        assert!(bits(&rows(&open(&single, f32(Compute::Kernels)), &text(40), 40)) == bits(&as_it_is));
    }
}

/// Adapters after every layer of `layers` but the last, each its own.
fn exits(hidden: usize, layers: usize) -> Exits {
    let path = fresh("exits").join("exit.safetensors");
    let values = |count: usize, seed: usize| (0..count).map(move |i| ((i * 37 + seed * 11) % 101) as f32 * 4e-5 - 2e-3);
    let tensors: HashMap<String, Tensor> = (1..layers)
        .flat_map(|layer| {
            let weight = Tensor::from_iter(values(hidden * hidden, layer), &Device::Cpu).expect("values");
            let bias = Tensor::from_iter(values(hidden, layer), &Device::Cpu).expect("values");
            let weight = weight.reshape((hidden, hidden)).expect("square");
            [(format!("exit.{layer}.weight"), weight), (format!("exit.{layer}.bias"), bias)]
        })
        .collect();
    candle_core::safetensors::save(&tensors, &path).expect("written");
    Exits::open(&path).expect("exits")
}

/// Rows of the exit after `layer`, and the model's own.
fn exit_and_last(model: &LoadedModel, text: &[TokenId], layer: usize) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let mut session = model.model.session().expect("cpu");
    let mut exits = Vec::new();
    let mut on_exit = |rows: specula_decoding::Logits| {
        exits.extend((0..rows.rows()).map(|i| rows.row(i).to_vec()));
    };
    let rows = session.forward(&chain_nodes(text, 0), Some((layer, &mut on_exit))).expect("rows");
    (exits, (0..rows.rows()).map(|i| rows.row(i).to_vec()).collect())
}

/// How many of the model's own choices are among the exit's best 1, 2, 4 and 8.
fn coverage((exits, last): &(Vec<Vec<f32>>, Vec<Vec<f32>>)) -> [usize; 4] {
    [1, 2, 4, 8].map(|top| {
        let covered = |(exit, last): &(&Vec<f32>, &Vec<f32>)| {
            let chosen = Row::new(last).top(1)[0].0;
            Row::new(exit).top(top).iter().any(|candidate| candidate.0 == chosen)
        };
        exits.iter().zip(last).filter(covered).count()
    })
}
