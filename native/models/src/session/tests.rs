//! In which order a device is given its work, and its rows are read.

use std::sync::{Arc, Mutex};

use specula_decoding::{Logits, Look, ModelError, NewNode, Reduction, Rows};

use super::{Coming, Decoder, Later, Session};
use crate::config::{Activation, Architecture, ModelConfig, NormKind};
use crate::slots::Slots;

type Log = Arc<Mutex<Vec<String>>>;

/// A device of eight layers that notes what it is asked. Its rows are there when they were asked for so many times.
struct Slow {
    config: ModelConfig,
    log: Log,
    patience: usize,
}

struct Awaited {
    log: Log,
    asked: Mutex<usize>,
    patience: usize,
}

impl Later for Awaited {
    fn ready(&self) -> bool {
        let mut asked = self.asked.lock().expect("one thread");
        *asked += 1;
        *asked > self.patience
    }

    fn read(self: Box<Self>) -> Result<Rows, ModelError> {
        note(&self.log, "read");
        Ok(Rows::whole(Logits::new(vec![0.0], 1)))
    }
}

fn note(log: &Log, what: &str) {
    log.lock().expect("one thread").push(what.to_owned());
}

impl Decoder for Slow {
    type Cache = Slots;
    type Pass = ();

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn cache(&self) -> Result<Slots, ModelError> {
        Ok(Slots::default())
    }

    fn slots(cache: &Slots) -> &Slots {
        cache
    }

    fn begin(&self, cache: &mut Slots, nodes: &[NewNode]) -> Result<(), ModelError> {
        cache.add(nodes).map_err(ModelError)
    }

    fn run(&self, (): &mut (), _: &mut Slots, until: usize) -> Result<(), ModelError> {
        note(&self.log, &format!("layers to {until}"));
        Ok(())
    }

    fn streams(&self) -> Option<(usize, usize)> {
        None
    }

    fn fork(&self, (): &mut (), _: &mut Slots, _: &[usize], _: usize) -> Result<(), ModelError> {
        Ok(())
    }

    fn drop_newest(&self, cache: &mut Slots, count: usize) {
        cache.drop_newest(count);
    }

    fn rows(&self, (): &(), _: &mut Slots) -> Result<Logits, ModelError> {
        Ok(Logits::new(vec![0.0], 1))
    }

    fn begin_rows(&self, (): &(), _: &mut Slots, _: Option<&Reduction>) -> Result<Coming, ModelError> {
        note(&self.log, "rows");
        let (log, asked) = (self.log.clone(), Mutex::new(0));
        Ok(Coming::Later(Box::new(Awaited { log, asked, patience: self.patience })))
    }

    fn states(&self, (): &(), _: &Slots) -> Result<Vec<f32>, ModelError> {
        Ok(Vec::new())
    }

    fn keep(&self, cache: &mut Slots, from: usize, path: &[usize]) -> Result<(), ModelError> {
        cache.keep(from, path).map(drop).map_err(ModelError)
    }
}

/// What a device is asked in a pass with a look after four layers, whose rows are there when asked for the
/// `patience`-and-first time.
fn asked(patience: usize) -> Vec<String> {
    let config = ModelConfig {
        architecture: Architecture::Llama,
        vocab_size: 1,
        hidden: 1,
        layers: 8,
        heads: 1,
        kv_heads: 1,
        head_dim: 2,
        feed_forward: 1,
        context_length: 8,
        rope_frequencies: vec![],
        learned_positions: None,
        norm: NormKind::RootMeanSquare,
        norm_eps: 1e-5,
        activation: Activation::GatedSilu,
        qkv_bias: false,
        output_bias: false,
        qk_norm: false,
        tied_head: true,
        end_tokens: vec![],
    };
    let log = Log::default();
    let mut session = Session::new(Arc::new(Slow { config, log: log.clone(), patience })).expect("room");
    let mut on_exit = |_: Rows| note(&log, "told");
    let look = Look { layer: 4, reduction: None, on_exit: &mut on_exit };
    let node = NewNode { token: 0, parent: None };
    specula_decoding::LanguageModel::forward_reduced(&mut session, &[node], None, Some(look)).expect("rows");
    drop(session);
    let told = log.lock().expect("one thread");
    told.clone()
}

#[test]
fn a_device_is_given_layers_until_the_exit_is_there() {
    let at_once = ["layers to 4", "rows", "read", "told", "layers to 8", "rows", "read"];
    assert_eq!(asked(0), at_once, "as on the CPU");
    let between = ["layers to 4", "rows", "layers to 5", "layers to 6", "read", "told", "layers to 8", "rows", "read"];
    assert_eq!(asked(2), between);
    let layers = (5..=8).map(|layer| format!("layers to {layer}"));
    let late: Vec<String> = ["layers to 4".to_owned(), "rows".to_owned()].into_iter().chain(layers).collect();
    let end = ["rows", "read", "told", "read"].map(str::to_owned);
    assert_eq!(asked(9), [late, end.to_vec()].concat(), "nothing waits for it before all is queued");
}
