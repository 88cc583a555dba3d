//! Small random models of every architecture, written as Hugging Face's folders and as GGUF files the way llama.cpp's
//! converter writes them. Nothing is stored: weights come from a generator of whole numbers, so they are the same bits
//! everywhere, and `reference.py` reads the very files.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod borrowed;
pub(crate) mod gguf;
pub(crate) mod reference;
pub(crate) mod vocabulary;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Device, Tensor};
use serde_json::{Value as Json, json};
use specula_decoding::TokenId;
use specula_decoding::model::chain_nodes;
use specula_models::LoadedModel;
use vocabulary::Vocabulary;

/// What a random model is.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) name: &'static str,
    pub(crate) architecture: &'static str,
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) feed_forward: usize,
    pub(crate) rows: usize,
    pub(crate) theta: f64,
    /// `rope_scaling`, as config.json has it.
    pub(crate) scaling: Json,
    pub(crate) tied: bool,
    pub(crate) vocabulary: Vocabulary,
}

pub(crate) const LAYERS: usize = 2;
pub(crate) const CONTEXT: usize = 512;

/// One of each kind that computes something of its own.
pub(crate) fn all() -> Vec<Model> {
    let base = Model {
        name: "llama",
        architecture: "llama",
        hidden: 256,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        feed_forward: 512,
        rows: 320,
        theta: 500_000.0,
        scaling: Json::Null,
        tied: false,
        vocabulary: Vocabulary::llama(),
    };
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64
    });
    let qwen = Model { theta: 1_000_000.0, vocabulary: Vocabulary::qwen(), ..base.clone() };
    vec![
        base.clone(),
        Model { name: "llama3-scaled", scaling: llama3, ..base.clone() },
        // Every head has keys of its own, and the head is the embedding table.
        Model {
            name: "llama-linear-tied",
            kv_heads: 4,
            scaling: json!({"rope_type": "linear", "factor": 4.0}),
            tied: true,
            ..base.clone()
        },
        Model { name: "qwen2", architecture: "qwen2", ..qwen.clone() },
        Model { name: "qwen2-tied", architecture: "qwen2", tied: true, ..qwen.clone() },
        // Heads wider together than the residual stream.
        Model { name: "qwen3", architecture: "qwen3", heads: 8, ..qwen.clone() },
        Model { name: "qwen3-tied", architecture: "qwen3", tied: true, ..qwen },
        Model {
            name: "mistral",
            architecture: "mistral",
            heads: 8,
            head_dim: 32,
            theta: 1_000_000.0,
            vocabulary: Vocabulary::tekken(),
            ..base.clone()
        },
        Model { name: "opt", architecture: "opt", vocabulary: Vocabulary::gpt2(), kv_heads: 4, tied: true, ..base },
    ]
}

/// Those that llama.cpp has too.
pub(crate) fn all_in_gguf() -> Vec<Model> {
    all().into_iter().filter(Model::in_gguf).collect()
}

impl Model {
    /// Whether llama.cpp has it too.
    pub(crate) fn in_gguf(&self) -> bool {
        self.architecture != "opt"
    }

    /// config.json.
    pub(crate) fn config(&self) -> Json {
        if self.architecture == "opt" {
            return self.opt_config();
        }
        let mut config = json!({
            "model_type": self.architecture,
            "architectures": [match self.architecture {
                "llama" => "LlamaForCausalLM",
                "mistral" => "MistralForCausalLM",
                "qwen2" => "Qwen2ForCausalLM",
                _ => "Qwen3ForCausalLM",
            }],
            "vocab_size": self.rows,
            "hidden_size": self.hidden,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.feed_forward,
            "max_position_embeddings": CONTEXT,
            "rope_theta": self.theta,
            "rope_scaling": self.scaling,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": self.tied,
            "bos_token_id": self.vocabulary.id(self.vocabulary.start),
            "eos_token_id": self.vocabulary.id(self.vocabulary.end),
        });
        if self.architecture == "mistral" {
            config["sliding_window"] = json!(4096);
        }
        config
    }

