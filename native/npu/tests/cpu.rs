//! Drafts on ONNX Runtime's own CPU kernels, where `SPECULA_ONNXRUNTIME` names the library: every bucket's rows are those
//! of the kernels and of candle but for rounding, over growing caches, trees, kept paths and streams.

mod common;
#[path = "../../models/tests/random/mod.rs"]
mod random;

use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use common::{cache, compare_draft, graphs, library, place};
use random::{Model, fresh, text};
use sha2::{Digest, Sha256};
use specula_decoding::model::chain_nodes;
use specula_decoding::{LanguageModel, Logits, NewNode, TokenId};
use specula_models::{Compute, Form, LoadedModel, Streams};
use specula_npu::{Device, Libraries, Place, Provider, Runtime, Variant};

/// Models that the graphs can say: all but OPT.
fn all() -> Vec<Model> {
    random::all().into_iter().filter(|model| model.architecture != "opt").collect()
}

fn libraries() -> Option<Libraries> {
    Some(Libraries { runtime: Some(library("SPECULA_ONNXRUNTIME")?), plugin: None })
}

fn on_cpu(libraries: &Libraries, variant: Variant) -> Place {
    place(Provider::Cpu, Some(variant), libraries.clone())
}

fn streams(hidden: usize) -> Streams {
    let values: Vec<f32> = (0..2 * hidden).map(|i| (i * 37 % 101) as f32 * 0.02 - 1.0).collect();
    Streams { embeddings: Tensor::from_vec(values, (2, hidden), &candle_core::Device::Cpu).expect("cpu"), layers: 1 }
}

fn written(model: &Model) -> PathBuf {
    let path = fresh(model.name);
    model.write_folder(&path, DType::F32, 1);
    path
}

fn with_streams(model: &Model, path: &Path, compute: Compute) -> LoadedModel {
    let mut loaded = LoadedModel::open_as(path, Form { compute, ..Form::default() }).expect("a model");
    loaded.model.set_streams(&streams(model.hidden)).expect("of its shape");
    loaded
}

/// The same on the device and on a decoder; every row must agree.
struct Pair {
    device: Box<dyn LanguageModel>,
    reference: Box<dyn LanguageModel>,
    largest: f32,
    label: String,
}

impl Pair {
    fn feed(&mut self, nodes: &[NewNode], from: &[usize], count: usize) -> Logits {
        let theirs = self.device.look_ahead(nodes, from, count).unwrap_or_else(|e| panic!("{}: {e}", self.label));
        let ours = self.reference.look_ahead(nodes, from, count).expect("rows");
        assert_eq!(theirs.rows(), nodes.len() + from.len() * count, "{}", self.label);
        for i in 0..ours.rows() {
            let pairs = ours.row(i).iter().zip(theirs.row(i));
            let gap = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, |a: f32, b| if b > a || b.is_nan() { b } else { a });
            assert!(gap.is_finite(), "{}: row {i}", self.label);
            self.largest = self.largest.max(gap);
        }
        self.same_slots();
        ours
    }

    fn prefill(&mut self, tokens: &[TokenId]) {
        self.device.prefill(tokens).unwrap_or_else(|e| panic!("{}: {e}", self.label));
        self.reference.prefill(tokens).expect("prefilled");
        self.same_slots();
    }

    fn keep(&mut self, from: usize, path: &[usize]) {
        self.device.keep(from, path).expect("kept");
        self.reference.keep(from, path).expect("kept");
        self.same_slots();
    }

    fn same_slots(&self) {
        let of = |model: &dyn LanguageModel| (model.linear(), model.slots());
        assert_eq!(of(&*self.device), of(&*self.reference), "{}", self.label);
    }

    fn chain(&self, tokens: &[TokenId]) -> Vec<NewNode> {
        chain_nodes(tokens, self.reference.linear())
    }

    /// Passes through every bucket of steps and prefills, with no, one and many forks, before and after the cache grows.
    fn everything(&mut self) {
        let tokens = text(400);
        let mut at = 0;
        let mut next = |count: usize| {
            at += count;
            &tokens[at - count..at]
        };
        self.prefill(next(3));
        for rows in [1, 2, 4, 7, 8, 13, 16] {
            let nodes = self.chain(next(rows));
            self.feed(&nodes, &[], 0);
            let nodes = self.chain(next(rows));
            self.feed(&nodes, &[rows - 1], 2);
            let nodes = self.chain(next(rows));
            let ends: &[usize] = if rows > 1 { &[0, rows - 1] } else { &[0] };
            self.feed(&nodes, ends, 1);
            self.keep(self.reference.linear() - rows, &[]);
        }
        self.prefill(next(40));
        // More rows than a bucket has.
        let nodes = self.chain(next(21));
        self.feed(&nodes, &[3, 15, 16, 20], 2);
        self.tree();
        // Beyond 256 slots.
        self.prefill(next(110));
        let nodes = self.chain(next(5));
        self.feed(&nodes, &[4], 2);
        assert!(self.reference.slots() > 256, "{} slots", self.reference.slots());
        self.tree();
        self.keep(9, &[]);
        let nodes = self.chain(&tokens[..3]);
        self.feed(&nodes, &[0, 1, 2], 2);
    }

    /// Three branches, of which one is kept.
    fn tree(&mut self) {
        let last = self.reference.slots() - 1;
        let parents = [last, last, last - 2, last + 1, last + 2, last + 3, last + 2, last + 5];
        let node = |(i, parent)| NewNode { token: (i * 31 % 200) as TokenId, parent: Some(parent) };
        let nodes: Vec<NewNode> = parents.into_iter().enumerate().map(node).collect();
        self.feed(&nodes, &[5, 6, 7], 2);
        // Another step grows two of them.
        let grown = [last + 8, last + 6].map(|parent| NewNode { token: 7, parent: Some(parent) });
        self.feed(&grown, &[0, 1], 1);
        self.keep(last + 1, &[last + 2, last + 5, last + 8, last + 9]);
        let nodes = self.chain(&[5, 6]);
        self.feed(&nodes, &[1], 2);
    }
}

