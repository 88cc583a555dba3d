//! What a model does on a device, tried on candle's CPU device, or on the one that `SPECULA_TEST_DEVICE` names: the same
//! numbers as the reference's but for rounding, reduced rows that are those of the whole ones, trees, exits and streams.

mod random;

use std::path::{Path, PathBuf};

use candle_core::DType;
use candle_core::quantized::GgmlDType;
use random::gguf::q4_k_m;
use random::{all, fresh, largest_gap, rows, text};
use specula_decoding::model::chain_nodes;
use specula_decoding::reduced::LOG_Z_ERROR;
use specula_decoding::{Logits, Look, NewNode, Noise, Reduction, Rows, TokenId};
use specula_models::{Accelerator, Compute, Exits, Form, LoadedModel, Model, ModelConfig, Streams};

fn device() -> Compute {
    // A driver that is emulated has no products of blocks but those that are made of dequantised ones.
    #[cfg(feature = "cuda")]
    if std::env::var_os("SPECULA_CUDA_ORDER").is_some() {
        candle_core::quantized::cuda::set_force_dmmv(true);
    }
    let named = std::env::var("SPECULA_TEST_DEVICE").unwrap_or_else(|_| "candle".into());
    Compute::On(named.parse().unwrap_or_else(|why| panic!("SPECULA_TEST_DEVICE: {why}")))
}

fn open(path: &Path, compute: Compute) -> LoadedModel {
    LoadedModel::open_on(path, compute).unwrap_or_else(|error| panic!("{error}"))
}

fn weights(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../weights").join(name)
}

#[test]
fn every_architecture_and_format_computes_as_the_reference_does() {
    let on_device = device();
    for model in all() {
        // Logits are up to 3, with a tied head 30.
        let scale = if model.tied { 10.0 } else { 1.0 };
        let compare = |path: &Path, bound: f32, kind: &str| {
            let (device, reference) = (open(path, on_device), open(path, Compute::Candle));
            assert_eq!(device.model.compute(), on_device);
            assert!(device.model.computed_by().ends_with(kind), "{}", device.model.computed_by());
            assert!(!device.model.row_invariant() && reference.model.row_invariant());
            let gap = largest_gap(&rows(&device, &text(60), 7), &rows(&reference, &text(60), 7));
            assert!(gap < bound * scale, "{}: {gap}", path.display());
        };
        // Candle has no products of bf16 on the CPU; they are computed in f32.
        let bf16 = if on_device == Compute::On(Accelerator::Host) { (2e-5, "f32") } else { (0.3, "bf16") };
        for (stored, bound, kind) in
            [(DType::F32, 2e-5, "f32"), (DType::BF16, bf16.0, bf16.1), (DType::F16, 0.03, "f16")]
        {
            let folder = fresh(&format!("{}-{kind}", model.name));
            model.write_folder(&folder, stored, 1);
            compare(&folder, bound, kind);
        }
        if !model.in_gguf() {
            continue;
        }
        // Products of blocks round activations to 8 bits, which a last bit may tip over.
        for (name, stored) in [("q8", (|_| GgmlDType::Q8_0) as fn(&str) -> GgmlDType), ("q4", q4_k_m)] {
            compare(&model.gguf_file(stored).write(&format!("{}-{name}", model.name)), 0.3, "f32");
        }
        compare(&model.gguf_file(|_| GgmlDType::F16).write(&format!("{}-f16", model.name)), 0.03, "f16");
    }
}

#[test]
fn matrices_are_taken_in_f32_on_request() {
    let model = &all()[0];
    let folder = fresh("asked-for-f32");
    model.write_folder(&folder, DType::F16, 1);
    let form = Form { compute: device(), dequantised: true, ..Form::default() };
    let device = LoadedModel::open_as(&folder, form).unwrap_or_else(|error| panic!("{error}"));
    assert!(device.model.computed_by().ends_with("f32"), "{}", device.model.computed_by());
    let gap = largest_gap(&rows(&device, &text(60), 7), &rows(&open(&folder, Compute::Candle), &text(60), 7));
    assert!(gap < 2e-5, "{gap}");
}

fn bits(rows: &Rows) -> Vec<Vec<u32>> {
    (0..rows.count()).map(|i| rows.row(i).expect("there").iter().map(|x| x.to_bits()).collect()).collect()
}

fn whole(rows: &Rows, vocab: usize) -> Logits {
    Logits::new((0..rows.count()).flat_map(|i| rows.row(i).expect("there").to_vec()).collect(), vocab)
}

