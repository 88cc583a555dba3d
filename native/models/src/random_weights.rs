//! Models of random weights and the device's own limits, for measurements: what a pass costs depends on a model's shape alone.

use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Result, Tensor};

use crate::accelerator::Accelerator;
use crate::config::ModelConfig;
use crate::mixed::Precision;
use crate::model::Model;
use crate::weights::Weights;

impl Accelerator {
    /// A model of this shape with random weights, made where they lie: bf16, on the CPU f32.
    ///
    /// # Errors
    /// If the device is not there or has not the memory.
    pub fn random_model(self, config: ModelConfig) -> std::result::Result<Model, String> {
        let (device, name) = self.open()?;
        let kind = if device.is_cpu() { DType::F32 } else { DType::BF16 };
        let tensor = |name: &str, shape: &[usize]| {
            // Norms leave values as they are; products keep their size.
            let made = match shape {
                [_] => Tensor::ones(shape, kind, &device),
                _ => Tensor::randn(0f32, 0.02, shape, &device).and_then(|tensor| tensor.to_dtype(kind)),
            };
            made.map_err(|error| format!("tensor `{name}`: {error}"))
        };
        let weights = Weights::trained(&tensor, config.architecture, Precision::default()).on(device.clone());
        Model::on(config, &weights, (self, Arc::from(name)))
    }

    /// Bytes that the device reads and writes in a second when it copies so many, the best of some tries.
    ///
    /// # Errors
    /// If the device is not there or has not the memory.
    pub fn copy_bandwidth(self, bytes: usize) -> std::result::Result<f64, String> {
        const TRIES: usize = 10;
        let (device, _) = self.open()?;
        let measure = || -> Result<f64> {
            let original = Tensor::zeros(bytes / size_of::<f32>(), DType::F32, &device)?;
            let mut best = f64::INFINITY;
            for _ in 0..TRIES {
                device.synchronize()?;
                let begin = Instant::now();
                let copy = original.copy()?;
                device.synchronize()?;
                best = best.min(begin.elapsed().as_secs_f64());
                drop(copy);
            }
            Ok(2.0 * bytes as f64 / best)
        };
        measure().map_err(|error| format!("device `{self}`: {error}"))
    }
}
