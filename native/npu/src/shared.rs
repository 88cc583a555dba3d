//! Weights that all graphs of a draft use: on the CPU one copy in memory, packed once, however many graphs there are.

use std::path::Path;
use std::sync::Arc;

use half::f16;
use ort::session::builder::{PrepackedWeights, SessionBuilder};
use ort::value::{DynValue, Tensor};

use crate::onnx::{FLOAT16, INT8};
use crate::runtime::text;
use crate::weights::{Layout, Stored};

pub(crate) struct Shared {
    weights: Vec<(String, Arc<DynValue>)>,
    packed: PrepackedWeights,
}

impl Shared {
    /// Reads the weights' file.
    ///
    /// # Errors
    /// If it cannot be read, or holds something else.
    pub(crate) fn read(layout: &Layout, path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let value = |stored: &Stored| {
            let at = stored.offset as usize;
            let bytes = bytes.get(at..at + stored.length as usize);
            let bytes = bytes.ok_or_else(|| format!("{} is cut off", path.display()))?;
            Ok((stored.name.clone(), Arc::new(tensor(stored, bytes)?)))
        };
        let weights = layout.all_stored().map(value).collect::<Result<_, String>>()?;
        Ok(Self { weights, packed: PrepackedWeights::new() })
    }

    /// Has a graph use them instead of reading the file.
    pub(crate) fn give(&self, builder: SessionBuilder) -> Result<SessionBuilder, String> {
        let builder = builder.with_prepacked_weights(&self.packed).map_err(text)?;
        self.weights.iter().try_fold(builder, |builder, (name, value)| {
            let given = builder.with_initializer(name, value.clone());
            given.map_err(text)
        })
    }
}

fn tensor(stored: &Stored, bytes: &[u8]) -> Result<DynValue, String> {
    let dims = stored.dims.clone();
    let value = match stored.data_type {
        INT8 => {
            let values: Vec<i8> = bytes.iter().map(|byte| i8::from_le_bytes([*byte])).collect();
            Tensor::from_array((dims, values)).map(Tensor::into_dyn)
        }
        FLOAT16 => {
            let values: Vec<f16> = bytes.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes)).collect();
            Tensor::from_array((dims, values)).map(Tensor::into_dyn)
        }
        _ => {
            let values: Vec<f32> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            Tensor::from_array((dims, values)).map(Tensor::into_dyn)
        }
    };
    value.map_err(text)
}
