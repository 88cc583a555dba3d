//! Shapes of models whose weights are random.

use clap::ValueEnum;
use specula_models::{Activation, Architecture, ModelConfig, NormKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// Qwen3-14B's: 29 GB in bf16.
    #[value(name = "14b")]
    Large,
    /// Qwen3-1.7B's: 4 GB in bf16.
    #[value(name = "1.7b")]
    Middle,
    /// A few megabytes, to try the suite itself.
    #[value(name = "tiny")]
    Tiny,
}

impl Shape {
    pub(super) fn config(self) -> ModelConfig {
        let (layers, hidden, heads, feed_forward, vocab_size) = match self {
            Self::Large => (40, 5120, 40, 17_408, 151_936),
            Self::Middle => (28, 2048, 16, 6144, 151_936),
            Self::Tiny => (4, 128, 4, 256, 5000),
        };
        let head_dim = if self == Self::Tiny { 32 } else { 128 };
        let frequency = |i: usize| 1e6_f32.powf(-2.0 * i as f32 / head_dim as f32);
        ModelConfig {
            architecture: Architecture::Qwen3,
            vocab_size,
            hidden,
            layers,
            heads,
            kv_heads: if self == Self::Tiny { 2 } else { 8 },
            head_dim,
            feed_forward,
            context_length: 4096,
            rope_frequencies: (0..head_dim / 2).map(frequency).collect(),
            learned_positions: None,
            norm: NormKind::RootMeanSquare,
            norm_eps: 1e-6,
            activation: Activation::GatedSilu,
            qkv_bias: false,
            output_bias: false,
            qk_norm: true,
            tied_head: false,
            end_tokens: vec![],
        }
    }

    /// Weights that a pass reads: all but the embedding table, of which it takes a row or so.
    pub(super) fn read_weights(self) -> usize {
        let c = self.config();
        let attention = c.hidden * c.head_dim * 2 * (c.heads + c.kv_heads);
        c.layers * (attention + 3 * c.hidden * c.feed_forward) + c.vocab_size * c.hidden
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_large_shape_has_fourteen_billion_weights() {
        let all = Shape::Large.read_weights() + 151_936 * 5120;
        assert!((14.7e9..14.8e9).contains(&(all as f64)), "{all}");
    }
}
