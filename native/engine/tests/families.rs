//! The promise on small random pairs of every family that speculates: token for token what the target alone gives, with a
//! draft that is often wrong and with one that is always right.

mod common;
#[path = "../../models/tests/random/mod.rs"]
mod random;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use common::{cores, generate};
use random::{Model, all, fresh, open_once, text};
use specula_engine::{Engine, EngineConfig, RequestSpec, SettingsSpec};
use specula_models::{LoadedModel, Streams};
use specula_policies::{Limits, Registry};

const METHODS: [&str; 6] = ["auto", "sps", "lookup", "recycling", "ssd", "mirror"];

fn loaded(model: &Model) -> LoadedModel {
    let path = fresh(model.name);
    model.write_folder(&path, DType::F32, 1);
    open_once(&path)
}

fn engine(target: LoadedModel, mut draft: LoadedModel) -> Engine {
    let hidden = draft.model.config().hidden;
    let values: Vec<f32> = (0..2 * hidden).map(|i| (i * 37 % 101) as f32 * 0.01 - 0.5).collect();
    let embeddings = Tensor::from_vec(values, (2, hidden), &Device::Cpu).expect("cpu");
    draft.model.set_streams(&Streams { embeddings, layers: 1 }).expect("of its shape");
    Engine::start(EngineConfig {
        target,
        draft: Some(draft),
        draft_device: None,
        draft_latency: None,
        plugins: Arc::new(Registry::new(Limits::default()).expect("the sandbox works here")),
        default_method: None,
        coverage: None,
        max_running: 1,
        max_waiting: 1,
        cores: cores(),
    })
    .expect("a pair")
}

fn asked(temperature: f64, method: &str) -> RequestSpec {
    RequestSpec {
        prompt: text(20),
        max_tokens: Some(40),
        temperature: Some(temperature),
        seed: Some(3),
        ignore_eos: true,
        speculation: SettingsSpec { method: Some(method.into()), ..SettingsSpec::default() },
        ..RequestSpec::default()
    }
}

fn compare(engine: &Engine, what: &str) {
    for temperature in [0.0, 1.0] {
        let plain = generate(engine, &asked(temperature, "none")).tokens();
        assert_eq!(plain.len(), 40);
        for method in METHODS {
            let said = generate(engine, &asked(temperature, method));
            assert_eq!(said.tokens(), plain, "{what}, {method}, temperature {temperature}");
            assert!(said.finished.report.lossless(), "{what}, {method}");
        }
    }
}

#[test]
fn every_method_gives_the_targets_own_tokens_in_every_family() {
    for model in all() {
        // Other widths are other weights.
        let other = Model {
            hidden: 128,
            heads: 2,
            kv_heads: model.kv_heads.min(2),
            feed_forward: 256,
            head_dim: 64,
            ..model.clone()
        };
        compare(&engine(loaded(&model), loaded(&other)), model.name);
        let same = engine(loaded(&model), loaded(&model));
        compare(&same, model.name);
        // Whole windows, whatever they cost on this machine: four of each five tokens, unless an end token is among them.
        let mut windows = asked(1.0, "sps");
        windows.deterministic = true;
        windows.speculation.window = Some(4);
        let accepted = generate(&same, &windows).finished.report.totals.accepted;
        assert!((24..=32).contains(&accepted), "{}: its own draft was right {accepted} times", model.name);
    }
}