fn pair(device: &Device, reference: &LoadedModel, label: String) -> Pair {
    let reference = reference.model.session().expect("cpu");
    Pair { device: device.session(), reference, largest: 0.0, label }
}

/// Largest difference over everything, by architecture.
fn gaps(variant: Variant, compute: Compute) -> Option<Vec<(Model, f32)>> {
    let libraries = libraries()?;
    let gap = |model: Model| {
        let path = written(&model);
        let reference = with_streams(&model, &path, compute);
        let graphs = graphs(&path, &reference.model, on_cpu(&libraries, variant));
        let mut pair = pair(&Device::new(reference.model.clone(), graphs), &reference, model.name.to_owned());
        pair.everything();
        std::fs::remove_dir_all(path).expect("removed");
        (model, pair.largest)
    };
    Some(all().into_iter().map(gap).collect())
}

/// All sum in f32, in another order.
#[test]
fn every_bucket_gives_the_kernels_rows() {
    for (model, gap) in gaps(Variant::F32, Compute::Kernels).into_iter().flatten() {
        let bound = if model.tied { 1e-3 } else { 1e-4 };
        assert!(gap < bound && gap > 0.0, "{}: {gap}", model.name);
    }
}

#[test]
fn every_bucket_gives_candles_rows() {
    for (model, gap) in gaps(Variant::F32, Compute::Candle).into_iter().flatten() {
        let bound = if model.tied { 1e-3 } else { 1e-4 };
        assert!(gap < bound && gap > 0.0, "{}: {gap}", model.name);
    }
}

/// Logits reach 3, or 30 with a tied head.
#[test]
fn halves_and_bytes_round_as_much_as_they_must() {
    for (variant, bound) in [(Variant::F16, 0.02), (Variant::W8, 0.15), (Variant::Dyn8, 0.5)] {
        for (model, gap) in gaps(variant, Compute::Kernels).into_iter().flatten() {
            let bound = if model.tied { 10.0 * bound } else { bound };
            assert!(gap < bound && gap > 1e-4, "{} in {}: {gap}", model.name, variant.name());
        }
    }
}

