//! Speculative streams: a draft's own look-ahead (arXiv:2402.11131).

use std::collections::HashMap;
use std::path::Path;

use candle_core::safetensors::load_buffer;
use candle_core::{DType, Device, Tensor};

use crate::config::ModelConfig;

/// The last `layers` layers carry, beside each token's main stream, one more for each row of `embeddings`: stream j begins
/// as the main state plus its embedding, attends to the main stream up to its token and to streams ≤ j of its token, and is
/// read as the token j + 1 ahead.
#[derive(Debug, Clone)]
pub struct Streams {
    /// Learned, `[η, hidden]`.
    pub embeddings: Tensor,
    /// Nₛ.
    pub layers: usize,
}

const EMBEDDINGS: &str = "embeddings";

impl Streams {
    /// Opens `streams.safetensors`: `embeddings` `[η, hidden]`, and Nₛ as the note `layers`.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn open(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|e| e.to_string());
        bytes.and_then(|bytes| Self::from_bytes(&bytes)).map_err(|why| format!("{}: {why}", path.display()))
    }

    /// The same from the bytes of a file.
    ///
    /// # Errors
    /// As there.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let notes = safetensors::SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?.1.metadata().clone();
        let layers = notes.as_ref().and_then(|notes| notes.get("layers")).and_then(|layers| layers.parse().ok());
        let layers = layers.ok_or("the note `layers` is missing or no number")?;
        let mut tensors: HashMap<String, Tensor> = load_buffer(bytes, &Device::Cpu).map_err(|e| e.to_string())?;
        let embeddings = tensors.remove(EMBEDDINGS).ok_or("tensor `embeddings` is missing")?;
        let embeddings = embeddings.to_dtype(DType::F32).map_err(|e| e.to_string())?;
        Ok(Self { embeddings, layers })
    }

    /// η.
    pub fn count(&self) -> usize {
        self.embeddings.dims().first().copied().unwrap_or(0)
    }

    /// Refuses streams that are not of this model's shape.
    pub(crate) fn check(&self, config: &ModelConfig) -> Result<(), String> {
        if !(1..=config.layers).contains(&self.layers) {
            return Err(format!(
                "streams in the last {} layers: a model of {} has 1 to all",
                self.layers, config.layers
            ));
        }
        match self.embeddings.dims() {
            [count, hidden] if *count > 0 && *hidden == config.hidden => Ok(()),
            other => {
                Err(format!("stream embeddings are {other:?}; a model of width {0} needs [η, {0}]", config.hidden))
            }
        }
    }
}
