//! Every way in which weights come: GGUF (Q8_0, F16, F32) and folders of safetensors (F32, F16, BF16, in one file or in
//! shards), all made from the embedded draft.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Content, Value};
use candle_core::quantized::tokenizer::TokenizerFromGguf;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use serde_json::json;
use specula_decoding::model::chain_nodes;
use specula_decoding::{LanguageModel, TokenId};
use specula_models::{ChatMessage, LoadedModel, Session};

/// The embedded draft's metadata and tensors in f32, by GGUF name.
fn draft() -> (Content, Vec<(String, Tensor)>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../weights/draft.gguf");
    let mut file = std::fs::File::open(path).expect("embedded weights");
    let content = Content::read(&mut file).expect("a GGUF file");
    let names: Vec<String> = content.tensor_infos.keys().cloned().collect();
    let tensor = |name: &String| content.tensor(&mut file, name, &Device::Cpu).expect("a tensor");
    let tensors: Vec<QTensor> = names.iter().map(tensor).collect();
    let dense = tensors.iter().map(|t| t.dequantize(&Device::Cpu).expect("f32"));
    let dense = names.iter().cloned().zip(dense).collect();
    (content, dense)
}

fn fresh(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a folder");
    path
}

fn gguf(kind: GgmlDType) -> LoadedModel {
    let (content, tensors) = draft();
    let quantised: Vec<(String, QTensor)> = tensors
        .iter()
        .map(|(name, tensor)| {
            // Norms stay f32, as converters leave them.
            let kind = if tensor.rank() == 1 { GgmlDType::F32 } else { kind };
            (name.clone(), QTensor::quantize(tensor, kind).expect("this type"))
        })
        .collect();
    let path = fresh(&format!("gguf-{kind:?}")).join("model.gguf");
    let metadata: Vec<(&str, &Value)> = content.metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let tensors: Vec<(&str, &QTensor)> = quantised.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let mut file = std::fs::File::create(&path).expect("a file");
    gguf_file::write(&mut file, &metadata, &tensors).expect("written");
    LoadedModel::open(&path).unwrap_or_else(|error| panic!("{error}"))
}

