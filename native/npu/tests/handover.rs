//! A device that fails or hangs, at any step: the sequence goes on as if it had never been on it, and so does the answer.

#[path = "../../engine/tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::{ask, engine, engine_on, generate, questions};
use specula_decoding::model::{OnExit, chain_nodes};
use specula_decoding::{LanguageModel, Logits, ModelError, NewNode, TokenId};
use specula_models::{LoadedModel, Model, Streams};
use specula_npu::{Guarded, Patience, Sessions};

/// What a device does in the end.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Fails,
    /// Comes back as late as this test's process ends.
    Hangs,
}

/// A model that computes so many times and then no more; its last try leaves its cache in disorder.
struct Faulty {
    model: Box<dyn LanguageModel>,
    left: Arc<AtomicUsize>,
    end: End,
}

impl Faulty {
    fn spend(&mut self) -> Result<(), ModelError> {
        let spent = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if spent.is_err() {
            self.model.keep(0, &[])?;
            if self.end == End::Hangs {
                loop {
                    std::thread::park();
                }
            }
        }
        spent.map(drop).map_err(|_| ModelError("the device is gone".into()))
    }
}

impl LanguageModel for Faulty {
    fn vocab_size(&self) -> usize {
        self.model.vocab_size()
    }
    fn context_length(&self) -> usize {
        self.model.context_length()
    }
    fn linear(&self) -> usize {
        self.model.linear()
    }
    fn slots(&self) -> usize {
        self.model.slots()
    }
    fn streams(&self) -> usize {
        self.model.streams()
    }
    fn forward(&mut self, nodes: &[NewNode], exit: Option<(usize, OnExit<'_>)>) -> Result<Logits, ModelError> {
        self.spend()?;
        self.model.forward(nodes, exit)
    }
    fn look_ahead(&mut self, nodes: &[NewNode], from: &[usize], count: usize) -> Result<Logits, ModelError> {
        self.spend()?;
        self.model.look_ahead(nodes, from, count)
    }
    fn prefill(&mut self, tokens: &[TokenId]) -> Result<(), ModelError> {
        self.spend()?;
        self.model.prefill(tokens)
    }
    fn keep(&mut self, from: usize, path: &[usize]) -> Result<(), ModelError> {
        self.spend()?;
        self.model.keep(from, path)
    }
}

fn guarded(model: &Model, steps: usize, end: End) -> Guarded {
    let (own, spare, left) = (model.clone(), model.clone(), Arc::new(AtomicUsize::new(steps)));
    let device: Sessions = Arc::new(move || Ok(Box::new(Faulty { model: own.session()?, left: left.clone(), end })));
    Guarded::new(device, Arc::new(move || spare.session()), patience(end))
}

/// A busy machine may take a step for a hang, which no test here minds that waits for one.
fn patience(end: End) -> Patience {
    let step = Duration::from_millis(if end == End::Hangs { 100 } else { 600_000 });
    Patience { step, compiling: step, compiles: Arc::default() }
}

fn draft() -> LoadedModel {
    let weights = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../weights").join(name);
    let mut draft = LoadedModel::open(&weights("draft.gguf")).expect("embedded weights");
    draft.model.set_streams(&Streams::open(&weights("streams.safetensors")).expect("streams")).expect("of its shape");
    draft
}

/// All that a draft is asked to do, in turn. Every row, and the slots after each.
fn everything(model: &mut dyn LanguageModel) -> Vec<(Vec<f32>, usize, usize)> {
    let mut told = Vec::new();
    let mut note = |rows: Option<Logits>, model: &dyn LanguageModel| {
        let rows = rows.iter().flat_map(|rows| (0..rows.rows()).flat_map(|i| rows.row(i).iter().copied())).collect();
        told.push((rows, model.linear(), model.slots()));
    };
    model.prefill(&[5, 6, 7, 8]).expect("prefilled");
    note(None, model);
    for round in 0..3_u32 {
        let nodes = chain_nodes(&[9 + round, 10, 11], model.linear());
        let rows = model.look_ahead(&nodes, &[2], 2).expect("rows");
        note(Some(rows), model);
        let last = model.slots() - 1;
        let tree = [last, last, last - 1, last + 2].map(|parent| NewNode { token: 20 + round, parent: Some(parent) });
        let rows = model.forward(&tree, None).expect("rows");
        note(Some(rows), model);
        let rows = model.look_ahead(&[NewNode { token: 3, parent: Some(last + 4) }], &[0], 1).expect("rows");
        note(Some(rows), model);
        model.keep(last + 1, &[last + 2, last + 4, last + 5]).expect("kept");
        note(None, model);
        model.keep(model.linear() - 1, &[]).expect("kept");
        note(None, model);
    }
    told
}

#[test]
fn whenever_a_device_fails_the_sequence_goes_on_as_if_it_had_never_been_on_it() {
    let draft = draft();
    let want = everything(&mut *draft.model.session().expect("cpu"));
    for steps in 0..=want.len() + 1 {
        let guarded = guarded(&draft.model, steps, End::Fails);
        let got = everything(&mut *guarded.session().expect("a session"));
        assert!(got == want, "after {steps} steps");
        assert_eq!(guarded.failure().is_some(), steps < want.len(), "after {steps} steps");
    }
}

#[test]
fn whenever_a_device_hangs_the_sequence_goes_on_as_if_it_had_never_been_on_it() {
    let draft = draft();
    let want = everything(&mut *draft.model.session().expect("cpu"));
    for steps in 0..want.len() {
        let guarded = guarded(&draft.model, steps, End::Hangs);
        let got = everything(&mut *guarded.session().expect("a session"));
        assert!(got == want, "after {steps} steps");
        assert!(guarded.failure().is_some_and(|why| why.0.contains("hangs")), "after {steps} steps");
        // Another one does not wait for it.
        assert_eq!(guarded.session().expect("on the spare").slots(), 0);
    }
}

#[test]
fn a_device_that_brings_its_thread_down_is_passed_over() {
    let draft = draft();
    let spare = draft.model.clone();
    let device: Sessions = Arc::new(|| panic!("a device's, in a test"));
    let guarded = Guarded::new(device, Arc::new(move || spare.session()), patience(End::Fails));
    guarded.session().expect("on the spare").prefill(&[1, 2]).expect("prefilled");
    assert!(guarded.failure().is_some_and(|why| why.0.contains("thread")));
}

/// What is compiled on the way has its own time.
#[test]
fn compiling_is_not_hanging() {
    let draft = draft();
    let (own, spare, compiles) = (draft.model.clone(), draft.model.clone(), Arc::new(AtomicBool::new(true)));
    let device: Sessions = Arc::new(move || {
        std::thread::sleep(Duration::from_millis(60));
        own.session()
    });
    let (step, compiling) = (Duration::from_millis(2), Duration::from_secs(600));
    let patience = Patience { step, compiling, compiles };
    let guarded = Guarded::new(device, Arc::new(move || spare.session()), patience);
    guarded.session().expect("a session");
    assert!(guarded.failure().is_none());
}

#[test]
fn one_failure_moves_all_sequences() {
    let draft = draft();
    let guarded = guarded(&draft.model, 3, End::Fails);
    let mut sessions = [0, 1].map(|_| guarded.session().expect("a session"));
    for session in &mut sessions {
        session.prefill(&[1, 2, 3]).expect("prefilled");
    }
    let next = |session: &mut Box<dyn LanguageModel>| {
        session.forward(&chain_nodes(&[4], 3), None).expect("rows").row(0).to_vec()
    };
    let rows = [0, 1, 0].map(|i| {
        let row = next(&mut sessions[i]);
        sessions[i].keep(3, &[]).expect("kept");
        row
    });
    assert!(guarded.failure().is_some());
    assert!(rows[0] == rows[1] && rows[0] == rows[2]);
    assert_eq!(guarded.session().expect("on the spare").slots(), 0);
}

#[test]
fn a_device_that_opens_no_sequence_is_passed_over() {
    let draft = draft();
    let spare = draft.model.clone();
    let device: Sessions = Arc::new(|| Err(ModelError("no".into())));
    let guarded = Guarded::new(device, Arc::new(move || spare.session()), patience(End::Fails));
    let mut session = guarded.session().expect("on the spare");
    session.prefill(&[1, 2]).expect("prefilled");
    assert!(guarded.failure().is_some_and(|why| why.0 == "no"));
}

/// In the middle of answers, some while rollouts are under way.
#[test]
fn answers_are_the_targets_own_while_the_device_fails() {
    let questions = questions(2);
    let plain = engine(2);
    let want: Vec<_> =
        questions.iter().map(|question| generate(&plain, &ask(&plain, question, "none")).tokens()).collect();
    for (steps, method, end) in
        [(70, "sps", End::Fails), (90, "mirror", End::Fails), (140, "mirror", End::Hangs), (100, "ssd", End::Fails)]
    {
        let failed = Arc::new(std::sync::Mutex::new(None));
        let place = {
            let failed = failed.clone();
            Box::new(move |model: &Model| {
                let guarded = guarded(model, steps, end);
                *failed.lock().expect("free") = Some(guarded.clone());
                Arc::new(move || guarded.session()) as Sessions
            })
        };
        let engine = engine_on(2, Some(place));
        for (question, want) in questions.iter().zip(&want) {
            let mut spec = ask(&engine, question, method);
            spec.speculation.streams = Some(2);
            assert_eq!(&generate(&engine, &spec).tokens(), want, "{method}, {steps} steps");
        }
        let guarded = failed.lock().expect("free").clone().expect("placed");
        assert!(guarded.failure().is_some(), "{method} took fewer than {steps} steps");
    }
}
