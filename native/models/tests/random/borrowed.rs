//! Small random models of the architectures that candle-transformers computes.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::Tensor;
use serde_json::{Value as Json, json};

use super::vocabulary::Vocabulary;
use super::{fresh, random_tensor};

#[derive(Clone)]
pub(crate) struct Borrowed {
    pub(crate) name: &'static str,
    /// config.json.
    pub(crate) config: Json,
    shapes: Vec<(String, Vec<usize>)>,
}

const HIDDEN: usize = 64;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const FEED: usize = 128;
const ROWS: usize = 320;
const LAYERS: usize = 4;

/// One of each.
pub(crate) fn borrowed() -> Vec<Borrowed> {
    vec![gemma2(), gemma3(), phi(), phi3(), starcoder2()]
}

impl Borrowed {
    /// A new folder with it.
    pub(crate) fn folder(&self) -> PathBuf {
        let path = fresh(self.name);
        std::fs::write(path.join("config.json"), self.config.to_string()).expect("written");
        Vocabulary::gpt2().write(&path);
        let tensors: HashMap<String, Tensor> =
            self.shapes.iter().map(|(name, shape)| (name.clone(), random_tensor(name, shape))).collect();
        candle_core::safetensors::save(&tensors, path.join("model.safetensors")).expect("written");
        path
    }
}

/// What all their files say, and what one says beside it.
fn config(name: &str, class: &str, own: Json) -> Json {
    let end = Vocabulary::gpt2().id(Vocabulary::gpt2().end);
    let mut config = json!({
        "model_type": name, "architectures": [class], "vocab_size": ROWS, "hidden_size": HIDDEN,
        "intermediate_size": FEED, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": end
    });
    if let (Some(config), Json::Object(own)) = (config.as_object_mut(), own) {
        config.extend(own);
    }
    config
}

/// Tensors of every layer, between the embeddings and `last`: a weight each and, if `bias`, as long a bias.
fn shapes(parts: &[(&str, &[usize])], last: &[(&str, &[usize])], bias: bool) -> Vec<(String, Vec<usize>)> {
    let layers = (0..LAYERS)
        .flat_map(|layer| parts.iter().map(move |(part, shape)| (format!("model.layers.{layer}.{part}"), *shape)));
    let all = layers.chain(last.iter().map(|(part, shape)| ((*part).to_owned(), *shape)));
    let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![ROWS, HIDDEN])];
    for (name, shape) in all {
        if bias {
            shapes.push((format!("{name}.bias"), vec![shape[0]]));
        }
        shapes.push((format!("{name}.weight"), shape.to_vec()));
    }
    shapes
}

/// Heads wider together than the residual stream.
const GEMMA_HEAD: usize = 32;

const GEMMA: [(&str, &[usize]); 11] = [
    ("self_attn.q_proj", &[HEADS * GEMMA_HEAD, HIDDEN]),
    ("self_attn.k_proj", &[KV_HEADS * GEMMA_HEAD, HIDDEN]),
    ("self_attn.v_proj", &[KV_HEADS * GEMMA_HEAD, HIDDEN]),
    ("self_attn.o_proj", &[HIDDEN, HEADS * GEMMA_HEAD]),
    ("mlp.gate_proj", &[FEED, HIDDEN]),
    ("mlp.up_proj", &[FEED, HIDDEN]),
    ("mlp.down_proj", &[HIDDEN, FEED]),
    ("input_layernorm", &[HIDDEN]),
    ("post_attention_layernorm", &[HIDDEN]),
    ("pre_feedforward_layernorm", &[HIDDEN]),
    ("post_feedforward_layernorm", &[HIDDEN]),
];

fn gemma2() -> Borrowed {
    let own = json!({
        "head_dim": GEMMA_HEAD, "query_pre_attn_scalar": GEMMA_HEAD, "attention_bias": false, "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh", "rope_theta": 10000.0, "sliding_window": 256,
        "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0, "tie_word_embeddings": true
    });
    Borrowed {
        name: "gemma2",
        config: config("gemma2", "Gemma2ForCausalLM", own),
        shapes: shapes(&GEMMA, &[("model.norm", &[HIDDEN])], false),
    }
}

