//! A model's shape from GGUF metadata.

use specula_decoding::TokenId;

use super::rope::Scaling;
use super::{Activation, Architecture, ModelConfig, NormKind, Rope, checked_head};
use crate::gguf::{Gguf, Value};

/// Keys under the architecture's name that are read here, or that change nothing in what is computed here. Any other
/// is refused: it may.
const KNOWN: [&str; 20] = [
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.freq_base",
    "rope.dimension_count",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scale_linear",
    "expert_count",
    "expert_used_count",
    "vocab_size",
    "tensor_data_layout",
];

impl ModelConfig {
    /// Reads GGUF metadata.
    pub(crate) fn from_gguf(file: &Gguf<'_>) -> Result<Self, String> {
        if let Some(parts @ 2..) = file.integer("split.count")? {
            return Err(format!(
                "`split.count` = {parts}: this file is one of {parts} parts; join them with `llama-gguf-split --merge`"
            ));
        }
        const NAME: &str = "general.architecture";
        let name = file.text(NAME)?;
        let architecture = Architecture::named(name, NAME, Architecture::gguf_name)?;
        let prefix = format!("{}.", name.unwrap_or_default());
        let key = |name: &str| format!("{prefix}{name}");
        if let Some(unknown) = file.keys_under(&prefix).into_iter().find(|k| !KNOWN.contains(&&k[prefix.len()..])) {
            let value = file.get(unknown).map_or_else(String::new, Value::shown);
            return Err(format!("metadata key `{unknown}` = {value} is not supported: it may change what is computed"));
        }
        if let Some(experts @ 1..) = file.integer(&key("expert_count"))? {
            return Err(format!("`{}` = {experts}: mixtures of experts are not supported", key("expert_count")));
        }
        let int = |name: &str| -> Result<usize, String> {
            file.integer(&key(name))?.ok_or_else(|| format!("metadata key `{}` is missing", key(name)))
        };
        let (hidden, heads) = (int("embedding_length")?, int("attention.head_count")?);
        let head_dim = match file.integer(&key("attention.key_length"))? {
            Some(length) => length,
            None => hidden.checked_div(heads).ok_or_else(|| format!("`{}` = 0", key("attention.head_count")))?,
        };
        for name in ["attention.value_length", "rope.dimension_count"] {
            if let Some(other) = file.integer(&key(name))?.filter(|n| *n != head_dim) {
                return Err(format!(
                    "`{}` = {other} is not supported: it must be the head size, {head_dim}",
                    key(name)
                ));
            }
        }
        let head_dim = checked_head(head_dim)?;
        let tokens = file.texts("tokenizer.ggml.tokens")?;
        let tokens =
            tokens.ok_or("metadata key `tokenizer.ggml.tokens` is missing; convert the model with its tokenizer")?;
        let rms_key = key("attention.layer_norm_rms_epsilon");
        Self {
            architecture,
            vocab_size: tokens.len(),
            hidden,
            layers: int("block_count")?,
            heads,
            kv_heads: file.integer(&key("attention.head_count_kv"))?.unwrap_or(heads),
            head_dim,
            feed_forward: int("feed_forward_length")?,
            context_length: int("context_length")?,
            rope_frequencies: rope(file, &prefix)?.frequencies(head_dim)?,
            learned_positions: None,
            norm: NormKind::RootMeanSquare,
            norm_eps: file.float(&rms_key)?.ok_or_else(|| format!("metadata key `{rms_key}` is missing"))?,
            activation: Activation::GatedSilu,
            qkv_bias: architecture.qkv_bias(),
            output_bias: false,
            qk_norm: architecture.qk_norm(),
            tied_head: file.shape("output.weight").is_none(),
            end_tokens: end_tokens(file, tokens)?,
        }
        .checked()
    }
}

fn rope(file: &Gguf<'_>, prefix: &str) -> Result<Rope, String> {
    // The format's default.
    let theta = file.float(&format!("{prefix}rope.freq_base"))?.unwrap_or(10_000.0);
    let factor = match file.float(&format!("{prefix}rope.scaling.factor"))? {
        None => file.float(&format!("{prefix}rope.scale_linear"))?,
        factor => factor,
    };
    let type_key = format!("{prefix}rope.scaling.type");
    let scaling = match (file.text(&type_key)?, factor) {
        (Some("none"), _) | (None, None) => Scaling::None,
        (Some("linear") | None, Some(factor)) => Scaling::Linear(factor),
        (Some("linear"), None) => {
            return Err(format!("`{type_key}` = `linear`, but `{prefix}rope.scaling.factor` is missing"));
        }
        (Some(other), _) => {
            return Err(format!("`{type_key}` = `{other}` is not supported; supported: none, linear, and Llama 3's"));
        }
    };
    if file.shape(FREQUENCY_FACTORS).is_none() {
        return Ok(Rope { theta, scaling });
    }
    if scaling != Scaling::None {
        return Err(format!("tensor `{FREQUENCY_FACTORS}` and `{type_key}` both scale; only one may"));
    }
    let factors = file.tensor(FREQUENCY_FACTORS)?.dequantize(&candle_core::Device::Cpu);
    let factors = factors.and_then(|t| t.flatten_all()?.to_vec1()).map_err(|e| format!("{FREQUENCY_FACTORS}: {e}"))?;
    Ok(Rope { theta, scaling: Scaling::Factors(factors) })
}

/// What converters make of Llama 3's scaling.
pub(crate) const FREQUENCY_FACTORS: &str = "rope_freqs.weight";

/// GGUF names one end token or two; models that were trained with several rely on the readers' list of well-known names.
fn end_tokens(file: &Gguf<'_>, tokens: &[&str]) -> Result<Vec<TokenId>, String> {
    const WELL_KNOWN: [&str; 5] = ["<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"];
    let mut ends = Vec::new();
    for key in ["eos_token_id", "eot_token_id", "eom_token_id"].map(|name| format!("tokenizer.ggml.{name}")) {
        if let Some(id) = file.integer(&key)? {
            ends.push(TokenId::try_from(id).map_err(|_| format!("`{key}` = {id} is no token"))?);
        }
    }
    let known = tokens.iter().enumerate().filter(|(_, token)| WELL_KNOWN.contains(*token));
    ends.extend(known.map(|(id, _)| id as TokenId));
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}
