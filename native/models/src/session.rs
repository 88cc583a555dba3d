//! One sequence on one model: the transformer's weights and the sequence's cache, as decoding sees them.

use std::sync::Arc;

use specula_decoding::model::{ExitRows, OnExit, chain_nodes};
use specula_decoding::{LanguageModel, Logits, ModelError, NewNode, TokenId};

use crate::cache::Cache;
use crate::transformer::Transformer;

/// Most rows of one prefill pass: bounds the pass's memory and how long other sequences wait for it.
pub const PREFILL_ROWS: usize = 64;

/// A [`LanguageModel`] on candle.
pub struct Session {
    model: Arc<Transformer>,
    cache: Cache,
}

impl Session {
    /// An empty sequence.
    ///
    /// # Errors
    /// If the device has no room for its cache.
    pub fn new(model: Arc<Transformer>) -> Result<Self, ModelError> {
        let cache = model.cache().map_err(failure)?;
        Ok(Self { model, cache })
    }

    fn try_forward(&mut self, nodes: &[NewNode], exit: Option<(usize, OnExit<'_>)>) -> candle_core::Result<Logits> {
        let mut running = self.model.begin(&mut self.cache, nodes)?;
        if let Some((layer, on_exit)) = exit {
            self.model.run(&mut running, &mut self.cache, layer)?;
            let rows: ExitRows = self.model.rows(&running)?;
            on_exit(rows);
        }
        self.model.run(&mut running, &mut self.cache, self.model.config().layers)?;
        self.model.rows(&running)
    }

    fn try_prefill(&mut self, tokens: &[TokenId]) -> candle_core::Result<()> {
        for chunk in tokens.chunks(PREFILL_ROWS) {
            let nodes = chain_nodes(chunk, self.cache.linear());
            let mut running = self.model.begin(&mut self.cache, &nodes)?;
            self.model.run(&mut running, &mut self.cache, self.model.config().layers)?;
        }
        Ok(())
    }
}

impl LanguageModel for Session {
    fn vocab_size(&self) -> usize {
        self.model.config().vocab_size
    }

    fn context_length(&self) -> usize {
        self.model.config().context_length
    }

    fn linear(&self) -> usize {
        self.cache.linear()
    }

    fn slots(&self) -> usize {
        self.cache.slots()
    }

    fn forward(&mut self, nodes: &[NewNode], exit: Option<(usize, OnExit<'_>)>) -> Result<Logits, ModelError> {
        self.try_forward(nodes, exit).map_err(failure)
    }

    fn prefill(&mut self, tokens: &[TokenId]) -> Result<(), ModelError> {
        self.try_prefill(tokens).map_err(failure)
    }

    fn keep(&mut self, from: usize, path: &[usize]) -> Result<(), ModelError> {
        self.cache.keep(from, path).map_err(failure)
    }
}

fn failure(error: candle_core::Error) -> ModelError {
    ModelError(error.to_string())
}
