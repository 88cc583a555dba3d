//! An engine on the embedded pair, and generations on it.
#![allow(dead_code, reason = "each test uses its part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use specula_decoding::LogProbs;
use specula_engine::{
    DraftDevice, Engine, EngineConfig, Event, EventStream, Finished, PluginSpec, RequestSpec, Round, SettingsSpec,
};
use specula_models::{Cores, LoadedModel, Streams, available_cores};
use specula_policies::{Limits, Registry};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// An engine with `max_running` places to run and as many to wait, and the shipped plugins.
pub(crate) fn engine(max_running: usize) -> Engine {
    engine_on(max_running, None)
}

/// The same with its draft on a device.
pub(crate) fn engine_on(max_running: usize, draft_device: Option<DraftDevice>) -> Engine {
    let open = |name: &str| LoadedModel::open(&root().join("native/weights").join(name)).expect("embedded weights");
    let plugins = Registry::new(Limits::default()).expect("the sandbox works here");
    let folder = root().join("target/dist/plugins");
    let refused = plugins.load_folder(&folder);
    assert!(
        refused.is_empty() && !plugins.list("local").is_empty(),
        "`cargo xtask build --only plugins` makes {folder:?}"
    );
    let mut draft = open("draft.gguf");
    draft.model.set_streams(&streams(draft.model.config().hidden)).expect("of its shape");
    Engine::start(EngineConfig {
        target: open("target.gguf"),
        draft: Some(draft),
        draft_device,
        draft_latency: None,
        plugins: Arc::new(plugins),
        default_method: None,
        coverage: None,
        max_running,
        max_waiting: max_running,
        cores: cores(),
    })
    .expect("the embedded pair fits")
}

/// As the binary has it: a core each, the draft's lent to the target.
pub(crate) fn cores() -> (Cores, Cores) {
    match available_cores()[..] {
        [first, .., last] => (Cores { own: vec![first], lent: vec![last] }, Cores { own: vec![last], lent: vec![] }),
        _ => Default::default(),
    }
}

/// Two streams that guess badly: the text must not care.
fn streams(hidden: usize) -> Streams {
    let values: Vec<f32> = (0..2 * hidden).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.002).collect();
    Streams { embeddings: Tensor::from_vec(values, (2, hidden), &Device::Cpu).expect("cpu"), layers: 1 }
}

/// Questions of the validation pages: every `step`-th, short and long in turn.
pub(crate) fn questions(count: usize) -> Vec<String> {
    let file = std::fs::read_to_string(root().join("native/weights/prompts.jsonl")).expect("prompts");
    let pages: Vec<serde_json::Value> = file.lines().map(|l| serde_json::from_str(l).expect("JSON lines")).collect();
    let step = pages.len() / count;
    let text =
        |i: usize| pages[i * step][if i.is_multiple_of(2) { "short" } else { "long" }].as_str().map(str::to_owned);
    (0..count).map(|i| text(i).expect("a question")).collect()
}

/// A chat with one question.
pub(crate) fn ask(engine: &Engine, question: &str, method: &str) -> RequestSpec {
    let prompt = engine.encode_chat(&[("user".into(), question.into())]).expect("a plain chat");
    let speculation = SettingsSpec { method: Some(method.into()), ..SettingsSpec::default() };
    RequestSpec { prompt, max_tokens: Some(32), seed: Some(7), speculation, ..RequestSpec::default() }
}

pub(crate) fn plugin(name: &str, config: serde_json::Value) -> PluginSpec {
    PluginSpec { name: name.into(), config, on_failure: None }
}

pub(crate) fn submit(engine: &Engine, spec: &RequestSpec) -> EventStream {
    let request = engine.check(spec.clone()).unwrap_or_else(|error| panic!("{error}: {spec:?}"));
    engine.submit(request).expect("a free place")
}

/// What a generation said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) rounds: Vec<Round>,
    pub(crate) finished: Finished,
}

impl Said {
    pub(crate) fn tokens(&self) -> Vec<u32> {
        self.rounds.iter().flat_map(|round| round.tokens.iter().map(|token| token.id)).collect()
    }

    pub(crate) fn logprobs(&self) -> Vec<Option<&LogProbs>> {
        self.rounds.iter().flat_map(|round| round.tokens.iter().map(|token| token.logprobs.as_ref())).collect()
    }

    pub(crate) fn text(&self) -> String {
        self.rounds.iter().flat_map(|round| round.tokens.iter().map(|token| token.text.as_str())).collect()
    }
}

pub(crate) fn listen(mut events: EventStream) -> Said {
    let mut rounds = Vec::new();
    loop {
        match events.blocking_next().expect("a stream ends with `Finished`") {
            Event::Started(_) | Event::Prompt(_) => {}
            Event::Round(round) => rounds.push(round),
            Event::Finished(finished) => return Said { rounds, finished: *finished },
            Event::Failed(failure) => panic!("{failure}"),
        }
    }
}

pub(crate) fn generate(engine: &Engine, spec: &RequestSpec) -> Said {
    listen(submit(engine, spec))
}
