//! The shape of a decoder, read from GGUF metadata or Hugging Face's config.json. All families are one decoder with this
//! or that norm, feed-forward block, positions and biases; everything a computation needs to know of the differences
//! stands here, whoever computes.

mod borrowed;
mod folder;
mod gguf;
mod opt;
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
    /// Mistral (arXiv:2310.06825): Llama's computation; a sliding window bounds the context.
    Mistral,
    /// OPT (arXiv:2205.01068): layer norms, learned positions, biases everywhere, no gate.
    Opt,
    /// Gemma 2 (arXiv:2408.00118); borrowed, as the following ones.
    Gemma2,
    /// Gemma 3's texts (arXiv:2503.19786).
    Gemma3,
    /// Phi-1, 1.5 and 2 (arXiv:2309.05463).
    Phi,
    /// Phi-3 and 4 (arXiv:2404.14219).
    Phi3,
    /// StarCoder2 (arXiv:2402.19173).
    Starcoder2,
}

impl Architecture {
    const ALL: [Self; 10] = [
        Self::Llama,
        Self::Mistral,
        Self::Qwen2,
        Self::Qwen3,
        Self::Opt,
        Self::Gemma2,
        Self::Gemma3,
        Self::Phi,
        Self::Phi3,
        Self::Starcoder2,
    ];

    /// Whether candle-transformers computes it and no decoder of ours.
    pub fn is_borrowed(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3 | Self::Phi | Self::Phi3 | Self::Starcoder2)
    }

    /// As config.json names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Mistral => "mistral",
            Self::Opt => "opt",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3_text",
            Self::Phi => "phi",
            Self::Phi3 => "phi3",
            Self::Starcoder2 => "starcoder2",
        }
    }

    /// As GGUF names it, where it is read from there: llama.cpp stores Mistral as Llama and has no OPT.
    pub fn gguf_name(self) -> Option<&'static str> {
        match self {
            Self::Llama | Self::Mistral => Some("llama"),
            Self::Qwen2 | Self::Qwen3 => Some(self.name()),
            _ => None,
        }
    }

    /// The architecture that `name_of` gives this name; `field` is where it was read.
    fn named(name: Option<&str>, field: &str, name_of: fn(Self) -> Option<&'static str>) -> Result<Self, String> {
        let mut supported: Vec<&str> = Self::ALL.into_iter().filter_map(name_of).collect();
        supported.dedup();
        let supported = supported.join(", ");
        let Some(name) = name else {
            return Err(format!("`{field}` is missing, which names the architecture; supported: {supported}"));
        };
        let found = Self::ALL.into_iter().find(|a| name_of(*a) == Some(name));
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
        self.gguf_name() == Some(Self::Llama.name())
    }
}

/// How states are normed before a block and before the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// x / √(mean x² + ε) · weight.
    RootMeanSquare,
    /// (x − mean x) / √(var x + ε) · weight + bias.
    Layer,
}

/// What a feed-forward block does between its products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// silu(gate) · up.
    GatedSilu,
    /// max(up, 0); there is no gate.
    Relu,
}

/// What a decoder needs to know of a model. Of a borrowed one only sizes, context and end tokens count.
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
    /// Zeros where positions are learned: nothing turns.
    pub rope_frequencies: Vec<f32>,
    /// Where positions are learned: which row of their table is position 0's. The row is added to the token's.
    pub learned_positions: Option<usize>,
    /// Which norms.
    pub norm: NormKind,
    /// ε of the norms.
    pub norm_eps: f32,
    /// Between the products of the feed-forward block.
    pub activation: Activation,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether attention's output and the feed-forward block's products have biases.
    pub output_bias: bool,
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

/// Above any model's, and small enough that what is made of it before its tensors are seen is little.
const LARGEST_HEAD: usize = 1 << 16;

fn checked_head(head_dim: usize) -> Result<usize, String> {
    match (1..=LARGEST_HEAD).contains(&head_dim) {
        true => Ok(head_dim),
        false => Err(format!("a head size of {head_dim} is not possible; it must be 1 to {LARGEST_HEAD}")),
    }
}

impl ModelConfig {
    fn checked(self) -> Result<Self, String> {
        for (name, size) in [
            ("vocabulary", self.vocab_size),
            ("hidden size", self.hidden),
            ("number of heads", self.heads),
            ("number of key/value heads", self.kv_heads),
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
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            return Err(format!("the norms' ε = {} is not a finite number ≥ 0", self.norm_eps));
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
            learned_positions: None,
            norm: NormKind::RootMeanSquare,
            norm_eps: 1e-6,
            activation: Activation::GatedSilu,
            qkv_bias: false,
            output_bias: false,
            qk_norm: false,
            tied_head: true,
            end_tokens: vec![0],
        }
    }
}
