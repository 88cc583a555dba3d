//! OPT's shape (arXiv:2205.01068) from Hugging Face's config.json.

use serde_json::Value as Json;
use specula_decoding::TokenId;

use super::folder::{integer, refuse};
use super::{Activation, Architecture, ModelConfig, NormKind, checked_head};

/// Rows of the table of positions before position 0's: the implementation that trained these models counted from there.
const FIRST_POSITION: usize = 2;

pub(super) fn from_folder(config: &Json, end_tokens: Vec<TokenId>) -> Result<ModelConfig, String> {
    let int = |key: &str| integer(config, key);
    let (hidden, heads) = (int("hidden_size")?, int("num_attention_heads")?);
    // Absent, each of these is as it is supported.
    let must_be = |key: &str, due: Json, remedy: &str| match &config[key] {
        Json::Null => Ok(()),
        value if *value == due => Ok(()),
        _ => refuse(config, key, remedy),
    };
    must_be("do_layer_norm_before", true.into(), ": norms after the blocks are not (OPT 350M alone has them)")?;
    must_be("word_embed_proj_dim", hidden.into(), ": projections of the embeddings are not (OPT 350M alone has them)")?;
    must_be("activation_function", "relu".into(), "; supported: \"relu\"")?;
    must_be("enable_bias", true.into(), "; supported: true")?;
    must_be("layer_norm_elementwise_affine", true.into(), "; supported: true")?;
    must_be("_remove_final_layer_norm", false.into(), "; supported: false")?;
    let head_dim = checked_head(hidden.checked_div(heads).ok_or("`num_attention_heads` = 0")?)?;
    if head_dim * heads != hidden {
        return Err(format!("{heads} heads cannot share a hidden size of {hidden} evenly"));
    }
    Ok(ModelConfig {
        architecture: Architecture::Opt,
        vocab_size: int("vocab_size")?,
        hidden,
        layers: int("num_hidden_layers")?,
        heads,
        kv_heads: heads,
        head_dim,
        feed_forward: int("ffn_dim")?,
        context_length: int("max_position_embeddings")?,
        rope_frequencies: vec![0.0; head_dim / 2],
        learned_positions: Some(FIRST_POSITION),
        norm: NormKind::Layer,
        // No key says it; every OPT was trained with it.
        norm_eps: 1e-5,
        activation: Activation::Relu,
        qkv_bias: true,
        output_bias: true,
        qk_norm: false,
        tied_head: config["tie_word_embeddings"].as_bool().unwrap_or(true),
        end_tokens,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn opt() -> Json {
        json!({
            "model_type": "opt", "vocab_size": 64, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "ffn_dim": 96, "max_position_embeddings": 128, "word_embed_proj_dim": 48, "do_layer_norm_before": true,
            "activation_function": "relu", "eos_token_id": 2
        })
    }

    #[test]
    fn what_the_decoder_lacks_is_refused_by_name() {
        let read = ModelConfig::from_folder(&opt(), None).expect("valid");
        assert!(read.tied_head && read.head_dim == 12 && read.rope_frequencies == [0.0; 6]);
        for (key, value) in [
            ("do_layer_norm_before", json!(false)),
            ("word_embed_proj_dim", json!(32)),
            ("activation_function", json!("gelu")),
            ("enable_bias", json!(false)),
            ("layer_norm_elementwise_affine", json!(false)),
            ("_remove_final_layer_norm", json!(true)),
            ("quantization_config", json!({"quant_method": "gptq"})),
        ] {
            let mut config = opt();
            config[key] = value;
            let reason = ModelConfig::from_folder(&config, None).expect_err(key);
            assert!(reason.contains(key), "{reason}");
        }
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for (key, value) in [
            ("num_attention_heads", json!(0)),
            ("num_attention_heads", json!(5)),
            ("num_attention_heads", json!(16)),
            ("max_position_embeddings", json!(1_u64 << 60)),
            ("ffn_dim", json!(null)),
            ("hidden_size", json!(u64::MAX)),
        ] {
            let mut config = opt();
            config[key] = value.clone();
            assert!(ModelConfig::from_folder(&config, None).is_err(), "{key} = {value}");
        }
    }
}
