//! One sequence on one model: a decoder's weights and the sequence's cache, as decoding sees them.

use std::sync::Arc;

use specula_decoding::model::{ExitRows, OnExit, chain_nodes};
use specula_decoding::{LanguageModel, Logits, Look, ModelError, NewNode, Reduction, Rows, TokenId};

use crate::config::ModelConfig;
use crate::slots::Slots;

/// Most rows of one prefill pass: bounds the pass's memory and how long other sequences wait for it.
pub const PREFILL_ROWS: usize = 64;

/// What a model computed over a text, as training needs it.
#[derive(Debug, Clone)]
pub struct Trace {
    /// After each layer, `[L, hidden]`.
    pub states: Vec<Vec<f32>>,
    /// `[L, V]`.
    pub logits: Vec<f32>,
}

/// Layers that can be run one after the other, over a cache of their own kind.
pub(crate) trait Decoder: Send + Sync {
    /// What a sequence holds.
    type Cache: Send;
    /// A pass on its way through the layers.
    type Pass;

    fn config(&self) -> &ModelConfig;

    /// The cache of a new sequence.
    fn cache(&self) -> Result<Self::Cache, ModelError>;

    fn slots(cache: &Self::Cache) -> &Slots;

    /// Embeds new nodes, whose tokens lie in the vocabulary, and reserves their slots: the state before layer 1.
    fn begin(&self, cache: &mut Self::Cache, nodes: &[NewNode]) -> Result<Self::Pass, ModelError>;

    /// Runs layers up to, not including, layer `until` (0-based).
    fn run(&self, pass: &mut Self::Pass, cache: &mut Self::Cache, until: usize) -> Result<(), ModelError>;

    /// η and Nₛ, of a draft with streams.
    fn streams(&self) -> Option<(usize, usize)>;

    /// Begins `count` streams of each of the pass's rows `from`, at the layer where streams begin: new rows and slots, in
    /// that order, behind the others.
    fn fork(
        &self,
        pass: &mut Self::Pass,
        cache: &mut Self::Cache,
        from: &[usize],
        count: usize,
    ) -> Result<(), ModelError>;

    /// Drops the newest `count` slots.
    fn drop_newest(&self, cache: &mut Self::Cache, count: usize);

    /// Final norm and head over the current states: `[L, V]`. After all layers these are the model's rows; before that
    /// they are an early exit's, whose adapter comes first where the layer has one.
    fn rows(&self, pass: &Self::Pass, cache: &mut Self::Cache) -> Result<Logits, ModelError>;

    /// The same for who can do with less than whole rows (`None`: who cannot): begun, and there when it is read. On the CPU
    /// the rows are there at once.
    fn begin_rows(
        &self,
        pass: &Self::Pass,
        cache: &mut Self::Cache,
        _reduction: Option<&Reduction>,
    ) -> Result<Coming, ModelError> {
        Ok(Coming::There(Rows::whole(self.rows(pass, cache)?)))
    }

    /// The current states: `[L, hidden]`.
    fn states(&self, pass: &Self::Pass, cache: &Self::Cache) -> Result<Vec<f32>, ModelError>;

    /// Keeps slots `0..from`, then those of `path`.
    fn keep(&self, cache: &mut Self::Cache, from: usize, path: &[usize]) -> Result<(), ModelError>;
}

/// Rows on their way.
pub(crate) enum Coming {
    There(Rows),
    #[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "on the CPU rows are there at once"))]
    Later(Box<dyn Later>),
}

/// Rows that a device is still to compute or to send.
pub(crate) trait Later {
    /// Whether reading them would wait for nothing.
    fn ready(&self) -> bool;

    /// Waits for them, and for nothing that was asked of the device afterwards.
    fn read(self: Box<Self>) -> Result<Rows, ModelError>;
}

impl Coming {
    fn ready(&self) -> bool {
        match self {
            Self::There(_) => true,
            Self::Later(later) => later.ready(),
        }
    }

    fn read(self) -> Result<Rows, ModelError> {
        match self {
            Self::There(rows) => Ok(rows),
            Self::Later(later) => later.read(),
        }
    }
}

/// A [`LanguageModel`] of a decoder.
pub(crate) struct Session<D: Decoder> {
    decoder: Arc<D>,
    cache: D::Cache,
}

impl<D: Decoder> Session<D> {
    /// An empty sequence.
    pub(crate) fn new(decoder: Arc<D>) -> Result<Self, ModelError> {
        let cache = decoder.cache()?;
        Ok(Self { decoder, cache })
    }

    /// Feeds tokens behind the linear path and tells every layer's states.
    pub(crate) fn trace(&mut self, tokens: &[TokenId]) -> Result<Trace, ModelError> {
        let config = self.decoder.config();
        let mut trace = Trace { states: vec![Vec::new(); config.layers], logits: Vec::new() };
        for chunk in tokens.chunks(PREFILL_ROWS) {
            let mut pass = self.begin(&chain_nodes(chunk, self.linear()))?;
            for layer in 0..trace.states.len() {
                self.decoder.run(&mut pass, &mut self.cache, layer + 1)?;
                trace.states[layer].extend(self.decoder.states(&pass, &self.cache)?);
            }
            let rows = self.decoder.rows(&pass, &mut self.cache)?;
            (0..rows.rows()).for_each(|i| trace.logits.extend_from_slice(rows.row(i)));
        }
        Ok(trace)
    }

