//! The shape of a decoder, read from GGUF metadata or Hugging Face's config.json. Llama, Qwen2 and Qwen3 are one
//! decoder with or without biases and norms on queries and keys; everything a computation needs to know of the
//! differences stands here, whoever computes.

mod folder;
mod gguf;
mod rope;

use specula_decoding::TokenId;

pub(crate) use gguf::FREQUENCY_FACTORS;
use rope::Rope;

/// A family of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 2 and 3 (arXiv:2307.09288, arXiv:2407.21783): no biases, no norms on queries and keys.
    Llama,
    /// Qwen2 and 2.5 (arXiv:2407.10671): biases on queries, keys and values.
    Qwen2,
    /// Qwen3 (arXiv:2505.09388): norms on queries and keys.
    Qwen3,
}

impl Architecture {
    const ALL: [Self; 3] = [Self::Llama, Self::Qwen2, Self::Qwen3];

    /// As GGUF and config.json name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// `field` is where the name was read.
    fn named(name: Option<&str>, field: &str) -> Result<Self, String> {
        let supported = Self::ALL.map(Self::name).join(", ");
        let Some(name) = name else {
            return Err(format!("`{field}` is missing, which names the architecture; supported: {supported}"));
        };
        let found = Self::ALL.into_iter().find(|a| a.name() == name);
        found.ok_or_else(|| format!("`{field}` = `{name}` is not supported; supported: {supported}"))
    }

    fn qkv_bias(self) -> bool {
        self == Self::Qwen2
    }

    fn qk_norm(self) -> bool {
        self == Self::Qwen3
    }

    /// Whether llama.cpp's converter interleaves the rows of each head's queries and keys in GGUF files.
    pub(crate) fn interleaved_in_gguf(self) -> bool {
        self == Self::Llama
    }
}

/// What a decoder needs to know of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// V.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// N.
    pub layers: usize,
    /// H.
    pub heads: usize,
    /// K.
    pub kv_heads: usize,
    /// D.
    pub head_dim: usize,
    /// Width of the feed-forward block.
    pub feed_forward: usize,
    /// Most tokens a path may have.
    pub context_length: usize,
    /// Rotary angles per position, in radians, `[D / 2]`, scaling included. Dimension i turns with dimension i + D / 2.
    pub rope_frequencies: Vec<f32>,
    /// ε of the norms.
    pub rms_eps: f32,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether each head's queries and keys are normed before they are turned.
    pub qk_norm: bool,
    /// Whether the head is the embedding table.
    pub tied_head: bool,
    /// Tokens that end an answer.
    pub end_tokens: Vec<TokenId>,
}

/// Positions are turned to angles in f32, which holds whole numbers up to here.
const LONGEST_CONTEXT: usize = 1 << 24;

/// Above any model's sizes, and small enough that products of two cannot overflow.
const LARGEST_SIZE: usize = 1 << 28;

impl ModelConfig {
    fn checked(self) -> Result<Self, String> {
        for (name, size) in [
            ("vocabulary", self.vocab_size),
            ("hidden size", self.hidden),
            ("number of heads", self.heads),
            ("number of key/value heads", self.kv_heads),
            ("head size", self.head_dim),
            ("feed-forward size", self.feed_forward),
        ] {
            if !(1..=LARGEST_SIZE).contains(&size) {
                return Err(format!("a {name} of {size} is not possible; it must be 1 to {LARGEST_SIZE}"));
            }
        }
        if self.layers < 2 {
            return Err(format!("a model needs at least 2 layers to have an early exit; this has {}", self.layers));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(format!("{} heads cannot share {} key/value heads evenly", self.heads, self.kv_heads));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(format!("a head size of {} is odd; rotary positions need an even one", self.head_dim));
        }
        if !(1..=LONGEST_CONTEXT).contains(&self.context_length) {
            return Err(format!(
                "a context of {} tokens is not possible; 1 to {LONGEST_CONTEXT} is",
                self.context_length
            ));
        }
        if !(self.rms_eps.is_finite() && self.rms_eps >= 0.0) {
            return Err(format!("the norms' ε = {} is not a finite number ≥ 0", self.rms_eps));
        }
        if let Some(bad) = self.end_tokens.iter().find(|t| **t as usize >= self.vocab_size) {
            return Err(format!("end token {bad} lies outside the vocabulary of {}", self.vocab_size));
        }
        if self.end_tokens.is_empty() {
            return Err("no end token is named (`eos_token_id`)".into());
        }
        Ok(self)
    }
}

#[cfg(test)]
impl ModelConfig {
    /// A shape of which heads alone matter.
    pub(crate) fn for_tests(heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        Self {
            architecture: Architecture::Qwen3,
            vocab_size: 16,
            hidden: heads * head_dim,
            layers: 2,
            heads,
            kv_heads,
            head_dim,
            feed_forward: 16,
            context_length: 64,
            rope_frequencies: vec![1.0; head_dim / 2],
            rms_eps: 1e-6,
            qkv_bias: false,
            qk_norm: false,
            tied_head: true,
            end_tokens: vec![0],
        }
    }
}
