//! The families, and what each must not be asked: where candle-transformers computes otherwise than a model's authors, the
//! model is refused.

use candle_core::{Device, Result as CandleResult, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{gemma2, gemma3, phi, phi3, starcoder2};
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};
use specula_decoding::TokenId;

use crate::config::{Architecture, ModelConfig};

/// A model of one of them, with its caches.
#[derive(Clone)]
pub(super) enum Family {
    Gemma2(gemma2::Model),
    Gemma3(gemma3::Model),
    Phi(phi::Model),
    Phi3(phi3::Model),
    Starcoder2(starcoder2::Model),
}

impl Family {
    /// Takes weights by config.json.
    pub(super) fn new(config: &ModelConfig, json: &Json, weights: VarBuilder<'_>) -> Result<Self, String> {
        let mut json = as_candle_reads_it(json)?;
        refuse_what_is_computed_otherwise(config, &json)?;
        bound_what_is_made(config, &mut json)?;
        let made = match config.architecture {
            Architecture::Gemma2 => gemma2::Model::new(false, &read(json)?, weights).map(Self::Gemma2),
            Architecture::Gemma3 => gemma3::Model::new(false, &read(json)?, weights).map(Self::Gemma3),
            Architecture::Phi => phi::Model::new(&read(json)?, weights).map(Self::Phi),
            Architecture::Phi3 => phi3::Model::new(&read(json)?, weights).map(Self::Phi3),
            Architecture::Starcoder2 => starcoder2::Model::new(&read(json)?, weights).map(Self::Starcoder2),
            ours => return Err(format!("`{}` models are not borrowed", ours.name())),
        };
        made.map_err(|error| error.to_string())
    }

    /// Feeds a token at a position: the row after it.
    pub(super) fn step(&mut self, token: TokenId, position: usize) -> CandleResult<Vec<f32>> {
        let token = Tensor::new(&[[token]], &Device::Cpu)?;
        let row = match self {
            Self::Gemma2(model) => model.forward(&token, position),
            Self::Gemma3(model) => model.forward(&token, position),
            // Counts positions itself.
            Self::Phi(model) => model.forward(&token),
            Self::Phi3(model) => model.forward(&token, position),
            Self::Starcoder2(model) => model.forward(&token, position),
        };
        row?.flatten_all()?.to_vec1()
    }
}

fn read<T: DeserializeOwned>(mut json: Json) -> Result<T, String> {
    // What is null is missing, and missing fields are named.
    json.as_object_mut().into_iter().for_each(|fields| fields.retain(|_, value| !value.is_null()));
    serde_json::from_value(json).map_err(|error| format!("config.json: {error}"))
}

/// Since transformers 5 a config.json has rotary angles under `rope_parameters` and windows by layer.
fn as_candle_reads_it(json: &Json) -> Result<Json, String> {
    let mut json = json.clone();
    let rope = json["rope_parameters"].clone();
    let mut take = |rope: &Json, key: &str, to: &str| {
        if !rope[key].is_null() {
            json[to] = rope[key].clone();
        }
    };
    for (kind, theta) in [("full_attention", "rope_theta"), ("sliding_attention", "rope_local_base_freq")] {
        take(&rope[kind], "rope_theta", theta);
    }
    for key in ["rope_theta", "partial_rotary_factor"] {
        take(&rope, key, key);
    }
    let kinds = [&rope, &rope["full_attention"], &rope["sliding_attention"]];
    if let Some(kind) = kinds.map(|rope| &rope["rope_type"]).into_iter().find(|k| !k.is_null() && *k != "default") {
        return Err(format!("`rope_parameters`: the type {kind} is not supported for this architecture"));
    }
    if let (Json::Null, Some(kinds)) = (&json["sliding_window_pattern"], json["layer_types"].as_array()) {
        let full = |layer: &usize| kinds[*layer] == "full_attention";
        // Counted from 1, the layers that see all are the multiples of one number.
        let pattern = (0..kinds.len()).find(full).map_or(kinds.len() + 1, |first| first + 1);
        if (0..kinds.len()).any(|layer| full(&layer) != (layer + 1).is_multiple_of(pattern)) {
            return Err(format!(
                "`layer_types` = {} is not supported: windows in no regular order",
                json["layer_types"]
            ));
        }
        json["sliding_window_pattern"] = json!(pattern);
    }
    Ok(json)
}

/// Tables of angles and caches are made by the configuration's word.
fn bound_what_is_made(config: &ModelConfig, json: &mut Json) -> Result<(), String> {
    json["max_position_embeddings"] = json!(config.context_length);
    if let Some(window) = json["sliding_window"].as_u64() {
        // A window longer than the context is none.
        json["sliding_window"] = json!(window.clamp(1, config.context_length as u64));
    }
    if json["sliding_window_pattern"] == 0 {
        return Err("config.json: `sliding_window_pattern` = 0 must be at least 1".into());
    }
    let part = json["partial_rotary_factor"].as_f64().unwrap_or(1.0);
    let turned = part * config.head_dim as f64;
    match (0.0..=1.0).contains(&part) && turned >= 2.0 && (turned as usize).is_multiple_of(2) {
        true => Ok(()),
        false => Err(format!(
            "config.json: `partial_rotary_factor` = {part} of heads of {} is not possible",
            config.head_dim
        )),
    }
}

fn refuse_what_is_computed_otherwise(config: &ModelConfig, json: &Json) -> Result<(), String> {
    let must_be = |key: &str, due: &[Json]| match &json[key] {
        Json::Null => Ok(()),
        value if due.contains(value) => Ok(()),
        value => {
            let name = config.architecture.name();
            Err(format!("config.json: `{key}` = {value} is not supported for `{name}` models, which candle computes"))
        }
    };
    must_be("rope_scaling", &[])?;
    must_be("quantization_config", &[])?;
    match config.architecture {
        // Candle scales scores by the head size.
        Architecture::Gemma2 | Architecture::Gemma3 => {
            must_be("query_pre_attn_scalar", &[json!(config.head_dim), json!(config.head_dim as f64)])?;
            must_be("tie_word_embeddings", &[json!(true)])?;
            must_be("use_bidirectional_attention", &[json!(false)])
        }
        // Its head is never the embedding table, and Starcoder's always.
        Architecture::Phi => must_be("tie_word_embeddings", &[json!(false)]),
        Architecture::Starcoder2 => must_be("tie_word_embeddings", &[json!(true)]),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_files_are_read_as_older_ones() {
        let new = json!({
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}},
        });
        let read = as_candle_reads_it(&new).expect("regular");
        assert_eq!((&read["rope_theta"], &read["rope_local_base_freq"]), (&json!(1e6), &json!(1e4)));
        assert_eq!(read["sliding_window_pattern"], json!(3));
        let plain = json!({"rope_parameters": {"rope_theta": 5e5, "partial_rotary_factor": 0.5}});
        let read = as_candle_reads_it(&plain).expect("plain");
        assert_eq!((&read["rope_theta"], &read["partial_rotary_factor"]), (&json!(5e5), &json!(0.5)));
        for odd in [
            json!({"layer_types": ["full_attention", "sliding_attention", "full_attention"]}),
            json!({"rope_parameters": {"rope_type": "yarn"}}),
            json!({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0}}}),
        ] {
            assert!(as_candle_reads_it(&odd).is_err(), "{odd}");
        }
    }
}
