//! A model's weights on one of the two decoders.

use std::sync::Arc;

use specula_decoding::{LanguageModel, ModelError, TokenId};

use crate::accelerator::Accelerator;
use crate::borrowed::{Borrowed, BorrowedSession};
use crate::config::ModelConfig;
use crate::cores::Cores;
use crate::exit::Exits;
use crate::fast::FastDecoder;
use crate::padding::Padding;
use crate::session::{Decoder, Session, Trace};
use crate::streams::Streams;
use crate::transformer::Transformer;
use crate::weights::Weights;

/// Who computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compute {
    /// The CPU kernels; candle for formats that they do not have.
    #[default]
    Kernels,
    /// Candle, the reference that the kernels are checked against.
    Candle,
    /// Candle on a device.
    On(Accelerator),
}

/// In which form a model is taken from its files; by default as it is, computed by the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Form {
    /// Who computes.
    pub compute: Compute,
    /// Pad the model to so many layers: identity layers (the layer before, with output projections of zero) stand evenly
    /// between its own, so that it computes the same at a larger model's cost.
    pub layers: Option<usize>,
    /// Take matrices in f32, whatever they are stored in.
    pub dequantised: bool,
}

impl Form {
    /// What a model's name says of its form.
    pub(crate) fn label(self) -> String {
        let padded = self.layers.map(|layers| format!(", padded to {layers} layers"));
        format!("{}{}", padded.unwrap_or_default(), if self.dequantised { ", f32" } else { "" })
    }
}

const SHARED: &str = "a model takes exits, streams and cores before its first session";

/// Weights in memory, shared by the sequences that run on them; cheap to clone.
#[derive(Clone)]
pub struct Model {
    decoders: Decoders,
    padding: Padding,
}

#[derive(Clone)]
enum Decoders {
    Kernels(Arc<FastDecoder>),
    Candle {
        decoder: Arc<Transformer>,
        /// Why not the kernels, if they were asked for; else the device, if one was.
        because: Because,
    },
    Borrowed(Arc<Borrowed>),
}

/// Why candle computes.
#[derive(Clone)]
enum Because {
    /// It was asked for.
    Asked,
    /// What the kernels lack.
    Lacking(Arc<str>),
    /// The device that was asked for, and its name.
    On(Accelerator, Arc<str>),
}

impl Model {
    /// `form` says how the weights of a model of the shape `config` are taken.
    pub(crate) fn new(mut config: ModelConfig, weights: Weights<'_>, form: Form) -> Result<Self, String> {
        let padding = Padding::new(config.layers, form.layers)?;
        config.layers = padding.all();
        let mut weights = weights.padded(padding).dequantised(form.dequantised);
        let because = match form.compute {
            Compute::Candle => Because::Asked,
            Compute::On(accelerator) => {
                let (device, name) = accelerator.open()?;
                weights = weights.on(device);
                Because::On(accelerator, name.into())
            }
            Compute::Kernels => match FastDecoder::new(config.clone(), &weights) {
                Ok(decoder) => {
                    let decoders = Decoders::Kernels(Arc::new(decoder));
                    return Ok(Self { decoders, padding });
                }
                // What is wrong with the weights themselves, candle's decoder says below.
                Err(reason) => Because::Lacking(reason.into()),
            },
        };
        let decoder = Arc::new(Transformer::new(config, &weights)?);
        Ok(Self { decoders: Decoders::Candle { decoder, because }, padding })
    }

    /// On a device that weights are given on, of a name for people.
    pub(crate) fn on(
        config: ModelConfig,
        weights: &Weights<'_>,
        (accelerator, name): (Accelerator, Arc<str>),
    ) -> Result<Self, String> {
        let padding = Padding::new(config.layers, None)?;
        let decoder = Arc::new(Transformer::new(config, weights)?);
        Ok(Self { decoders: Decoders::Candle { decoder, because: Because::On(accelerator, name) }, padding })
    }

    /// A model that candle-transformers computes, which has one form.
    pub(crate) fn borrowed(model: Borrowed, form: Form) -> Result<Self, String> {
        let padding = Padding::new(model.config().layers, None)?;
        match (form.layers, form.compute) {
            (Some(_), _) => Err(format!("it cannot be padded: {}", model.excuse())),
            (_, Compute::On(device)) => {
                let name = model.config().architecture.name();
                Err(format!("`{name}` models are computed by candle-transformers on the CPU alone, not on {device}"))
            }
            _ => Ok(Self { decoders: Decoders::Borrowed(Arc::new(model)), padding }),
        }
    }

    /// Why this model answers by the method `none` alone and cannot draft, if so.
    pub fn cannot_speculate(&self) -> Option<String> {
        match &self.decoders {
            Decoders::Borrowed(model) => Some(model.excuse()),
            _ => None,
        }
    }

    /// Gives the model adapters for early exits, numbered by its own layers. Before the first session.
    ///
    /// # Errors
    /// If they are not of this model's shape.
    pub fn set_exits(&mut self, exits: &Exits) -> Result<(), String> {
        exits.check(self.config().hidden, self.padding.own())?;
        let exits = &exits.placed(self.padding);
        match &mut self.decoders {
            Decoders::Kernels(decoder) => Arc::get_mut(decoder).ok_or(SHARED)?.set_exits(exits),
            Decoders::Candle { decoder, .. } => Arc::get_mut(decoder).ok_or(SHARED)?.set_exits(exits),
            Decoders::Borrowed(model) => Err(format!("it has no early exits: {}", model.excuse())),
        }
    }

    /// After how many layers the state is the one after `layers` of the model's own: the same number, unless it is padded.
    pub fn place(&self, layers: usize) -> usize {
        self.padding.place(layers)
    }

