//! The shape of a Qwen3-like transformer, read from GGUF metadata or Hugging Face's config.json.

use candle_core::quantized::gguf_file::{Content, Value};
use serde_json::Value as Json;
use specula_decoding::TokenId;

/// What the decoder needs to know of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
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
    /// Base of the rotary angles.
    pub rope_theta: f32,
    /// ε of the norms.
    pub rms_eps: f32,
    /// Tokens that end an answer.
    pub end_tokens: Vec<TokenId>,
}

impl ModelConfig {
    /// Reads GGUF metadata.
    ///
    /// # Errors
    /// A reason naming the key, for a missing key, an unknown architecture or a value that changes the computation in a
    /// way this decoder does not have.
    pub fn from_gguf(content: &Content) -> Result<Self, String> {
        let architecture = content.metadata.get("general.architecture").and_then(|v| v.to_string().ok());
        check_architecture(architecture.map(String::as_str))?;
        for key in ["rope.scaling.type", "rope.scaling.factor", "attention.sliding_window"] {
            if let Some(value) = content.metadata.get(&format!("qwen3.{key}"))
                && !value.to_string().is_ok_and(|v| v == "none")
            {
                return Err(format!("`qwen3.{key}` = {value:?} is not supported"));
            }
        }
        let int = |key: &str| integer(content, &format!("qwen3.{key}"));
        let float = |key: &str| -> Result<f32, String> {
            let name = format!("qwen3.{key}");
            let value = content.metadata.get(&name).ok_or(format!("metadata key `{name}` is missing"))?;
            value.to_f32().map_err(|_| format!("metadata key `{name}` is not a float"))
        };
        let vocab_size = match content.metadata.get("tokenizer.ggml.tokens") {
            Some(Value::Array(tokens)) => tokens.len(),
            _ => return Err("metadata key `tokenizer.ggml.tokens` is missing".into()),
        };
        Self {
            vocab_size,
            hidden: int("embedding_length")?,
            layers: int("block_count")?,
            heads: int("attention.head_count")?,
            kv_heads: int("attention.head_count_kv")?,
            head_dim: int("attention.key_length")?,
            feed_forward: int("feed_forward_length")?,
            context_length: int("context_length")?,
            rope_theta: float("rope.freq_base")?,
            rms_eps: float("attention.layer_norm_rms_epsilon")?,
            end_tokens: gguf_end_tokens(content)?,
        }
        .checked()
    }

    /// Reads config.json and, if there is one, generation_config.json.
    ///
    /// # Errors
    /// As for [`ModelConfig::from_gguf`].
    pub fn from_hf(config: &Json, generation: Option<&Json>) -> Result<Self, String> {
        check_architecture(config["model_type"].as_str())?;
        refuse_what_changes_the_computation(config)?;
        let int = |key: &str| -> Result<usize, String> {
            config[key].as_u64().map(|v| v as usize).ok_or(format!("config.json: `{key}` is missing or not an integer"))
        };
        let float = |key: &str| -> Result<f32, String> {
            config[key].as_f64().map(|v| v as f32).ok_or(format!("config.json: `{key}` is missing or not a number"))
        };
        let ends = generation.map(|g| &g["eos_token_id"]).filter(|e| !e.is_null()).unwrap_or(&config["eos_token_id"]);
        Self {
            vocab_size: int("vocab_size")?,
            hidden: int("hidden_size")?,
            layers: int("num_hidden_layers")?,
            heads: int("num_attention_heads")?,
            kv_heads: int("num_key_value_heads")?,
            head_dim: int("head_dim")?,
            feed_forward: int("intermediate_size")?,
            context_length: int("max_position_embeddings")?,
            rope_theta: float("rope_theta")?,
            rms_eps: float("rms_norm_eps")?,
            end_tokens: match ends {
                Json::Array(ids) => ids.iter().filter_map(Json::as_u64).map(|id| id as TokenId).collect(),
                other => other.as_u64().map(|id| id as TokenId).into_iter().collect(),
            },
        }
        .checked()
    }

    fn checked(self) -> Result<Self, String> {
        if self.layers < 2 {
            return Err(format!("a model needs at least 2 layers to have an early exit; this has {}", self.layers));
        }
        if self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            return Err(format!("{} heads cannot share {} key/value heads evenly", self.heads, self.kv_heads));
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(2) {
            return Err(format!("head size {} is not a positive even number", self.head_dim));
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

fn check_architecture(name: Option<&str>) -> Result<(), String> {
    match name {
        Some("qwen3") => Ok(()),
        Some(other) => Err(format!("architecture `{other}` is not supported; supported: qwen3")),
        None => Err("the architecture is not named (`general.architecture` or `model_type`)".into()),
    }
}

/// Keys of config.json under which Qwen3 models compute something this decoder does not.
fn refuse_what_changes_the_computation(config: &Json) -> Result<(), String> {
    let off = |key: &str| config[key].is_null() || config[key] == Json::Bool(false);
    for key in ["rope_scaling", "use_sliding_window", "attention_bias"] {
        if !off(key) {
            return Err(format!("config.json: `{key}` = {} is not supported", config[key]));
        }
    }
    match config["hidden_act"].as_str() {
        None | Some("silu") => Ok(()),
        Some(other) => Err(format!("config.json: `hidden_act` = `{other}` is not supported; supported: silu")),
    }
}

fn integer(content: &Content, name: &str) -> Result<usize, String> {
    let value = content.metadata.get(name).ok_or(format!("metadata key `{name}` is missing"))?;
    let unsigned = value.to_u64().ok().or(value.to_u32().ok().map(u64::from));
    unsigned.map(|v| v as usize).ok_or(format!("metadata key `{name}` is not an unsigned integer"))
}

/// GGUF names one end token; models that were trained with several rely on the readers' list of well-known names.
fn gguf_end_tokens(content: &Content) -> Result<Vec<TokenId>, String> {
    let mut ends = vec![integer(content, "tokenizer.ggml.eos_token_id")? as TokenId];
    if let Some(Value::Array(tokens)) = content.metadata.get("tokenizer.ggml.tokens") {
        for (id, token) in tokens.iter().enumerate() {
            let known = ["<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>"];
            let id = id as TokenId;
            if token.to_string().is_ok_and(|t| known.contains(&t.as_str())) && !ends.contains(&id) {
                ends.push(id);
            }
        }
    }
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qwen3() -> Json {
        serde_json::json!({
            "model_type": "qwen3", "vocab_size": 64, "hidden_size": 256, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 512,
            "max_position_embeddings": 128, "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "eos_token_id": 2
        })
    }

    #[test]
    fn what_changes_the_computation_is_refused_by_name() {
        assert!(ModelConfig::from_hf(&qwen3(), None).is_ok());
        for (key, value) in [
            ("rope_scaling", serde_json::json!({"type": "yarn"})),
            ("use_sliding_window", Json::Bool(true)),
            ("attention_bias", Json::Bool(true)),
            ("hidden_act", "gelu".into()),
            ("model_type", "mamba".into()),
        ] {
            let mut config = qwen3();
            config[key] = value;
            let reason = ModelConfig::from_hf(&config, None).expect_err(key);
            assert!(reason.contains(key) || reason.contains("mamba"), "{reason}");
        }
    }

    #[test]
    fn generation_config_names_the_end_tokens() {
        let generation = serde_json::json!({"eos_token_id": [2, 0]});
        let config = ModelConfig::from_hf(&qwen3(), Some(&generation)).expect("valid");
        assert_eq!(config.end_tokens, [2, 0]);
    }
}
