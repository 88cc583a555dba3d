//! Models that candle-transformers computes and no decoder of ours: one token after the other, in f32, over caches that
//! cannot be cut back. So they answer by the method `none`, with all rules and plugins, and never draft.

mod family;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Result as CandleResult, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use serde_json::Value as Json;
use specula_decoding::model::OnExit;
use specula_decoding::{LanguageModel, Logits, ModelError, NewNode, TokenId};

use crate::config::ModelConfig;
use crate::weights::refuse_unasked;
use family::Family;

/// Immutable weights; sequences bring their caches.
pub(crate) struct Borrowed {
    config: ModelConfig,
    /// The model with empty caches; its tensors are shared by all copies.
    empty: Family,
}

impl Borrowed {
    /// Takes the weights that the model asks for, all of them and no others. `json` is its config.json.
    ///
    /// # Errors
    /// What candle-transformers would compute otherwise than the model's authors, or what is wrong with the weights.
    pub(crate) fn new(config: ModelConfig, json: &Json, files: &MmapedSafetensors) -> Result<Self, String> {
        let asked = Mutex::default();
        let source = Source { files, asked: &asked };
        let builder = VarBuilder::from_backend(Box::new(source), DType::F32, Device::Cpu);
        let empty = Family::new(&config, json, builder)?;
        let names: Vec<String> = files.tensors().into_iter().map(|(name, _)| name).collect();
        refuse_unasked(&names, &asked.into_inner().unwrap_or_else(PoisonError::into_inner))?;
        Ok(Self { config, empty })
    }

    pub(crate) fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Why it cannot speculate.
    pub(crate) fn excuse(&self) -> String {
        format!(
            "`{}` models are computed by candle-transformers, whose caches cannot be cut back",
            self.config.architecture.name()
        )
    }
}

/// Safetensors that note what is asked of them.
struct Source<'a> {
    files: &'a MmapedSafetensors,
    asked: &'a Mutex<HashSet<String>>,
}

impl SimpleBackend for Source<'_> {
    fn get(&self, shape: Shape, name: &str, init: Init, kind: DType, device: &Device) -> CandleResult<Tensor> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        SimpleBackend::get(self.files, shape, name, init, kind, device)
    }

    fn get_unchecked(&self, name: &str, kind: DType, device: &Device) -> CandleResult<Tensor> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        self.files.get_unchecked(name, kind, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.files.contains_tensor(name)
    }
}

/// One sequence.
pub(crate) struct BorrowedSession {
    model: Arc<Borrowed>,
    running: Family,
    /// Tokens in the cache.
    fed: usize,
}

impl BorrowedSession {
    pub(crate) fn new(model: Arc<Borrowed>) -> Self {
        Self { running: model.empty.clone(), model, fed: 0 }
    }

    /// The row after one more token.
    fn step(&mut self, token: TokenId) -> Result<Vec<f32>, ModelError> {
        let ModelConfig { vocab_size, context_length, .. } = self.model.config;
        if token as usize >= vocab_size {
            return Err(ModelError(format!("token {token} lies outside the vocabulary of {vocab_size}")));
        }
        if self.fed >= context_length {
            return Err(ModelError(format!("position {} lies outside the context of {context_length}", self.fed)));
        }
        let row = self.running.step(token, self.fed).map_err(|error| ModelError(error.to_string()))?;
        self.fed += 1;
        Ok(row)
    }

    fn refuse<T>(&self, what: &str) -> Result<T, ModelError> {
        Err(ModelError(format!("{what}: {}", self.model.excuse())))
    }
}

impl LanguageModel for BorrowedSession {
    fn vocab_size(&self) -> usize {
        self.model.config.vocab_size
    }

    fn context_length(&self) -> usize {
        self.model.config.context_length
    }

    fn linear(&self) -> usize {
        self.fed
    }

    fn slots(&self) -> usize {
        self.fed
    }

    fn forward(&mut self, nodes: &[NewNode], exit: Option<(usize, OnExit<'_>)>) -> Result<Logits, ModelError> {
        if exit.is_some() {
            return self.refuse("an early exit");
        }
        let follows = |(i, node): (usize, &NewNode)| node.parent == (self.fed + i).checked_sub(1);
        if !nodes.iter().enumerate().all(follows) {
            return self.refuse("a tree");
        }
        let mut rows = Vec::with_capacity(nodes.len() * self.vocab_size());
        for node in nodes {
            rows.extend(self.step(node.token)?);
        }
        Ok(Logits::new(rows, self.vocab_size()))
    }

    fn prefill(&mut self, tokens: &[TokenId]) -> Result<(), ModelError> {
        // One by one too: a row's bits must not depend on how the prompt was cut.
        tokens.iter().try_for_each(|token| self.step(*token).map(drop))
    }

    fn keep(&mut self, from: usize, path: &[usize]) -> Result<(), ModelError> {
        match (from, path) {
            (from, []) if from == self.fed => Ok(()),
            (0, []) => {
                *self = Self::new(self.model.clone());
                Ok(())
            }
            _ => self.refuse("a part of the cache"),
        }
    }
}