    /// Gives the model streams. Before the first session.
    ///
    /// # Errors
    /// If they are not of this model's shape.
    pub fn set_streams(&mut self, streams: &Streams) -> Result<(), String> {
        streams.check(self.config())?;
        match &mut self.decoders {
            Decoders::Kernels(decoder) => Arc::get_mut(decoder).ok_or(SHARED)?.set_streams(streams),
            Decoders::Candle { decoder, .. } => Arc::get_mut(decoder).ok_or(SHARED)?.set_streams(streams),
            Decoders::Borrowed(model) => Err(format!("it has no streams: {}", model.excuse())),
        }
    }

    /// Gives the model cores to work on; candle's decoder uses the caller's alone. Before the first session.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn set_cores(&mut self, cores: &Cores) -> Result<(), String> {
        match &mut self.decoders {
            Decoders::Kernels(decoder) => Arc::get_mut(decoder).ok_or(SHARED)?.set_cores(cores),
            Decoders::Candle { .. } | Decoders::Borrowed(_) => Ok(()),
        }
    }

    /// Whether passes use the cores lent to the model too, from the next one on. For the thread that computes.
    pub fn spread(&self, on: bool) {
        if let Decoders::Kernels(decoder) = &self.decoders {
            decoder.crew().spread(on);
        }
    }

    /// η; 0 for a model without streams.
    pub fn streams(&self) -> usize {
        let streams = match &self.decoders {
            Decoders::Kernels(decoder) => decoder.streams(),
            Decoders::Candle { decoder, .. } => decoder.streams(),
            Decoders::Borrowed(_) => None,
        };
        streams.map_or(0, |(count, _)| count)
    }

    /// Embeddings `[η, hidden]` of the streams, and the layers Nₛ that carry them, of a model that has streams.
    pub fn stream_embeddings(&self) -> Option<(Vec<f32>, usize)> {
        match &self.decoders {
            Decoders::Kernels(decoder) => decoder.stream_embeddings(),
            Decoders::Candle { decoder, .. } => decoder.stream_embeddings(),
            Decoders::Borrowed(_) => None,
        }
    }

    /// Rows of the embedding table, `[L, hidden]`: the states before layer 1, but for learned positions.
    ///
    /// # Errors
    /// If a token lies outside the vocabulary, or the model is a borrowed one.
    pub fn embed(&self, tokens: &[TokenId]) -> Result<Vec<f32>, ModelError> {
        let vocab_size = self.config().vocab_size;
        if let Some(bad) = tokens.iter().find(|token| **token as usize >= vocab_size) {
            return Err(ModelError(format!("token {bad} lies outside the vocabulary of {vocab_size}")));
        }
        match &self.decoders {
            Decoders::Kernels(decoder) => Ok(decoder.embeddings(tokens)),
            Decoders::Candle { decoder, .. } => decoder.embeddings(tokens),
            Decoders::Borrowed(model) => Err(ModelError(format!("no table to read: {}", model.excuse()))),
        }
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        match &self.decoders {
            Decoders::Kernels(decoder) => decoder.config(),
            Decoders::Candle { decoder, .. } => decoder.config(),
            Decoders::Borrowed(model) => model.config(),
        }
    }

    /// An empty sequence.
    ///
    /// # Errors
    /// If there is no room for its cache.
    pub fn session(&self) -> Result<Box<dyn LanguageModel>, ModelError> {
        Ok(match &self.decoders {
            Decoders::Kernels(decoder) => Box::new(Session::new(decoder.clone())?),
            Decoders::Candle { decoder, .. } => Box::new(Session::new(decoder.clone())?),
            Decoders::Borrowed(model) => Box::new(BorrowedSession::new(model.clone())),
        })
    }

    /// Every layer's states and every row's logits over a text.
    ///
    /// # Errors
    /// As for [`LanguageModel::forward`].
    pub fn trace(&self, tokens: &[TokenId]) -> Result<Trace, ModelError> {
        match &self.decoders {
            Decoders::Kernels(decoder) => Session::new(decoder.clone())?.trace(tokens),
            Decoders::Candle { decoder, .. } => Session::new(decoder.clone())?.trace(tokens),
            Decoders::Borrowed(model) => Err(ModelError(format!("no states to look at: {}", model.excuse()))),
        }
    }

    /// Who computes.
    pub fn compute(&self) -> Compute {
        match &self.decoders {
            Decoders::Kernels(_) => Compute::Kernels,
            Decoders::Candle { because: Because::On(accelerator, _), .. } => Compute::On(*accelerator),
            Decoders::Candle { .. } | Decoders::Borrowed(_) => Compute::Candle,
        }
    }

    /// Whether a row's bits depend on its own path alone: not on the rows beside it, nor on where the cache came from.
    pub fn row_invariant(&self) -> bool {
        match &self.decoders {
            Decoders::Kernels(_) | Decoders::Borrowed(_) => true,
            Decoders::Candle { decoder, .. } => decoder.row_invariant(),
        }
    }

    /// Who computes, for people: the kernels' instructions, or why it is candle.
    pub fn computed_by(&self) -> String {
        match &self.decoders {
            Decoders::Kernels(decoder) => format!("kernels, {}", decoder.isa().name()),
            Decoders::Candle { because: Because::Asked, .. } => "candle".into(),
            Decoders::Candle { because: Because::Lacking(reason), .. } => {
                format!("candle: the kernels lack this format ({reason})")
            }
            Decoders::Candle { decoder, because: Because::On(accelerator, name) } => {
                format!("candle on {accelerator} ({name}) in {}", decoder.kind().as_str())
            }
            Decoders::Borrowed(_) => "candle-transformers, in f32, token by token; method `none` alone".into(),
        }
    }
}
