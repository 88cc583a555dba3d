//! A model's weights in f32, one tensor at a time, for those who write them down in another format.

use crate::config::ModelConfig;
use crate::weights::Weights;

/// The weights of a file or folder while it is open ([`read_dense`](crate::read_dense)).
pub struct DenseWeights<'a> {
    pub(crate) config: ModelConfig,
    pub(crate) weights: Weights<'a>,
}

impl DenseWeights<'_> {
    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// A vector, by Hugging Face's name.
    ///
    /// # Errors
    /// Names the tensor that is missing or has another length.
    pub fn vector(&self, len: usize, name: &str) -> Result<Vec<f32>, String> {
        self.weights.values(len, name)
    }

    /// A matrix `[out, in]`, row after row, in the order of the model's own files, by Hugging Face's name.
    ///
    /// # Errors
    /// As for [`DenseWeights::vector`].
    pub fn matrix(&self, out: usize, input: usize, name: &str) -> Result<Vec<f32>, String> {
        let in_heads = ["q_proj.weight", "k_proj.weight"].iter().any(|end| name.ends_with(end));
        self.weights.dense_rows((out, input), name, in_heads.then_some(self.config.head_dim))
    }
}