#[test]
fn reduced_rows_are_those_of_the_whole_ones() {
    let small = open(&weights("draft.gguf"), device()).model;
    // So many that a device looks for the best of some and then for the best of these.
    let many = ModelConfig { vocab_size: 9001, ..small.config().clone() };
    let Compute::On(accelerator) = device() else { panic!("no device") };
    for model in [small, accelerator.random_model(many).expect("room")] {
        compare_reduced_rows(model);
    }
}

fn compare_reduced_rows(mut model: Model) {
    model.set_exits(&Exits::default()).expect("none");
    let vocab = model.config().vocab_size;
    let nodes = chain_nodes(&text(5), 0);
    for (temperature, ranked, top) in [(0.0, 1, 0), (1.0, 1, 8), (0.7, 0, 64), (1.3, 9, 3)] {
        let positions: Vec<u32> = (1..=5).collect();
        let reduction = Reduction { temperature, noise: Noise::new(5, 0), positions, ranked, top };
        let exit_reduction = Reduction { ranked: 4, top: 0, ..reduction.clone() };
        let pass = |reduction: Option<&Reduction>, exit_reduction: Option<Reduction>| {
            let mut session = model.session().expect("room");
            let mut exit = None;
            let mut on_exit = |rows| exit = Some(rows);
            let look = Look { layer: 1, reduction: exit_reduction, on_exit: &mut on_exit };
            let rows = session.forward_reduced(&nodes, reduction, Some(look)).expect("rows");
            (rows, exit.expect("told"))
        };
        let (want, want_exit) = pass(None, None);
        assert!(want.known(0).is_none() && want_exit.known(0).is_none());
        let (got, got_exit) = pass(Some(&reduction), Some(exit_reduction.clone()));
        for (got, want, reduction) in [(&got, &want, &reduction), (&got_exit, &want_exit, &exit_reduction)] {
            for (i, found) in reduction.of(&whole(want, vocab)).iter().enumerate() {
                let known = got.known(i).expect("reduced");
                assert_eq!((&known.ranked, &known.top), (&found.ranked, &found.top), "{temperature}, row {i}");
                assert!((known.log_z - found.log_z).abs() < LOG_Z_ERROR, "{} for {}", known.log_z, found.log_z);
            }
            // Asked for a whole row, it fetches it; and then knows no less.
            assert_eq!(bits(got), bits(want));
            assert!(got.known(0).is_none());
        }
    }
}

#[test]
fn trees_are_their_paths() {
    let model = open(&weights("draft.gguf"), device());
    let node = |token: TokenId, parent: usize| NewNode { token, parent: Some(parent) };
    let context = text(40);
    let mut session = model.model.session().expect("room");
    session.prefill(&context).expect("fits");
    // After the context a and b; after a: c; after b: d.
    let tree = [node(70, 39), node(71, 39), node(72, 40), node(73, 41)];
    let in_tree = session.forward(&tree, None).expect("rows");
    let alone = |tokens: &[TokenId]| {
        let mut session = model.model.session().expect("room");
        session.prefill(&context).expect("fits");
        let rows = session.forward(&chain_nodes(tokens, 40), None).expect("rows");
        rows.row(rows.rows() - 1).to_vec()
    };
    for (row, path) in [(0, &[70][..]), (1, &[71]), (2, &[70, 72]), (3, &[71, 73])] {
        let gap = largest_gap(&[in_tree.row(row).to_vec()], &[alone(path)]);
        assert!(gap < 0.3, "{path:?}: {gap}");
    }
    session.keep(40, &[41, 43]).expect("a path");
    let after = session.forward(&[node(74, 41)], None).expect("rows");
    let gap = largest_gap(&[after.row(0).to_vec()], &[alone(&[71, 73, 74])]);
    assert!(gap < 0.3, "kept: {gap}");
}

#[test]
fn exits_and_streams_are_taken_to_the_device() {
    let in_f32 = |compute, name: &str| {
        let form = Form { compute, dequantised: true, ..Form::default() };
        LoadedModel::open_as(&weights(name), form).unwrap_or_else(|error| panic!("{error}"))
    };
    let look_ahead = |compute| {
        let mut draft = in_f32(compute, "draft.gguf");
        draft.model.set_streams(&Streams::open(&weights("streams.safetensors")).expect("a file")).expect("they fit");
        let mut session = draft.model.session().expect("room");
        let rows = session.look_ahead(&chain_nodes(&text(6), 0), &[2, 5], 2).expect("rows");
        (0..rows.rows()).map(|i| rows.row(i).to_vec()).collect::<Vec<_>>()
    };
    let gap = largest_gap(&look_ahead(device()), &look_ahead(Compute::Candle));
    assert!(gap < 1e-3, "streams: {gap}");
    let exit = |compute| {
        let mut target = in_f32(compute, "target.gguf");
        target.model.set_exits(&Exits::open(&weights("exit.safetensors")).expect("a file")).expect("they fit");
        let mut session = target.model.session().expect("room");
        let mut told = Vec::new();
        let mut on_exit = |rows: Logits| told = (0..rows.rows()).map(|i| rows.row(i).to_vec()).collect();
        session.forward(&chain_nodes(&text(3), 0), Some((4, &mut on_exit))).expect("rows");
        told
    };
    let gap = largest_gap(&exit(device()), &exit(Compute::Candle));
    assert!(gap < 1e-3, "exits: {gap}");
}