fn folder(kind: DType, shards: usize) -> LoadedModel {
    let (content, tensors) = draft();
    let number = |key: &str| match content.metadata.get(&format!("qwen3.{key}")) {
        Some(Value::F32(x)) => json!(x),
        Some(other) => json!(other.to_u32().expect("a number")),
        None => panic!("{key}"),
    };
    let path = fresh(&format!("folder-{kind:?}-{shards}"));
    let config = json!({
        "model_type": "qwen3",
        "vocab_size": tensors.iter().find(|(n, _)| n == "token_embd.weight").expect("embeddings").1.dims()[0],
        "hidden_size": number("embedding_length"),
        "num_hidden_layers": number("block_count"),
        "num_attention_heads": number("attention.head_count"),
        "num_key_value_heads": number("attention.head_count_kv"),
        "head_dim": number("attention.key_length"),
        "intermediate_size": number("feed_forward_length"),
        "max_position_embeddings": number("context_length"),
        "rope_theta": number("rope.freq_base"),
        "rms_norm_eps": number("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": true,
        "eos_token_id": content.metadata["tokenizer.ggml.eos_token_id"].to_u32().expect("a token"),
    });
    std::fs::write(path.join("config.json"), config.to_string()).expect("written");
    let tokenizer = tokenizers::Tokenizer::from_gguf(&content).expect("its tokenizer");
    tokenizer.save(path.join("tokenizer.json"), false).expect("written");
    let template = content.metadata["tokenizer.chat_template"].to_string().expect("text");
    std::fs::write(path.join("chat_template.jinja"), template).expect("written");
    for shard in 0..shards {
        let part = tensors.iter().enumerate().filter(|(i, _)| i % shards == shard);
        let part = part.map(|(_, (name, t))| (hugging_face_name(name), t.to_dtype(kind).expect("this type")));
        let part: HashMap<String, Tensor> = part.collect();
        let file = format!("model-{:05}-of-{shards:05}.safetensors", shard + 1);
        candle_core::safetensors::save(&part, path.join(file)).expect("written");
    }
    LoadedModel::open(&path).unwrap_or_else(|error| panic!("{error}"))
}

/// Written out, not derived: it is what the loader's own table is checked against.
fn hugging_face_name(gguf: &str) -> String {
    if let Some(rest) = gguf.strip_prefix("blk.") {
        let (layer, part) = rest.split_once('.').expect("blk.N.part");
        let part = match part {
            "attn_norm.weight" => "input_layernorm.weight",
            "attn_q.weight" => "self_attn.q_proj.weight",
            "attn_k.weight" => "self_attn.k_proj.weight",
            "attn_v.weight" => "self_attn.v_proj.weight",
            "attn_q_norm.weight" => "self_attn.q_norm.weight",
            "attn_k_norm.weight" => "self_attn.k_norm.weight",
            "attn_output.weight" => "self_attn.o_proj.weight",
            "ffn_norm.weight" => "post_attention_layernorm.weight",
            "ffn_gate.weight" => "mlp.gate_proj.weight",
            "ffn_up.weight" => "mlp.up_proj.weight",
            "ffn_down.weight" => "mlp.down_proj.weight",
            other => panic!("{other}"),
        };
        return format!("model.layers.{layer}.{part}");
    }
    match gguf {
        "token_embd.weight" => "model.embed_tokens.weight",
        "output_norm.weight" => "model.norm.weight",
        other => panic!("{other}"),
    }
    .to_owned()
}

/// Rows of a chat, in windows of `window` tokens.
fn rows(model: &LoadedModel, window: usize) -> Vec<Vec<f32>> {
    let question = ChatMessage { role: "user".into(), content: "How do I list files by size?".into() };
    let prompt = model.template.as_ref().expect("a template").encode(&model.tokenizer, &[question]).expect("a chat");
    let text: Vec<TokenId> = prompt.iter().copied().chain((0..24).map(|i| 100 + i * 37)).collect();
    let mut session = Session::new(model.transformer.clone()).expect("cpu");
    let pieces = text.chunks(window).map(|piece| {
        let rows = session.forward(&chain_nodes(piece, session.linear()), None).expect("rows");
        (0..rows.rows()).map(|i| rows.row(i).to_vec()).collect::<Vec<_>>()
    });
    pieces.flatten().collect()
}

fn largest_gap(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().flatten().zip(b.iter().flatten()).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

#[test]
fn one_computation_for_gguf_and_safetensors() {
    let f32s = rows(&folder(DType::F32, 1), 1);
    assert_eq!(rows(&gguf(GgmlDType::F32), 1), f32s, "the same numbers give the same bits");
    assert_eq!(rows(&folder(DType::F32, 3), 1), f32s, "shards are one model");
    let f16s = rows(&folder(DType::F16, 1), 1);
    assert_eq!(rows(&gguf(GgmlDType::F16), 1), f16s);
    // Logits span some 30 units; the bounds are about the types' relative precision over a dozen layers' sums.
    assert!((1e-6..0.05).contains(&largest_gap(&f16s, &f32s)), "{}", largest_gap(&f16s, &f32s));
    let gap = largest_gap(&rows(&folder(DType::BF16, 1), 1), &f32s);
    assert!((1e-6..0.5).contains(&gap), "{gap}");
    let gap = largest_gap(&rows(&gguf(GgmlDType::Q8_0), 1), &f32s);
    assert!((1e-6..0.5).contains(&gap), "{gap}");
}

#[test]
fn rows_do_not_depend_on_the_window() {
    for (name, model) in [
        ("safetensors F32", folder(DType::F32, 2)),
        ("GGUF F16", gguf(GgmlDType::F16)),
        ("GGUF Q8_0", gguf(GgmlDType::Q8_0)),
    ] {
        let singles = rows(&model, 1);
        for window in [2, 3, 5, 8, 16, 17, 33] {
            assert!(rows(&model, window) == singles, "{name}, windows of {window}");
        }
    }
}

#[test]
fn what_is_missing_is_named() {
    let refused = |path: &Path| LoadedModel::open(path).err().map(|error| error.to_string()).unwrap_or_default();
    let empty = fresh("empty");
    assert!(refused(&empty).contains("config.json"), "{}", refused(&empty));
    assert!(refused(Path::new("/nowhere.gguf")).contains("/nowhere.gguf"));
    let path = empty.join("noise.gguf");
    std::fs::write(&path, b"GGUF, but not really").expect("written");
    assert!(refused(&path).contains("noise.gguf"));
}