    fn begin(&mut self, nodes: &[NewNode]) -> Result<D::Pass, ModelError> {
        let vocab_size = self.decoder.config().vocab_size;
        if let Some(bad) = nodes.iter().find(|n| n.token as usize >= vocab_size) {
            return Err(ModelError(format!("token {} lies outside the vocabulary of {vocab_size}", bad.token)));
        }
        self.decoder.begin(&mut self.cache, nodes)
    }
}

impl<D: Decoder> LanguageModel for Session<D> {
    fn vocab_size(&self) -> usize {
        self.decoder.config().vocab_size
    }

    fn context_length(&self) -> usize {
        self.decoder.config().context_length
    }

    fn linear(&self) -> usize {
        D::slots(&self.cache).linear()
    }

    fn slots(&self) -> usize {
        D::slots(&self.cache).len()
    }

    fn forward(&mut self, nodes: &[NewNode], exit: Option<(usize, OnExit<'_>)>) -> Result<Logits, ModelError> {
        let mut pass = self.begin(nodes)?;
        if let Some((layer, on_exit)) = exit {
            self.decoder.run(&mut pass, &mut self.cache, layer)?;
            let rows: ExitRows = self.decoder.rows(&pass, &mut self.cache)?;
            on_exit(rows);
        }
        self.decoder.run(&mut pass, &mut self.cache, self.decoder.config().layers)?;
        self.decoder.rows(&pass, &mut self.cache)
    }

    fn forward_reduced(
        &mut self,
        nodes: &[NewNode],
        reduction: Option<&Reduction>,
        look: Option<Look<'_>>,
    ) -> Result<Rows, ModelError> {
        let layers = self.decoder.config().layers;
        let mut pass = self.begin(nodes)?;
        let Some(look) = look else {
            self.decoder.run(&mut pass, &mut self.cache, layers)?;
            return self.decoder.begin_rows(&pass, &mut self.cache, reduction)?.read();
        };
        self.decoder.run(&mut pass, &mut self.cache, look.layer)?;
        let mut exit = Some(self.decoder.begin_rows(&pass, &mut self.cache, look.reduction.as_ref())?);
        let mut given = look.layer;
        while given < layers {
            if let Some(exit) = exit.take_if(|exit| exit.ready()) {
                (look.on_exit)(exit.read()?);
            }
            // A device is given its layers one by one, lest it run dry, until the exit's rows are there.
            given = if exit.is_some() { given + 1 } else { layers };
            self.decoder.run(&mut pass, &mut self.cache, given)?;
        }
        let rows = self.decoder.begin_rows(&pass, &mut self.cache, reduction)?;
        if let Some(exit) = exit {
            (look.on_exit)(exit.read()?);
        }
        rows.read()
    }

    fn streams(&self) -> usize {
        self.decoder.streams().map_or(0, |(count, _)| count)
    }

    fn look_ahead(&mut self, nodes: &[NewNode], from: &[usize], count: usize) -> Result<Logits, ModelError> {
        let forked = from.len() * count;
        let layers = self.decoder.config().layers;
        let mut pass = self.begin(nodes)?;
        if forked > 0 {
            let (most, carrying) =
                self.decoder.streams().ok_or_else(|| ModelError("this model has no streams".into()))?;
            if count > most {
                return Err(ModelError(format!("{count} streams of a model that has {most}")));
            }
            self.decoder.run(&mut pass, &mut self.cache, layers - carrying)?;
            self.decoder.fork(&mut pass, &mut self.cache, from, count)?;
        }
        self.decoder.run(&mut pass, &mut self.cache, layers)?;
        let rows = self.decoder.rows(&pass, &mut self.cache)?;
        self.decoder.drop_newest(&mut self.cache, forked);
        Ok(rows)
    }

    fn prefill(&mut self, tokens: &[TokenId]) -> Result<(), ModelError> {
        for chunk in tokens.chunks(PREFILL_ROWS) {
            let mut pass = self.begin(&chain_nodes(chunk, self.linear()))?;
            self.decoder.run(&mut pass, &mut self.cache, self.decoder.config().layers)?;
        }
        Ok(())
    }

    fn keep(&mut self, from: usize, path: &[usize]) -> Result<(), ModelError> {
        self.decoder.keep(&mut self.cache, from, path)
    }
}

/// Nodes of `count` streams of each of the rows `from`, the newest `rows` slots being the pass's.
pub fn stream_nodes(slots: &Slots, rows: usize, from: &[usize], count: usize) -> Vec<NewNode> {
    let (first, new) = (slots.len() - rows, slots.len());
    let parent = |i: usize, j: usize| if j == 0 { first + from[i] } else { new + i * count + j - 1 };
    // What a stream stands for has no token; nobody reads it.
    let node = |i, j| NewNode { token: 0, parent: Some(parent(i, j)) };
    (0..from.len()).flat_map(|i| (0..count).map(move |j| node(i, j))).collect()
}

/// Paths of the newest `count` slots.
///
/// # Errors
/// If one is longer than the context.
pub fn new_paths(slots: &Slots, count: usize, config: &ModelConfig) -> Result<Vec<specula_kernels::Path>, ModelError> {
    let paths: Vec<_> = (slots.len() - count..slots.len()).map(|slot| slots.path(slot)).collect();
    match paths.iter().find(|path| path.len() > config.context_length) {
        None => Ok(paths),
        Some(bad) => {
            Err(ModelError(format!("position {} lies outside the context of {}", bad.len() - 1, config.context_length)))
        }
    }
}

#[cfg(test)]
mod tests;
