//! GGUF files as llama.cpp's converter makes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use specula_models::LoadedModel;

use super::{CONTEXT, LAYERS, Model, fresh, open_once};

/// A file before it is written, so that tests can spoil it.
pub(crate) struct File {
    pub(crate) metadata: BTreeMap<String, Value>,
    pub(crate) tensors: BTreeMap<String, QTensor>,
}

impl Model {
    /// This model with its matrices in `kind`; vectors stay f32, as converters leave them.
    pub(crate) fn gguf_file(&self, kind: impl Fn(&str) -> GgmlDType) -> File {
        let quantised = |name: &str, tensor: &Tensor| {
            let kind = if tensor.rank() == 1 { GgmlDType::F32 } else { kind(name) };
            QTensor::quantize(tensor, kind).expect("this type")
        };
        let mut tensors = BTreeMap::new();
        for (name, tensor) in self.tensors() {
            let (name, heads) = gguf_name(&name, self);
            let tensor = match heads.filter(|_| self.gguf_architecture() == "llama") {
                Some(heads) => interleave(&tensor, heads),
                None => tensor,
            };
            tensors.insert(name.clone(), quantised(&name, &tensor));
        }
        if self.scaling["rope_type"] == "llama3" {
            tensors.insert("rope_freqs.weight".into(), quantised("rope_freqs.weight", &frequency_factors(self)));
        }
        File { metadata: self.metadata(), tensors }
    }

    /// llama.cpp's name.
    fn gguf_architecture(&self) -> &'static str {
        if self.architecture == "mistral" { "llama" } else { self.architecture }
    }

    fn metadata(&self) -> BTreeMap<String, Value> {
        let vocabulary = &self.vocabulary;
        let mut tokens = vocabulary.tokens();
        let kinds = tokens.iter().map(|token| match token.as_str() {
            special if vocabulary.specials.contains(&special) => 3,
            defined if vocabulary.defined.contains(&defined) => 4,
            _ => 1,
        });
        let mut kinds: Vec<i32> = kinds.collect();
        for id in tokens.len()..self.rows {
            tokens.push(format!("[PAD{id}]"));
            kinds.push(5);
        }
        let texts = |texts: Vec<String>| Value::Array(texts.into_iter().map(Value::String).collect());
        let own = |name: &str| format!("{}.{name}", self.gguf_architecture());
        let number = |n: usize| Value::U32(n as u32);
        let mut metadata = BTreeMap::from([
            ("general.architecture".into(), Value::String(self.gguf_architecture().into())),
            ("general.name".into(), Value::String(self.name.into())),
            (own("context_length"), number(CONTEXT)),
            (own("embedding_length"), number(self.hidden)),
            (own("block_count"), number(LAYERS)),
            (own("feed_forward_length"), number(self.feed_forward)),
            (own("attention.head_count"), number(self.heads)),
            (own("attention.head_count_kv"), number(self.kv_heads)),
            (own("attention.key_length"), number(self.head_dim)),
            (own("attention.value_length"), number(self.head_dim)),
            (own("rope.dimension_count"), number(self.head_dim)),
            (own("rope.freq_base"), Value::F32(self.theta as f32)),
            (own("attention.layer_norm_rms_epsilon"), Value::F32(1e-5)),
            (own("vocab_size"), number(self.rows)),
            ("tokenizer.ggml.model".into(), Value::String("gpt2".into())),
            ("tokenizer.ggml.pre".into(), Value::String(vocabulary.split.into())),
            ("tokenizer.ggml.tokens".into(), texts(tokens)),
            ("tokenizer.ggml.token_type".into(), Value::Array(kinds.into_iter().map(Value::I32).collect())),
            ("tokenizer.ggml.merges".into(), texts(vocabulary.merges())),
            ("tokenizer.ggml.bos_token_id".into(), Value::U32(vocabulary.id(vocabulary.start))),
            ("tokenizer.ggml.eos_token_id".into(), Value::U32(vocabulary.id(vocabulary.end))),
            ("tokenizer.chat_template".into(), Value::String(vocabulary.template.into())),
        ]);
        if self.scaling["rope_type"] == "linear" {
            metadata.insert(own("rope.scaling.type"), Value::String("linear".into()));
            metadata
                .insert(own("rope.scaling.factor"), Value::F32(self.scaling["factor"].as_f64().expect("one") as f32));
        }
        metadata
    }

    pub(crate) fn gguf(&self, label: &str, kind: impl Fn(&str) -> GgmlDType) -> LoadedModel {
        open_once(&self.gguf_file(kind).write(&format!("{}-{label}", self.name)))
    }
}

