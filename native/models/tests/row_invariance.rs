//! A row's bits depend on its own path alone: not on the rows computed with it, the chunks of the prefill, the tree's
//! layout or what was cut away before. Exactness rests on this (the verification rows of a window are compared with the
//! single rows of plain decoding).

mod random;

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use random::rows;
use specula_decoding::model::chain_nodes;
use specula_decoding::{LanguageModel, NewNode, TokenId};
use specula_models::{Compute, Cores, LoadedModel, Streams, available_cores};

const BOTH: [Compute; 2] = [Compute::Kernels, Compute::Candle];

fn open(name: &str, compute: Compute) -> LoadedModel {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../weights").join(name);
    let model = LoadedModel::open_on(&path, compute).expect("embedded weights");
    assert_eq!(model.model.compute(), compute, "{}", model.model.computed_by());
    model
}

fn text(model: &LoadedModel, len: usize) -> Vec<TokenId> {
    let tokens = model.model.config().vocab_size as u32 - 3;
    (0..len as u32).map(|i| (i * 7919 + 13) % tokens + 3).collect()
}

fn session(model: &LoadedModel, prefix: &[TokenId]) -> Box<dyn LanguageModel> {
    let mut session = model.model.session().expect("cpu");
    session.prefill(prefix).expect("fits");
    session
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|x| x.to_bits()).collect()
}

/// At every context length from 1 to 600 a window whose size runs through 1…17, and every size at some lengths around the
/// cache's and the kernels' block sizes, against rows computed one at a time.
fn windows_equal_single_rows(model: &LoadedModel) {
    const LONGEST: usize = 600;
    const MOST_ROWS: usize = 17;
    let all = text(model, LONGEST + MOST_ROWS);
    let mut plain = session(model, &[]);
    let singles: Vec<Vec<u32>> = (0..all.len())
        .map(|i| bits(plain.forward(&chain_nodes(&all[i..=i], plain.linear()), None).expect("one row").row(0)))
        .collect();
    let mut windowed = session(model, &[]);
    for context in 0..=LONGEST {
        let every_size = [0, 1, 7, 31, 32, 33, 64, 100, 255, 257, LONGEST].contains(&context);
        let sizes = if every_size { 1..=MOST_ROWS } else { context % MOST_ROWS + 1..=context % MOST_ROWS + 1 };
        for size in sizes {
            let nodes = chain_nodes(&all[context..context + size], context);
            let rows = windowed.forward(&nodes, None).expect("a window");
            for i in 0..size {
                assert_eq!(bits(rows.row(i)), singles[context + i], "context {context}, {size} rows, row {i}");
            }
            windowed.keep(context, &[]).expect("cut back");
        }
        windowed.prefill(&all[context..=context]).expect("fits");
    }
}

#[test]
fn windows_equal_single_rows_in_the_target() {
    windows_equal_single_rows(&open("target.gguf", Compute::Kernels));
}

#[test]
fn windows_equal_single_rows_in_the_draft() {
    windows_equal_single_rows(&open("draft.gguf", Compute::Kernels));
}

/// On candle the draft stands for both: the target would take a minute.
#[test]
fn windows_equal_single_rows_on_candle() {
    windows_equal_single_rows(&open("draft.gguf", Compute::Candle));
}

#[test]
fn prefill_chunks_do_not_matter() {
    let models = [("target.gguf", Compute::Kernels), ("draft.gguf", Compute::Kernels), ("draft.gguf", Compute::Candle)];
    for (name, compute) in models {
        let model = open(name, compute);
        let all = text(&model, 301);
        let row = |chunks: &[usize]| {
            let mut session = model.model.session().expect("cpu");
            let mut from = 0;
            for chunk in chunks.iter().cycle() {
                let to = (from + chunk).min(300);
                session.prefill(&all[from..to]).expect("fits");
                from = to;
                if from == 300 {
                    break;
                }
            }
            bits(session.forward(&chain_nodes(&all[300..], 300), None).expect("one row").row(0))
        };
        let want = row(&[1]);
        for chunks in [vec![300], vec![2], vec![3, 5], vec![17], vec![33, 1], vec![64, 100]] {
            assert_eq!(row(&chunks), want, "{name}, {compute:?}, chunks {chunks:?}");
        }
    }
}

/// Helpers on further cores, and cores lent and taken back in between.
#[test]
fn cores_do_not_matter() {
    let all = text(&open("draft.gguf", Compute::Kernels), 120);
    let rows = |cores: &Cores| {
        let mut model = open("draft.gguf", Compute::Kernels);
        model.model.set_cores(cores).expect("threads");
        let mut session = session(&model, &all[..60]);
        let mut bits_of = Vec::new();
        for (i, token) in all.chunks(3).skip(20).enumerate() {
            model.model.spread(i % 3 > 0);
            let rows = session.forward(&chain_nodes(token, session.linear()), None).expect("rows");
            bits_of.extend((0..rows.rows()).map(|row| bits(rows.row(row))));
        }
        bits_of
    };
    let alone = rows(&Cores::default());
    let (first, others) = (available_cores()[0], available_cores());
    for (own, lent) in [(vec![first; 3], vec![]), (vec![first], others.clone()), (others, vec![first, first])] {
        let cores = Cores { own, lent };
        assert!(rows(&cores) == alone, "{cores:?}");
    }
}

/// A tree's rows are the rows of its paths; and a path kept out of a tree serves as if it had been fed alone.
#[test]
fn trees_equal_their_paths() {
    for compute in BOTH {
        trees_equal_their_paths_in(&open("target.gguf", compute));
    }
}