    fn opt_config(&self) -> Json {
        json!({
            "model_type": "opt",
            "architectures": ["OPTForCausalLM"],
            "vocab_size": self.rows,
            "hidden_size": self.hidden,
            "word_embed_proj_dim": self.hidden,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": self.heads,
            "ffn_dim": self.feed_forward,
            "max_position_embeddings": CONTEXT,
            "activation_function": "relu",
            "do_layer_norm_before": true,
            "tie_word_embeddings": self.tied,
            "pad_token_id": 1,
            "bos_token_id": self.vocabulary.id(self.vocabulary.start),
            "eos_token_id": self.vocabulary.id(self.vocabulary.end),
        })
    }

    /// Tensors by Hugging Face's names.
    pub(crate) fn tensors(&self) -> Vec<(String, Tensor)> {
        let shapes = if self.architecture == "opt" { self.opt_shapes() } else { self.shapes() };
        shapes.into_iter().map(|(name, shape)| (name.clone(), random_tensor(&name, &shape))).collect()
    }

    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, feed) = (self.hidden, self.feed_forward);
        let (q_width, kv_width) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![self.rows, hidden])];
        for layer in 0..LAYERS {
            let mut add = |part: &str, shape: &[usize]| {
                shapes.push((format!("model.layers.{layer}.{part}"), shape.to_vec()));
            };
            add("input_layernorm.weight", &[hidden]);
            for (part, width) in [("q_proj", q_width), ("k_proj", kv_width), ("v_proj", kv_width)] {
                add(&format!("self_attn.{part}.weight"), &[width, hidden]);
                if self.architecture == "qwen2" {
                    add(&format!("self_attn.{part}.bias"), &[width]);
                }
            }
            if self.architecture == "qwen3" {
                add("self_attn.q_norm.weight", &[self.head_dim]);
                add("self_attn.k_norm.weight", &[self.head_dim]);
            }
            add("self_attn.o_proj.weight", &[hidden, q_width]);
            add("post_attention_layernorm.weight", &[hidden]);
            add("mlp.gate_proj.weight", &[feed, hidden]);
            add("mlp.up_proj.weight", &[feed, hidden]);
            add("mlp.down_proj.weight", &[hidden, feed]);
        }
        shapes.push(("model.norm.weight".to_owned(), vec![hidden]));
        if !self.tied {
            shapes.push(("lm_head.weight".to_owned(), vec![self.rows, hidden]));
        }
        shapes
    }

    fn opt_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, feed) = (self.hidden, self.feed_forward);
        let mut shapes = vec![
            ("model.decoder.embed_tokens.weight".to_owned(), vec![self.rows, hidden]),
            ("model.decoder.embed_positions.weight".to_owned(), vec![CONTEXT + 2, hidden]),
        ];
        let mut map = |name: String, shape: &[usize]| {
            shapes.push((format!("model.decoder.{name}.weight"), shape.to_vec()));
            shapes.push((format!("model.decoder.{name}.bias"), shape[..1].to_vec()));
        };
        map("final_layer_norm".into(), &[hidden]);
        for layer in 0..LAYERS {
            for (part, shape) in [
                ("self_attn_layer_norm", &[hidden][..]),
                ("self_attn.q_proj", &[hidden, hidden]),
                ("self_attn.k_proj", &[hidden, hidden]),
                ("self_attn.v_proj", &[hidden, hidden]),
                ("self_attn.out_proj", &[hidden, hidden]),
                ("final_layer_norm", &[hidden]),
                ("fc1", &[feed, hidden]),
                ("fc2", &[hidden, feed]),
            ] {
                map(format!("layers.{layer}.{part}"), shape);
            }
        }
        shapes
    }

    /// Writes a folder; `files` says how many files share the tensors.
    pub(crate) fn write_folder(&self, folder: &Path, kind: DType, files: usize) {
        let write = |name: &str, text: String| std::fs::write(folder.join(name), text).expect("written");
        write("config.json", self.config().to_string());
        self.vocabulary.write(folder);
        let tensors = self.tensors();
        let mut map = serde_json::Map::new();
        for file in 0..files {
            let part = tensors.iter().enumerate().filter(|(i, _)| i % files == file);
            let part = part.map(|(_, (name, t))| (name.clone(), t.to_dtype(kind).expect("this type")));
            let part: HashMap<String, Tensor> = part.collect();
            let name = match files {
                1 => "model.safetensors".to_owned(),
                _ => format!("model-{:05}-of-{files:05}.safetensors", file + 1),
            };
            map.extend(part.keys().map(|tensor| (tensor.clone(), json!(name))));
            candle_core::safetensors::save(&part, folder.join(name)).expect("written");
        }
        if files > 1 {
            write("model.safetensors.index.json", json!({"metadata": {}, "weight_map": map}).to_string());
        }
    }

    pub(crate) fn folder(&self, kind: DType, files: usize) -> LoadedModel {
        let path = fresh(&format!("{}-{kind:?}-{files}", self.name));
        self.write_folder(&path, kind, files);
        open_once(&path)
    }
}

