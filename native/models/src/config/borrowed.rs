//! Sizes of models that candle-transformers computes, from Hugging Face's config.json.

use serde_json::Value as Json;
use specula_decoding::TokenId;

use super::folder::{integer, optional_integer};
use super::{Activation, Architecture, ModelConfig, NormKind};

/// Most tokens of context, whatever the model could have: these models take tables and caches for all of it at once.
const MOST_CONTEXT: usize = 8192;
/// Above these models' own, and small enough that what is made by them before a tensor is seen is little.
const MOST_LAYERS: usize = 1024;
const LARGEST_HEAD: usize = 1024;

pub(super) fn from_folder(
    architecture: Architecture,
    config: &Json,
    end_tokens: Vec<TokenId>,
) -> Result<ModelConfig, String> {
    let int = |key: &str| integer(config, key);
    let (hidden, heads) = (int("hidden_size")?, int("num_attention_heads")?);
    let head_dim = match optional_integer(config, "head_dim")? {
        Some(size) => size,
        None => hidden.checked_div(heads).ok_or("`num_attention_heads` = 0")?,
    };
    // Gemma 3's windows are computed as they are; others' context is one window, within which they are no windows.
    let window = match architecture {
        Architecture::Gemma3 => None,
        _ => optional_integer(config, "sliding_window")?,
    };
    let context = int("max_position_embeddings")?.min(MOST_CONTEXT);
    let layers = int("num_hidden_layers")?;
    if layers > MOST_LAYERS || !(1..=LARGEST_HEAD).contains(&head_dim) {
        return Err(format!(
            "{layers} layers with heads of {head_dim} are not supported for `{}` models; at most {MOST_LAYERS}, and \
             1 to {LARGEST_HEAD}, are",
            architecture.name()
        ));
    }
    Ok(ModelConfig {
        architecture,
        vocab_size: int("vocab_size")?,
        hidden,
        layers,
        heads,
        kv_heads: optional_integer(config, "num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        feed_forward: int("intermediate_size")?,
        context_length: window.map_or(context, |window| window.min(context)),
        rope_frequencies: Vec::new(),
        learned_positions: None,
        norm: NormKind::RootMeanSquare,
        norm_eps: 0.0,
        activation: Activation::GatedSilu,
        qkv_bias: false,
        output_bias: false,
        qk_norm: false,
        tied_head: false,
        end_tokens,
    })
}