/// The best token of a row.
fn best(row: &[f32]) -> TokenId {
    (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).expect("a row") as TokenId
}

/// A window of the draft's on the CPU, a pass over it on the device whose draws alone are told, with a look at the exit, and
/// so on: as a text is made, with the same words as the CPU alone has for it.
#[test]
fn the_embedded_pair_says_what_the_cpu_says() {
    const TOKENS: usize = 24;
    const WINDOW: usize = 3;
    let target = |compute| {
        let form = Form { compute, dequantised: true, ..Form::default() };
        let mut target = LoadedModel::open_as(&weights("target.gguf"), form).unwrap_or_else(|error| panic!("{error}"));
        target.model.set_exits(&Exits::open(&weights("exit.safetensors")).expect("a file")).expect("they fit");
        target.model
    };
    let prompt = text(30);
    let (last, before) = prompt.split_last().expect("a prompt");
    let mut alone = target(Compute::Candle).session().expect("room");
    alone.prefill(before).expect("fits");
    let (mut want, mut gaps) = (vec![*last], Vec::new());
    for _ in 0..TOKENS {
        let rows = alone.forward(&chain_nodes(&want[want.len() - 1..], alone.linear()), None).expect("rows");
        let row = rows.row(0);
        let first = best(row);
        let second = row.iter().enumerate().filter(|(id, _)| *id != first as usize).map(|(_, x)| *x);
        gaps.push(row[first as usize] - second.fold(f32::NEG_INFINITY, f32::max));
        want.push(first);
    }
    let mut session = target(device()).session().expect("room");
    let mut draft = open(&weights("draft.gguf"), Compute::Kernels).model.session().expect("room");
    session.prefill(before).expect("fits");
    draft.prefill(before).expect("fits");
    let (mut got, mut looks, mut accepted) = (vec![*last], 0, 0);
    while got.len() <= TOKENS {
        let from = session.linear();
        let mut window = vec![got[got.len() - 1]];
        while window.len() <= WINDOW {
            let rows = draft.forward(&chain_nodes(&window[window.len() - 1..], draft.linear()), None).expect("rows");
            window.push(best(rows.row(0)));
        }
        let positions = (0..window.len()).map(|i| (from + i + 1) as u32).collect();
        let drawn = Reduction { temperature: 0.0, noise: Noise::new(1, 0), positions, ranked: 1, top: 0 };
        let candidates = Reduction { ranked: 4, ..drawn.clone() };
        let mut on_exit = |rows: Rows| looks += usize::from(rows.known(0).is_some_and(|row| row.ranked.len() == 4));
        let look = Look { layer: 4, reduction: Some(candidates), on_exit: &mut on_exit };
        let rows = session.forward_reduced(&chain_nodes(&window, from), Some(&drawn), Some(look)).expect("rows");
        let own: Vec<TokenId> = (0..window.len()).map(|i| rows.known(i).expect("drawn").ranked[0].0).collect();
        let right = own.iter().zip(&window[1..]).take_while(|(own, drafted)| own == drafted).count();
        accepted += right;
        got.extend(&own[..=right]);
        session.keep(from + 1 + right, &[]).expect("kept");
        // The draft has not read its last token yet.
        let read = draft.linear().min(from + 1 + right);
        draft.keep(read, &[]).expect("kept");
        draft.prefill(&got[got.len() - 1 - (from + 1 + right - read)..got.len() - 1]).expect("fits");
    }
    assert!(accepted > 0 && looks > 0, "{accepted} accepted, {looks} looks");
    if let Some(i) = (0..TOKENS).find(|i| got[i + 1] != want[i + 1]) {
        assert!(gaps[i] < 1e-2, "token {i} is {} and not {}, by {}", got[i + 1], want[i + 1], gaps[i]);
    }
}