impl File {
    /// Writes it into a folder of its own.
    pub(crate) fn write(&self, name: &str) -> PathBuf {
        let path = fresh(name).join("model.gguf");
        self.write_to(&path);
        path
    }

    pub(crate) fn write_to(&self, path: &Path) {
        let metadata: Vec<(&str, &Value)> = self.metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
        let tensors: Vec<(&str, &QTensor)> = self.tensors.iter().map(|(k, v)| (k.as_str(), v)).collect();
        let mut file = std::fs::File::create(path).expect("a file");
        gguf_file::write(&mut file, &metadata, &tensors).expect("written");
    }

    /// The same numbers in f32.
    pub(crate) fn dequantised(mut self) -> Self {
        for tensor in self.tensors.values_mut() {
            let dense = tensor.dequantize(&Device::Cpu).expect("f32");
            *tensor = QTensor::quantize(&dense, GgmlDType::F32).expect("f32");
        }
        self
    }
}

/// What `llama-quantize` makes of a matrix under the name Q4_K_M: mostly Q4_K, Q6_K where it hurts most.
pub(crate) fn q4_k_m(name: &str) -> GgmlDType {
    match name {
        "output.weight" | "token_embd.weight" | "blk.0.attn_v.weight" | "blk.0.ffn_down.weight" => GgmlDType::Q6K,
        _ => GgmlDType::Q4K,
    }
}

/// GGUF's name of a tensor, and the number of its heads if the converter interleaves it for Llama.
fn gguf_name(name: &str, model: &Model) -> (String, Option<usize>) {
    let Some(rest) = name.strip_prefix("model.layers.") else {
        let name = match name {
            "model.embed_tokens.weight" => "token_embd.weight",
            "model.norm.weight" => "output_norm.weight",
            "lm_head.weight" => "output.weight",
            other => panic!("{other}"),
        };
        return (name.to_owned(), None);
    };
    let (layer, part) = rest.split_once('.').expect("N.part");
    let (part, end) = part.rsplit_once('.').expect("part.weight");
    let (part, heads) = match part {
        "input_layernorm" => ("attn_norm", None),
        "self_attn.q_proj" => ("attn_q", Some(model.heads)),
        "self_attn.k_proj" => ("attn_k", Some(model.kv_heads)),
        "self_attn.v_proj" => ("attn_v", None),
        "self_attn.q_norm" => ("attn_q_norm", None),
        "self_attn.k_norm" => ("attn_k_norm", None),
        "self_attn.o_proj" => ("attn_output", None),
        "post_attention_layernorm" => ("ffn_norm", None),
        "mlp.gate_proj" => ("ffn_gate", None),
        "mlp.up_proj" => ("ffn_up", None),
        "mlp.down_proj" => ("ffn_down", None),
        other => panic!("{other}"),
    };
    (format!("blk.{layer}.{part}.{end}"), heads)
}

/// The converter's permutation: `reshape(heads, 2, D / 2, in).swapaxes(1, 2)`.
fn interleave(matrix: &Tensor, heads: usize) -> Tensor {
    let (out, input) = matrix.dims2().expect("a matrix");
    let turned = matrix.reshape((heads, 2, out / heads / 2, input)).and_then(|t| t.transpose(1, 2)?.contiguous());
    turned.and_then(|t| t.reshape((out, input))).expect("the same elements")
}

/// What the converter stores for Llama 3's scaling: by what each frequency is divided.
fn frequency_factors(model: &Model) -> Tensor {
    let of = |key: &str| model.scaling[key].as_f64().expect("a number");
    let (factor, low, high) = (of("factor"), of("low_freq_factor"), of("high_freq_factor"));
    let original = of("original_max_position_embeddings");
    let dim = model.head_dim as f64;
    let factors = (0..model.head_dim / 2).map(|i| {
        let wavelength = 2.0 * std::f64::consts::PI * model.theta.powf(2.0 * i as f64 / dim);
        if wavelength < original / high {
            return 1.0;
        }
        if wavelength > original / low {
            return factor as f32;
        }
        let smooth = (original / wavelength - low) / (high - low);
        (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
    });
    Tensor::from_iter(factors, &Device::Cpu).expect("a vector")
}