fn trees_equal_their_paths_in(model: &LoadedModel) {
    let all = text(model, 64);
    let base = 40;
    let mut tree = session(model, &all[..base]);
    // Slots: 40 a, 41 b after a (linear); 42 c after a, 43 d after c, 44 e after the prompt, 45 f after d.
    let parents = [39, 40, 40, 42, 39, 43];
    let nodes: Vec<NewNode> =
        parents.iter().enumerate().map(|(i, p)| NewNode { token: all[base + i], parent: Some(*p) }).collect();
    let rows = tree.forward(&nodes, None).expect("a tree");
    let path = [all[base], all[base + 2], all[base + 3], all[base + 5]];
    let mut alone = session(model, &all[..base]);
    let path_rows = alone.forward(&chain_nodes(&path, base), None).expect("a path");
    for (i, node) in [0, 2, 3, 5].into_iter().enumerate() {
        assert_eq!(bits(rows.row(node)), bits(path_rows.row(i)), "node {node}");
    }
    tree.keep(base + 1, &[42, 43, 45]).expect("a path");
    let next = chain_nodes(&all[50..51], base + 4);
    let kept = tree.forward(&next, None).expect("one row");
    assert_eq!(bits(kept.row(0)), bits(alone.forward(&next, None).expect("one row").row(0)));
}

/// Looking half-way does not disturb the pass.
#[test]
fn the_exit_does_not_change_rows() {
    for compute in BOTH {
        the_exit_does_not_change_rows_in(&open("target.gguf", compute));
    }
}

fn the_exit_does_not_change_rows_in(model: &LoadedModel) {
    let all = text(model, 50);
    let mut plain = session(model, &all[..30]);
    let nodes = chain_nodes(&all[30..35], 30);
    let want = plain.forward(&nodes, None).expect("rows");
    let mut seen = 0;
    let mut exited = session(model, &all[..30]);
    let layer = model.model.config().layers / 2;
    let got = exited.forward(&nodes, Some((layer, &mut |rows| seen = rows.rows()))).expect("rows");
    assert_eq!(seen, 5);
    assert_eq!(want, got);
}

/// Looking ahead changes no row and no slot, and a stream's bits depend on its path alone, wherever it hangs.
#[test]
fn streams_see_their_path_alone() {
    for compute in BOTH {
        streams_see_their_path_alone_of(|| open("draft.gguf", compute));
    }
}

fn streams_see_their_path_alone_of(open: impl Fn() -> LoadedModel) {
    let embeddings: Vec<f32> = (0..3 * 256).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.01).collect();
    let embeddings = Tensor::from_vec(embeddings, (3, 256), &Device::Cpu).expect("cpu");
    for layers in [1, 2] {
        // A model takes its streams before its first session.
        let mut model = open();
        model.model.set_streams(&Streams { embeddings: embeddings.clone(), layers }).expect("of its shape");
        streams_see_their_path_alone_in(&model);
    }
}

/// All of it on a small model of every architecture.
#[test]
fn every_architecture_keeps_it() {
    for model in random::all() {
        let path = random::fresh(model.name);
        model.write_folder(&path, DType::F32, 1);
        for compute in BOTH {
            let open = || LoadedModel::open_on(&path, compute).expect("a model");
            let loaded = open();
            assert_eq!(loaded.model.compute(), compute, "{}", loaded.model.computed_by());
            let text = text(&loaded, 60);
            let singles = rows(&loaded, &text, 1);
            for window in [2, 7, 17, 60] {
                assert!(rows(&loaded, &text, window) == singles, "{} {compute:?}, windows of {window}", model.name);
            }
            trees_equal_their_paths_in(&loaded);
            the_exit_does_not_change_rows_in(&loaded);
            streams_see_their_path_alone_of(open);
        }
    }
}

fn streams_see_their_path_alone_in(model: &LoadedModel) {
    let all = text(model, 64);
    let base = 40;
    // 40 a, 41 b after a (linear); 42 c after a, 43 d after c.
    let nodes: Vec<NewNode> =
        [39, 40, 40, 42].iter().enumerate().map(|(i, p)| NewNode { token: all[base + i], parent: Some(*p) }).collect();
    let want = session(model, &all[..base]).forward(&nodes, None).expect("a tree");
    let mut tree = session(model, &all[..base]);
    let got = tree.look_ahead(&nodes, &[1, 3], 3).expect("a tree with streams");
    assert_eq!((tree.linear(), tree.slots()), (42, 44), "streams leave no slots");
    assert_eq!(got.rows(), 4 + 2 * 3);
    for i in 0..4 {
        assert_eq!(bits(got.row(i)), bits(want.row(i)), "main row {i}");
    }
    for (place, path) in [(0, vec![all[base], all[base + 1]]), (1, vec![all[base], all[base + 2], all[base + 3]])] {
        let mut alone = session(model, &all[..base + path.len() - 1]);
        alone.keep(base, &[]).expect("cut back");
        alone.prefill(&path[..path.len() - 1]).expect("fits");
        let last = chain_nodes(&path[path.len() - 1..], base + path.len() - 1);
        for count in [1, 3] {
            let rows = alone.look_ahead(&last, &[0], count).expect("one token");
            for j in 0..count {
                assert_eq!(bits(rows.row(1 + j)), bits(got.row(4 + place * 3 + j)), "place {place}, stream {j}");
            }
            alone.keep(base + path.len() - 1, &[]).expect("cut back");
        }
    }
    // What comes after is what comes after a pass without streams.
    let next = chain_nodes(&all[50..51], 42);
    let mut plain = session(model, &all[..base]);
    plain.prefill(&all[base..base + 2]).expect("fits");
    tree.keep(42, &[]).expect("cut back");
    let after = tree.forward(&next, None).expect("one row");
    assert_eq!(bits(after.row(0)), bits(plain.forward(&next, None).expect("one row").row(0)));
}