#[test]
fn the_embedded_draft_chooses_the_same_tokens_in_every_variant() {
    let Some(libraries) = libraries() else { return };
    for variant in Variant::ALL {
        let trial = compare_draft(on_cpu(&libraries, variant)).expect("it runs");
        assert!(trial.rows > 200, "{trial:?}");
        assert_eq!(trial.refusal(true), None, "{} {trial:?}", variant.name());
        assert!(variant != Variant::F32 || trial.alike == trial.rows, "{trial:?}");
    }
}

#[test]
fn what_is_written_once_is_used_again_and_mended() {
    let Some(libraries) = libraries() else { return };
    let model = all().swap_remove(0);
    let path = written(&model);
    let loaded = with_streams(&model, &path, Compute::Kernels);
    let place = Place { cache: cache(), ..on_cpu(&libraries, Variant::F32) };
    let folder = || {
        let digest = std::fs::read_dir(&place.cache).expect("a folder").next().expect("one model").expect("readable");
        digest.path().join("f32")
    };
    let run = || {
        let device = Device::new(loaded.model.clone(), graphs(&path, &loaded.model, place.clone()));
        let mut session = device.session();
        session.forward(&chain_nodes(&text(4), 0), None).map(|rows| rows.row(3).to_vec())
    };
    let first = run().expect("it runs");
    let (weights, graph) = (folder().join("weights.bin"), folder().join("q4-t256.onnx"));
    let when = std::fs::metadata(&weights).and_then(|file| file.modified()).expect("there");
    assert_eq!(run().expect("it runs"), first);
    assert_eq!(std::fs::metadata(&weights).and_then(|file| file.modified()).expect("there"), when);
    // A file that was cut off, one of which a byte is another, and one that is not ours.
    let bytes = std::fs::read(&weights).expect("there");
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    for damaged in [&bytes[..bytes.len() / 2], &damaged] {
        std::fs::write(&weights, damaged).expect("written");
        std::fs::write(&graph, "nonsense").expect("written");
        assert_eq!(run().expect("it runs"), first);
        assert_eq!(std::fs::read(&weights).expect("there"), bytes);
    }
}

#[test]
fn nonsense_is_a_failure_not_a_guess() {
    let Some(libraries) = libraries() else { return };
    let model = all().swap_remove(0);
    let path = written(&model);
    let loaded = with_streams(&model, &path, Compute::Kernels);
    let place = on_cpu(&libraries, Variant::F32);
    drop(graphs(&path, &loaded.model, place.clone()));
    let digest = std::fs::read_dir(&place.cache).expect("a folder").next().expect("one model").expect("readable");
    let weights = digest.path().join("f32/weights.bin");
    let nonsense = vec![0xff; std::fs::metadata(&weights).expect("there").len() as usize];
    // It passes for what was written.
    let digest: String = Sha256::digest(&nonsense).iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(weights.with_file_name("weights.bin.sha256"), digest).expect("written");
    std::fs::write(&weights, nonsense).expect("written");
    let mut session = Device::new(loaded.model.clone(), graphs(&path, &loaded.model, place)).session();
    let failed = session.forward(&chain_nodes(&text(2), 0), None).expect_err("no numbers");
    assert!(failed.0.contains("no numbers"), "{failed}");
}

#[test]
fn a_runtime_that_is_not_there_is_an_error_with_a_remedy() {
    let nowhere = Libraries { runtime: Some("/nowhere/libonnxruntime.so".into()), plugin: None };
    let Err(why) = Runtime::load(&nowhere) else { panic!("it was loaded") };
    assert!(why.contains("/nowhere") || why.contains("is loaded"), "{why}");
}

#[test]
fn providers_that_the_library_lacks_are_refused_with_what_to_install() {
    let Some(libraries) = libraries() else { return };
    let model = all().swap_remove(0);
    let path = written(&model);
    let loaded = with_streams(&model, &path, Compute::Kernels);
    for (provider, package) in [(Provider::Qnn, "onnxruntime-qnn"), (Provider::VitisAi, "Ryzen AI")] {
        let place = place(provider, None, libraries.clone());
        let refused = specula_models::read_dense(&path, |dense| {
            specula_npu::Graphs::open((&loaded.model, dense), place.clone()).map(drop)
        });
        let why = refused.expect_err("not in this library").to_string();
        assert!(why.contains(package), "{why}");
    }
}