/// Value k of a tensor: (n / 2²⁴ − 1/2) · scale (+ 1 in norms), n the upper 24 bits of output k of SplitMix64, whose
/// state begins as FNV-1a of the tensor's name. Scales are powers of two, so that every value is exact in f32.
fn random_tensor(name: &str, shape: &[usize]) -> Tensor {
    let mut state =
        name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let (scale, shift) = match (name, shape.len()) {
        (name, 1) if name.ends_with(".bias") => (1.0, 0.0),
        (_, 1) => (0.5, 1.0),
        (name, _) if name.contains("embed_") => (2.0, 0.0),
        _ => (0.25, 0.0),
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| next() * scale + shift).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("that many values")
}

/// An empty folder of this name, another one at each call: tests run side by side.
pub(crate) fn fresh(name: &str) -> PathBuf {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed).to_string();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(env!("CARGO_CRATE_NAME")).join(call);
    let _ = std::fs::remove_dir_all(&path);
    let path = path.join(name);
    std::fs::create_dir_all(&path).expect("a folder");
    path
}

pub(crate) fn open(path: &Path) -> LoadedModel {
    LoadedModel::open(path).unwrap_or_else(|error| panic!("{error}"))
}

/// Loads a model and removes its files: what is loaded needs them no more.
pub(crate) fn open_once(path: &Path) -> LoadedModel {
    let model = open(path);
    let folder = if path.is_dir() { path } else { path.parent().expect("a folder") };
    std::fs::remove_dir_all(folder).expect("removed");
    model
}

/// Why a model is refused.
pub(crate) fn refused(path: &Path) -> String {
    match LoadedModel::open(path) {
        Ok(model) => panic!("{} was loaded as {}", path.display(), model.name),
        Err(error) => error.to_string(),
    }
}

/// Some tokens that are text.
pub(crate) fn text(len: usize) -> Vec<TokenId> {
    (0..len as u32).map(|i| (i * 7919 + 13) % 251).collect()
}

/// Logits after each token, fed in windows of `window`.
pub(crate) fn rows(model: &LoadedModel, tokens: &[TokenId], window: usize) -> Vec<Vec<f32>> {
    let mut session = model.model.session().expect("cpu");
    let pieces = tokens.chunks(window).map(|piece| {
        let rows = session.forward(&chain_nodes(piece, session.linear()), None).expect("rows");
        (0..rows.rows()).map(|i| rows.row(i).to_vec()).collect::<Vec<_>>()
    });
    pieces.flatten().collect()
}

pub(crate) fn largest_gap(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().flatten().zip(b.iter().flatten()).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}
