//! Models of a few thousand weights, all of them zero, whose tokens are bytes: every token is as likely as any other.

use serde_json::{Map, Value, json};

const HIDDEN: usize = 32;
const ROWS: usize = 257;
const LAYERS: usize = 2;

/// Files of a folder with a model of an architecture, `llama` or `phi3`.
pub fn tiny_model(architecture: &str) -> Vec<(&'static str, Vec<u8>)> {
    let config = json!({
        "model_type": architecture, "vocab_size": ROWS, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS,
        "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 64, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": true, "eos_token_id": 256
    });
    vec![
        ("config.json", config.to_string().into_bytes()),
        ("tokenizer.json", tokenizer().to_string().into_bytes()),
        ("model.safetensors", zeros(&shapes(architecture))),
    ]
}

/// GPT-2's alphabet and one special token.
fn tokenizer() -> Value {
    let printable = |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || (174..=255).contains(&b);
    let spelling = |b: u32| match printable(b) {
        true => char::from_u32(b),
        false => char::from_u32(256 + (0..b).filter(|b| !printable(*b)).count() as u32),
    };
    let vocab: Map<String, Value> =
        (0..256).map(|b| (spelling(b).expect("a character").to_string(), json!(b))).collect();
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true});
    json!({
        "version": "1.0",
        "added_tokens": [{"id": 256, "content": "<|end|>", "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false}],
        "normalizer": null,
        "pre_tokenizer": bytes,
        "post_processor": null,
        "decoder": bytes,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    })
}

fn shapes(architecture: &str) -> Vec<(String, Vec<usize>)> {
    let parts: &[(&str, &[usize])] = match architecture {
        "phi3" => &[
            ("self_attn.qkv_proj", &[64, HIDDEN]),
            ("self_attn.o_proj", &[HIDDEN, 32]),
            ("mlp.gate_up_proj", &[128, HIDDEN]),
            ("mlp.down_proj", &[HIDDEN, 64]),
        ],
        _ => &[
            ("self_attn.q_proj", &[32, HIDDEN]),
            ("self_attn.k_proj", &[16, HIDDEN]),
            ("self_attn.v_proj", &[16, HIDDEN]),
            ("self_attn.o_proj", &[HIDDEN, 32]),
            ("mlp.gate_proj", &[64, HIDDEN]),
            ("mlp.up_proj", &[64, HIDDEN]),
            ("mlp.down_proj", &[HIDDEN, 64]),
        ],
    };
    let norms: [(&str, &[usize]); 2] = [("input_layernorm", &[HIDDEN]), ("post_attention_layernorm", &[HIDDEN])];
    let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![ROWS, HIDDEN])];
    for layer in 0..LAYERS {
        let of_layer = parts.iter().chain(&norms);
        shapes.extend(of_layer.map(|(part, shape)| (format!("model.layers.{layer}.{part}.weight"), shape.to_vec())));
    }
    shapes.push(("model.norm.weight".to_owned(), vec![HIDDEN]));
    shapes
}

/// A file of safetensors.
fn zeros(shapes: &[(String, Vec<usize>)]) -> Vec<u8> {
    let mut header = Map::new();
    let mut end = 0;
    for (name, shape) in shapes {
        let from = end;
        end += 4 * shape.iter().product::<usize>();
        header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [from, end]}));
    }
    let mut header = Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; end]].concat()
}
