//! Writes a folder's model as one GGUF file, for this host and for others that read the format.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use candle_core::quantized::gguf_file::{Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{D, Tensor};
use serde_json::Value as Json;

use crate::load::ModelFolder;
use crate::tokenizer::gguf_metadata;
use crate::weights::{gguf_name, interleaved_from_halves};

/// `general.file_type` of files that are mostly Q8_0.
const MOSTLY_Q8_0: u32 = 7;

/// Writes matrices as Q8_0 where their rows come in whole blocks of 32, the rest as f32.
///
/// # Errors
/// What the format cannot say of this model, or why the file cannot be written.
pub fn write_gguf(folder: &Path, name: &str, to: &Path) -> Result<(), String> {
    let model = ModelFolder::open(folder, None).map_err(|error| error.to_string())?;
    let c = &model.config;
    let architecture = c.architecture.gguf_name();
    let architecture = architecture.ok_or_else(|| format!("GGUF has no name for {}", c.architecture.name()))?;
    if ["rope_scaling", "rope_parameters"].iter().any(|key| !model.json[key].is_null()) {
        return Err(
            "config.json scales rotary angles, which this writer cannot say in GGUF yet; use llama.cpp's".into()
        );
    }
    let theta = model.json["rope_theta"].as_f64().unwrap_or(10_000.0);
    let sizes = [
        ("context_length", c.context_length),
        ("embedding_length", c.hidden),
        ("block_count", c.layers),
        ("feed_forward_length", c.feed_forward),
        ("attention.head_count", c.heads),
        ("attention.head_count_kv", c.kv_heads),
        ("attention.key_length", c.head_dim),
        ("attention.value_length", c.head_dim),
        ("vocab_size", c.vocab_size),
    ];
    let mut metadata = vec![
        ("general.architecture".to_owned(), Value::String(architecture.into())),
        ("general.name".to_owned(), Value::String(name.into())),
        ("general.file_type".to_owned(), Value::U32(MOSTLY_Q8_0)),
    ];
    for (key, size) in sizes {
        let size = u32::try_from(size).map_err(|_| format!("{key} = {size} does not fit GGUF's 32 bits"))?;
        metadata.push((format!("{architecture}.{key}"), Value::U32(size)));
    }
    metadata.push((format!("{architecture}.rope.freq_base"), Value::F32(theta as f32)));
    metadata.push((format!("{architecture}.attention.layer_norm_rms_epsilon"), Value::F32(c.norm_eps)));
    let tokenizer = std::fs::read(folder.join("tokenizer.json")).map_err(|e| format!("tokenizer.json: {e}"))?;
    let tokenizer: Json = serde_json::from_slice(&tokenizer).map_err(|e| format!("tokenizer.json: {e}"))?;
    metadata.extend(gguf_metadata(&tokenizer, c.vocab_size, (model.tokenizer.start(), c.end_tokens[0]))?);
    if let Some(template) = crate::load::template_source(folder)? {
        metadata.push(("tokenizer.chat_template".to_owned(), Value::String(template)));
    }
    let mut tensors = Vec::new();
    let mut names: Vec<&String> = model.tensors.keys().collect();
    names.sort();
    for name in names.into_iter().filter(|name| !(c.tied_head && *name == "lm_head.weight")) {
        let heads = match name {
            _ if !c.architecture.interleaved_in_gguf() => None,
            name if name.ends_with("q_proj.weight") => Some(c.heads),
            name if name.ends_with("k_proj.weight") => Some(c.kv_heads),
            _ => None,
        };
        let tensor = quantised(&model.tensors[name], heads.map(|heads| interleaved_from_halves(heads, c.head_dim)));
        tensors.push((gguf_name(name), tensor.map_err(|e| format!("tensor `{name}`: {e}"))?));
    }
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let file = File::create(to).map_err(|e| e.to_string())?;
    write(&mut BufWriter::new(file), &metadata, &tensors).map_err(|e| e.to_string())
}

fn quantised(tensor: &Tensor, order: Option<Vec<u32>>) -> candle_core::Result<QTensor> {
    let tensor = match order {
        Some(order) => tensor.index_select(&Tensor::new(order, tensor.device())?, 0)?,
        None => tensor.clone(),
    };
    let blocks = tensor.rank() == 2 && tensor.dim(D::Minus1)?.is_multiple_of(GgmlDType::Q8_0.block_size());
    QTensor::quantize(&tensor, if blocks { GgmlDType::Q8_0 } else { GgmlDType::F32 })
}
