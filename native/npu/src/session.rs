//! A sequence whose steps run as graphs. The cache is the host's, so cutting back, trees and kept paths are bookkeeping.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use specula_decoding::model::{OnExit, chain_nodes};
use specula_decoding::{LanguageModel, Logits, ModelError, NewNode, TokenId};
use specula_models::{Model, Slots, new_paths, stream_nodes};

use crate::bucket::Bucket;
use crate::columns::Cache;
use crate::graphs::Graphs;
use crate::inputs::Inputs;

/// A draft on a device: what its sequences share.
#[derive(Clone)]
pub struct Device {
    graphs: Arc<Mutex<Graphs>>,
    /// Looks up embeddings and says how positions turn.
    model: Model,
    /// `[η, hidden]`.
    streams: Arc<[f32]>,
}

impl Device {
    /// Of a model and its graphs.
    pub fn new(model: Model, graphs: Graphs) -> Self {
        let streams = model.stream_embeddings().map_or_else(Vec::new, |(embeddings, _)| embeddings);
        Self { graphs: Arc::new(Mutex::new(graphs)), model, streams: streams.into() }
    }

    /// Compiles the graphs that every sequence begins with, unless they are.
    ///
    /// # Errors
    /// The provider's.
    pub fn prepare(&self) -> Result<(), ModelError> {
        self.graphs().prepare()
    }

    /// An empty sequence.
    pub fn session(&self) -> Box<dyn LanguageModel> {
        let cache = self.graphs().cache();
        Box::new(NpuSession { device: self.clone(), slots: Slots::default(), cache, inputs: Inputs::default() })
    }

    fn graphs(&self) -> MutexGuard<'_, Graphs> {
        self.graphs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct NpuSession {
    device: Device,
    slots: Slots,
    cache: Cache,
    inputs: Inputs,
}

/// Rows that are fed at once, and streams of some of them.
struct Pass<'a> {
    nodes: &'a [NewNode],
    /// Places among `nodes` from which streams begin.
    from: &'a [usize],
    count: usize,
    head: bool,
}

impl NpuSession {
    /// Feeds rows, no more than a bucket holds. Gives the logits of `nodes`, and those of the streams.
    fn pass(&mut self, pass: &Pass<'_>) -> Result<(Vec<f32>, Vec<f32>), ModelError> {
        let config = self.device.model.config();
        let (first, rows, forked) = (self.slots.len(), pass.nodes.len(), pass.from.len() * pass.count);
        self.slots.add(pass.nodes).map_err(ModelError)?;
        self.slots.add(&stream_nodes(&self.slots, rows, pass.from, pass.count)).map_err(ModelError)?;
        let paths = new_paths(&self.slots, rows + forked, config)?;
        self.slots.drop_newest(forked);
        self.cache.reserve(Bucket::past_for(first + rows));
        let forks = if pass.count == 0 { 0 } else { pass.from.len() };
        let streams = self.device.streams.len() / config.hidden;
        let bucket = Bucket::of((rows, pass.head), (forks, streams), self.cache.past());
        self.inputs.embed(bucket, pass.nodes, &self.device.model)?;
        self.inputs.place(bucket, (first, rows), &paths, config);
        self.inputs.fork(bucket, (pass.from, pass.count), &self.device.streams, config.hidden);
        let mut logits = self.device.graphs().run(bucket, &self.inputs, &mut self.cache, (first, rows))?;
        if !pass.head {
            return Ok((Vec::new(), Vec::new()));
        }
        let (all, vocab) = (bucket.rows + bucket.ahead, config.vocab_size);
        if logits.len() != all * vocab {
            return Err(ModelError(format!("{} logits of {all} rows of {vocab}", logits.len())));
        }
        if !logits.iter().all(|logit| logit.is_finite()) {
            return Err(ModelError("the device gives logits that are no numbers".into()));
        }
        let of_streams = logits[bucket.rows * vocab..(bucket.rows + forked) * vocab].to_vec();
        logits.truncate(rows * vocab);
        Ok((logits, of_streams))
    }
}

impl LanguageModel for NpuSession {
    fn vocab_size(&self) -> usize {
        self.device.model.config().vocab_size
    }

    fn context_length(&self) -> usize {
        self.device.model.config().context_length
    }

    fn linear(&self) -> usize {
        self.slots.linear()
    }

    fn slots(&self) -> usize {
        self.slots.len()
    }

    fn forward(&mut self, nodes: &[NewNode], exit: Option<(usize, OnExit<'_>)>) -> Result<Logits, ModelError> {
        match exit {
            None => self.look_ahead(nodes, &[], 0),
            Some(_) => Err(ModelError("a draft on an accelerator has no early exit".into())),
        }
    }

    fn streams(&self) -> usize {
        self.device.streams.len() / self.device.model.config().hidden
    }

    fn look_ahead(&mut self, nodes: &[NewNode], from: &[usize], count: usize) -> Result<Logits, ModelError> {
        if !from.is_empty() && count > self.streams() {
            return Err(ModelError(format!("{count} streams of a model that has {}", self.streams())));
        }
        let most = Bucket::most_rows(true);
        let (mut rows, mut ahead) = (Vec::new(), Vec::new());
        for (i, nodes) in nodes.chunks(most).enumerate() {
            let inside = i * most..i * most + nodes.len();
            let from: Vec<usize> =
                from.iter().filter(|row| inside.contains(row)).map(|row| row - inside.start).collect();
            let (new, of_streams) = self.pass(&Pass { nodes, from: &from, count, head: true })?;
            rows.extend(new);
            ahead.extend(of_streams);
        }
        rows.append(&mut ahead);
        Ok(Logits::new(rows, self.vocab_size()))
    }

    fn prefill(&mut self, tokens: &[TokenId]) -> Result<(), ModelError> {
        for chunk in tokens.chunks(Bucket::most_rows(false)) {
            let nodes = chain_nodes(chunk, self.slots.linear());
            self.pass(&Pass { nodes: &nodes, from: &[], count: 0, head: false })?;
        }
        Ok(())
    }

    fn keep(&mut self, from: usize, path: &[usize]) -> Result<(), ModelError> {
        for (from, to) in self.slots.keep(from, path).map_err(ModelError)? {
            self.cache.copy(from, to);
        }
        Ok(())
    }
}