/// As transformers 5 writes it: angles and windows by kind of layer.
fn gemma3() -> Borrowed {
    let own = json!({
        "head_dim": GEMMA_HEAD, "query_pre_attn_scalar": GEMMA_HEAD, "attention_bias": false, "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 32,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}},
        "tie_word_embeddings": true
    });
    let norms: [(&str, &[usize]); 2] = [("self_attn.q_norm", &[GEMMA_HEAD]), ("self_attn.k_norm", &[GEMMA_HEAD])];
    Borrowed {
        name: "gemma3_text",
        config: config("gemma3_text", "Gemma3ForCausalLM", own),
        shapes: shapes(&[&GEMMA[..], &norms].concat(), &[("model.norm", &[HIDDEN])], false),
    }
}

/// Every head has keys of its own.
fn phi() -> Borrowed {
    let own = json!({
        "num_key_value_heads": HEADS, "hidden_act": "gelu_new", "layer_norm_eps": 1e-5, "tie_word_embeddings": false,
        "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "qk_layernorm": false
    });
    let parts: [(&str, &[usize]); 7] = [
        ("self_attn.q_proj", &[HIDDEN, HIDDEN]),
        ("self_attn.k_proj", &[HIDDEN, HIDDEN]),
        ("self_attn.v_proj", &[HIDDEN, HIDDEN]),
        ("self_attn.dense", &[HIDDEN, HIDDEN]),
        ("mlp.fc1", &[FEED, HIDDEN]),
        ("mlp.fc2", &[HIDDEN, FEED]),
        ("input_layernorm", &[HIDDEN]),
    ];
    Borrowed {
        name: "phi",
        config: config("phi", "PhiForCausalLM", own),
        shapes: shapes(&parts, &[("model.final_layernorm", &[HIDDEN]), ("lm_head", &[ROWS, HIDDEN])], true),
    }
}

fn phi3() -> Borrowed {
    let own = json!({
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": null, "sliding_window": null,
        "original_max_position_embeddings": 256, "tie_word_embeddings": false
    });
    let parts: [(&str, &[usize]); 6] = [
        ("self_attn.qkv_proj", &[HIDDEN + 2 * HIDDEN / HEADS * KV_HEADS, HIDDEN]),
        ("self_attn.o_proj", &[HIDDEN, HIDDEN]),
        ("mlp.gate_up_proj", &[2 * FEED, HIDDEN]),
        ("mlp.down_proj", &[HIDDEN, FEED]),
        ("input_layernorm", &[HIDDEN]),
        ("post_attention_layernorm", &[HIDDEN]),
    ];
    Borrowed {
        name: "phi3",
        config: config("phi3", "Phi3ForCausalLM", own),
        shapes: shapes(&parts, &[("model.norm", &[HIDDEN]), ("lm_head", &[ROWS, HIDDEN])], false),
    }
}

fn starcoder2() -> Borrowed {
    let own = json!({
        "hidden_act": "gelu_pytorch_tanh", "norm_epsilon": 1e-5, "rope_theta": 10000.0, "use_bias": true,
        "sliding_window": null, "tie_word_embeddings": true
    });
    let parts: [(&str, &[usize]); 8] = [
        ("self_attn.q_proj", &[HIDDEN, HIDDEN]),
        ("self_attn.k_proj", &[HIDDEN / HEADS * KV_HEADS, HIDDEN]),
        ("self_attn.v_proj", &[HIDDEN / HEADS * KV_HEADS, HIDDEN]),
        ("self_attn.o_proj", &[HIDDEN, HIDDEN]),
        ("mlp.c_fc", &[FEED, HIDDEN]),
        ("mlp.c_proj", &[HIDDEN, FEED]),
        ("input_layernorm", &[HIDDEN]),
        ("post_attention_layernorm", &[HIDDEN]),
    ];
    Borrowed {
        name: "starcoder2",
        config: config("starcoder2", "Starcoder2ForCausalLM", own),
        shapes: shapes(&parts, &[("model.norm", &[HIDDEN])], true),
    }
}
