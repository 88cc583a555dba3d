//! A model's shape from Hugging Face's config.json.

use serde_json::Value as Json;
use specula_decoding::TokenId;

use super::rope::Scaling;
use super::{Activation, Architecture, ModelConfig, NormKind, Rope, borrowed, checked_head, opt};

impl ModelConfig {
    /// Reads config.json and, if there is one, generation_config.json.
    pub(crate) fn from_folder(config: &Json, generation: Option<&Json>) -> Result<Self, String> {
        let architecture =
            Architecture::named(config["model_type"].as_str(), "model_type", |a| Some(Architecture::name(a)))?;
        if !config["quantization_config"].is_null() {
            return refuse(config, "quantization_config", "; take the model unquantised, or as GGUF");
        }
        let generation_ends = generation.map(|g| &g["eos_token_id"]).filter(|e| !e.is_null());
        let end_tokens = end_tokens(generation_ends.unwrap_or(&config["eos_token_id"]))?;
        match architecture {
            Architecture::Opt => opt::from_folder(config, end_tokens)?,
            _ if architecture.is_borrowed() => borrowed::from_folder(architecture, config, end_tokens)?,
            _ => gated(architecture, config, end_tokens)?,
        }
        .checked()
    }
}

/// Llama and its kin.
fn gated(architecture: Architecture, config: &Json, end_tokens: Vec<TokenId>) -> Result<ModelConfig, String> {
    refuse_what_changes_the_computation(config)?;
    let int = |key: &str| integer(config, key);
    let (hidden, heads) = (int("hidden_size")?, int("num_attention_heads")?);
    let head_dim = checked_head(match optional_integer(config, "head_dim")? {
        Some(size) => size,
        None => hidden.checked_div(heads).ok_or("`num_attention_heads` = 0")?,
    })?;
    let positions = int("max_position_embeddings")?;
    // Within one window sliding attention is full attention.
    let window = match architecture {
        Architecture::Mistral => optional_integer(config, "sliding_window")?,
        _ => None,
    };
    Ok(ModelConfig {
        architecture,
        vocab_size: int("vocab_size")?,
        hidden,
        layers: int("num_hidden_layers")?,
        heads,
        kv_heads: optional_integer(config, "num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        feed_forward: int("intermediate_size")?,
        context_length: window.map_or(positions, |window| window.min(positions)),
        rope_frequencies: rope(config)?.frequencies(head_dim)?,
        learned_positions: None,
        norm: NormKind::RootMeanSquare,
        norm_eps: number(config, "rms_norm_eps")?.ok_or("`rms_norm_eps` is missing")?,
        activation: Activation::GatedSilu,
        qkv_bias: architecture.qkv_bias(),
        output_bias: false,
        qk_norm: architecture.qk_norm(),
        // The families' default is an own head.
        tied_head: config["tie_word_embeddings"].as_bool().unwrap_or(false),
        end_tokens,
    })
}

/// Complains of a key; `remedy` follows its value.
pub(super) fn refuse<T>(config: &Json, key: &str, remedy: &str) -> Result<T, String> {
    Err(format!("`{key}` = {} is not supported{remedy}", config[key]))
}

/// Keys under which models of these families compute something this decoder does not.
fn refuse_what_changes_the_computation(config: &Json) -> Result<(), String> {
    let refuse = |key, remedy| refuse(config, key, remedy);
    for key in ["use_sliding_window", "attention_bias", "mlp_bias"] {
        if !matches!(config[key], Json::Null | Json::Bool(false)) {
            return refuse(key, "");
        }
    }
    if !matches!(config["hidden_act"].as_str(), None | Some("silu")) {
        return refuse("hidden_act", "; supported: \"silu\"");
    }
    if config["partial_rotary_factor"].as_f64().is_some_and(|f| f != 1.0) {
        return refuse("partial_rotary_factor", "; supported: 1");
    }
    let full = |kinds: &Vec<Json>| kinds.iter().all(|kind| kind == "full_attention");
    if config["layer_types"].as_array().is_some_and(|kinds| !full(kinds)) {
        return refuse("layer_types", "; supported: \"full_attention\" alone");
    }
    Ok(())
}

/// `rope_parameters` holds base and scaling (since transformers 5); before, `rope_theta` and `rope_scaling` did.
fn rope(config: &Json) -> Result<Rope, String> {
    let place = if config["rope_parameters"].is_object() { "rope_parameters" } else { "rope_scaling" };
    let scaling = &config[place];
    let theta = match number(scaling, "rope_theta").map_err(|why| format!("{place}: {why}"))? {
        None => number(config, "rope_theta")?,
        theta => theta,
    };
    let due = |key: &str| -> Result<f32, String> {
        number(scaling, key)
            .and_then(|x| x.ok_or_else(|| format!("`{key}` is missing")))
            .map_err(|why| format!("{place}: {why}"))
    };
    let kind = scaling["rope_type"].as_str().or(scaling["type"].as_str());
    let scaling = match kind {
        Some("default") => Scaling::None,
        None if place == "rope_parameters" || scaling.is_null() => Scaling::None,
        Some("linear") => Scaling::Linear(due("factor")?),
        Some("llama3") => Scaling::Llama3 {
            factor: due("factor")?,
            low_freq_factor: due("low_freq_factor")?,
            high_freq_factor: due("high_freq_factor")?,
            original_context: due("original_max_position_embeddings")?,
        },
        _ => return Err(format!("`{place}` = {scaling} is not supported; supported types: default, linear, llama3")),
    };
    // The families' own default.
    Ok(Rope { theta: theta.unwrap_or(10_000.0), scaling })
}

/// An unsigned integer that must be there.
pub(super) fn integer(config: &Json, key: &str) -> Result<usize, String> {
    optional_integer(config, key)?.ok_or_else(|| format!("`{key}` is missing"))
}

pub(super) fn optional_integer(config: &Json, key: &str) -> Result<Option<usize>, String> {
    match &config[key] {
        Json::Null => Ok(None),
        value => value
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .map(Some)
            .ok_or_else(|| format!("`{key}` = {value} is not an unsigned integer")),
    }
}

fn number(config: &Json, key: &str) -> Result<Option<f32>, String> {
    match &config[key] {
        Json::Null => Ok(None),
        value => value.as_f64().map(|x| Some(x as f32)).ok_or_else(|| format!("`{key}` = {value} is not a number")),
    }
}

fn end_tokens(ends: &Json) -> Result<Vec<TokenId>, String> {
    let token = |id: &Json| {
        let id = id.as_u64().and_then(|id| TokenId::try_from(id).ok());
        id.ok_or_else(|| format!("`eos_token_id` = {ends} is no token or list of tokens"))
    };
    match ends {
        Json::Null => Ok(Vec::new()),
        Json::Array(ids) => ids.iter().map(token).collect(),
        id => Ok(vec![token(id)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn qwen3() -> Json {
        json!({
            "model_type": "qwen3", "vocab_size": 64, "hidden_size": 256, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 512,
            "max_position_embeddings": 128, "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "eos_token_id": 2
        })
    }

    fn with(key: &str, value: Json) -> Result<ModelConfig, String> {
        let mut config = qwen3();
        config[key] = value;
        ModelConfig::from_folder(&config, None)
    }

    #[test]
    fn what_changes_the_computation_is_refused_by_name() {
        assert!(ModelConfig::from_folder(&qwen3(), None).is_ok());
        for (key, value) in [
            ("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0})),
            ("rope_scaling", json!({"type": "dynamic", "factor": 2.0})),
            ("rope_parameters", json!({"rope_type": "longrope", "rope_theta": 1e6})),
            ("use_sliding_window", json!(true)),
            ("attention_bias", json!(true)),
            ("mlp_bias", json!(true)),
            ("hidden_act", json!("gelu")),
            ("partial_rotary_factor", json!(0.5)),
            ("layer_types", json!(["full_attention", "sliding_attention"])),
            ("quantization_config", json!({"quant_method": "gptq"})),
            ("model_type", json!("mamba")),
        ] {
            let reason = with(key, value.clone()).expect_err(key);
            assert!(reason.contains(key), "{reason}");
            let named = value.as_str().or(value["rope_type"].as_str()).unwrap_or_default();
            assert!(reason.contains(named), "{reason}");
        }
    }

    #[test]
    fn a_sliding_window_bounds_the_context() {
        let mut config = qwen3();
        config["model_type"] = json!("mistral");
        for (window, context) in [(json!(100), 100), (json!(4096), 128), (Json::Null, 128)] {
            config["sliding_window"] = window.clone();
            let read = ModelConfig::from_folder(&config, None).expect("valid");
            assert_eq!((read.architecture, read.context_length), (Architecture::Mistral, context), "{window}");
        }
        config["sliding_window"] = json!(0);
        assert!(ModelConfig::from_folder(&config, None).expect_err("no context").contains("context of 0"));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for (key, value) in [
            ("hidden_size", json!(0)),
            ("num_attention_heads", json!(0)),
            ("num_key_value_heads", json!(3)),
            ("head_dim", json!(63)),
            ("head_dim", json!(0)),
            ("head_dim", json!(1_u64 << 60)),
            ("num_hidden_layers", json!(1)),
            ("vocab_size", json!(u64::MAX)),
            ("intermediate_size", json!(-1)),
            ("max_position_embeddings", json!(1_u64 << 60)),
            ("rope_theta", json!(0.0)),
            ("rope_theta", json!("ten thousand")),
            ("rms_norm_eps", json!(-1.0)),
            ("eos_token_id", json!(64)),
            ("eos_token_id", json!(1_u64 << 40)),
            ("eos_token_id", Json::Null),
        ] {
            assert!(with(key, value.clone()).is_err(), "{key} = {value}");
        }
    }

    #[test]
    fn both_ways_of_naming_rotary_positions_are_one() {
        let old = with("rope_scaling", json!({"type": "linear", "factor": 4.0})).expect("valid");
        let new = with("rope_parameters", json!({"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}));
        assert_eq!(old, new.expect("valid"));
        let plain = with("rope_scaling", Json::Null).expect("valid");
        let scaled: Vec<f32> = plain.rope_frequencies.iter().map(|f| f / 4.0).collect();
        assert_eq!(old.rope_frequencies, scaled);
        assert_eq!(
            with("rope_parameters", json!({"rope_type": "default", "rope_theta": 10000.0})).expect("valid"),
            plain
        );
    }

    #[test]
    fn generation_config_names_the_end_tokens() {
        let generation = json!({"eos_token_id": [2, 0]});
        let config = ModelConfig::from_folder(&qwen3(), Some(&generation)).expect("valid");
        assert_eq!(config.end_tokens, [2, 0]);
    }
}
