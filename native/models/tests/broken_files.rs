//! Broken and hostile model files: each is refused with its name, the field or tensor, the value and what to do; none
//! panics, and none makes the loader take memory that the file's own size does not account for.

mod random;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::quantized::gguf_file::Value;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use random::gguf::File;
use random::{Model, all, fresh, refused};
use serde_json::{Value as Json, json};
use specula_models::LoadedModel;

/// The largest piece of memory asked for in this process.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

struct Watched;

// SAFETY: the system's allocator, asked for exactly what was asked here.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static MEMORY: Watched = Watched;

/// More than any test here has a use for, the files being some hundred kilobytes.
const TOO_MUCH: usize = 64 << 20;

fn assert_modest(what: &str) {
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest < TOO_MUCH, "{what}: {largest} bytes were asked for at once");
}

fn small(name: &str) -> Model {
    let model = all().into_iter().find(|m| m.name == name).expect("one of that name");
    Model { hidden: 32, heads: 2, kv_heads: 1, head_dim: 16, feed_forward: 64, ..model }
}

fn says(reason: &str, path: &Path, parts: &[&str]) {
    for part in parts.iter().copied().chain([&*path.display().to_string()]) {
        assert!(reason.contains(part), "`{part}` is not in: {reason}");
    }
    assert_modest(reason);
}

fn zeros(shape: &[usize]) -> QTensor {
    let tensor = Tensor::zeros(shape, DType::F32, &Device::Cpu).expect("cpu");
    QTensor::quantize(&tensor, GgmlDType::F32).expect("f32")
}

#[test]
fn gguf_files_are_refused_by_key_and_tensor() {
    let number = |n: u32| Value::U32(n);
    let word = |text: &str| Value::String(text.into());
    type Spoil = Box<dyn Fn(&mut File)>;
    let set = |key: &'static str, value: Value| -> Spoil {
        Box::new(move |file| {
            file.metadata.insert(key.into(), value.clone());
        })
    };
    let without = |key: &'static str| -> Spoil { Box::new(move |file| assert!(file.metadata.remove(key).is_some())) };
    let lost = |name: &'static str| -> Spoil { Box::new(move |file| assert!(file.tensors.remove(name).is_some())) };
    let shaped = |name: &'static str, shape: &'static [usize]| -> Spoil {
        Box::new(move |file| {
            file.tensors.insert(name.into(), zeros(shape));
        })
    };
    let cases: Vec<(Spoil, &[&str])> = vec![
        (set("general.architecture", word("mamba")), &["`general.architecture` = `mamba`", "llama, qwen2, qwen3"]),
        (without("general.architecture"), &["`general.architecture` is missing"]),
        (without("llama.block_count"), &["`llama.block_count` is missing"]),
        (set("llama.block_count", word("two")), &["`llama.block_count` = `two`"]),
        (set("llama.block_count", Value::I32(-1)), &["`llama.block_count` = -1"]),
        (set("llama.block_count", number(3)), &["`blk.2.attn_norm.weight` is missing"]),
        (set("llama.block_count", number(1)), &["at least 2 layers"]),
        (set("llama.block_count", number(u32::MAX)), &["`blk.2."]),
        (set("llama.attention.head_count", number(0)), &["number of heads of 0"]),
        (set("llama.attention.head_count_kv", number(0)), &["key/value heads of 0"]),
        (set("llama.attention.key_length", Value::U64(1 << 62)), &["`llama.attention.value_length` = 16"]),
        (set("llama.embedding_length", Value::U64(1 << 40)), &["hidden size of 1099511627776"]),
        (set("llama.embedding_length", number(64)), &["`token_embd.weight`", "[320, 32]", "[320, 64]"]),
        (set("llama.context_length", Value::U64(1 << 60)), &["context of 1152921504606846976 tokens"]),
        (set("llama.attention.layer_norm_rms_epsilon", Value::F32(f32::NAN)), &["ε = NaN"]),
        (set("llama.rope.freq_base", Value::F32(-1.0)), &["rotary base of -1"]),
        (
            set("llama.rope.scaling.type", word("yarn")),
            &["`llama.rope.scaling.type` = `yarn`", "supported: none, linear"],
        ),
        (set("llama.rope.scaling.type", word("linear")), &["`llama.rope.scaling.factor` is missing"]),
        (set("llama.rope.scaling.factor", Value::F32(0.0)), &["`factor` = 0"]),
        (set("llama.rope.dimension_count", number(8)), &["`llama.rope.dimension_count` = 8", "16"]),
        (set("llama.attention.sliding_window", number(4096)), &["`llama.attention.sliding_window` = 4096"]),
        (set("llama.logit_scale", Value::F32(0.5)), &["`llama.logit_scale` = 0.5"]),
        (set("llama.expert_count", number(8)), &["`llama.expert_count` = 8", "experts"]),
        (set("split.count", Value::U16(3)), &["`split.count` = 3", "llama-gguf-split --merge"]),
        (set("general.alignment", number(0)), &["`general.alignment`"]),
        (set("tokenizer.ggml.model", word("llama")), &["`tokenizer.ggml.model` = `llama`", "gpt2"]),
        (set("tokenizer.ggml.pre", word("bloom")), &["`tokenizer.ggml.pre` = `bloom`", "llama-bpe, "]),
        (without("tokenizer.ggml.pre"), &["`tokenizer.ggml.pre` is missing"]),
        (without("tokenizer.ggml.tokens"), &["`tokenizer.ggml.tokens` is missing"]),
        (without("tokenizer.ggml.merges"), &["`tokenizer.ggml.merges` is missing"]),
        (
            set("tokenizer.ggml.merges", Value::Array(vec![word("he zz")])),
            &["`tokenizer.ggml.*`", "`zz` out of vocabulary"],
        ),
        (set("tokenizer.ggml.token_type", Value::Array(vec![Value::I32(1)])), &["`tokenizer.ggml.token_type`", "320"]),
        (set("tokenizer.ggml.bos_token_id", number(320)), &["`tokenizer.ggml.bos_token_id` = 320", "320"]),
        (set("tokenizer.ggml.eos_token_id", number(1 << 30)), &["end token 1073741824", "320"]),
        (set("tokenizer.chat_template", word("{% for %}")), &["template"]),
        (lost("blk.1.ffn_up.weight"), &["`blk.1.ffn_up.weight` is missing"]),
        (lost("output_norm.weight"), &["`output_norm.weight` is missing"]),
        (shaped("blk.0.attn_q.weight", &[32, 16]), &["`blk.0.attn_q.weight`", "[32, 16]", "[32, 32]"]),
        (shaped("blk.0.attn_norm.weight", &[64]), &["`blk.0.attn_norm.weight`", "[64]", "[32]"]),
        (shaped("blk.0.attn_q.bias", &[32]), &["`blk.0.attn_q.bias`", "left out"]),
        (shaped("blk.2.attn_norm.weight", &[32]), &["`blk.2.attn_norm.weight`"]),
        (shaped("rope_freqs.weight", &[7]), &["7 factors"]),
    ];
    for (i, (spoil, parts)) in cases.into_iter().enumerate() {
        let mut file = small("llama").gguf_file(|_| GgmlDType::F32);
        spoil(&mut file);
        let path = file.write(&format!("spoiled-{i}"));
        says(&refused(&path), &path, parts);
    }
}

/// What candle's own writer would not write.
#[test]
fn impossible_headers_are_refused() {
    let path = fresh("headers").join("model.gguf");
    let write = |bytes: &[u8]| std::fs::write(&path, bytes).expect("written");
    let header = |version: u32, tensors: u64, entries: u64| {
        [b"GGUF".as_slice(), &version.to_le_bytes(), &tensors.to_le_bytes(), &entries.to_le_bytes()].concat()
    };
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let tensor = |sizes: &[u64], kind: u32, from: u64| {
        let sizes =
            [&(sizes.len() as u32).to_le_bytes()[..], &sizes.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<_>>()];
        [header(3, 1, 0), text("t"), sizes.concat(), kind.to_le_bytes().to_vec(), from.to_le_bytes().to_vec()].concat()
    };
    let list = |kind: u32, count: u64| {
        let numbers = [9_u32.to_le_bytes().as_slice(), &kind.to_le_bytes(), &count.to_le_bytes()].concat();
        [header(3, 0, 1), text("list"), numbers, vec![0; 64]].concat()
    };
    let cases: Vec<(Vec<u8>, &[&str])> = vec![
        (b"GGML, an older one".to_vec(), &["no GGUF file"]),
        (b"GGUF".to_vec(), &["version", "0 left"]),
        (header(1, 0, 0), &["version 1", "2 and 3"]),
        (header(3 << 24, 0, 0), &["little-endian"]),
        (header(3, u64::MAX, 0), &["tensor 0 of 18446744073709551615"]),
        (header(3, 0, u64::MAX), &["metadata entry 0 of 18446744073709551615"]),
        ([header(3, 0, 1), u64::MAX.to_le_bytes().to_vec()].concat(), &["18446744073709551615 bytes"]),
        ([header(3, 0, 1), text("key"), 99_u32.to_le_bytes().to_vec()].concat(), &["`key`", "type 99"]),
        (list(8, 1 << 60), &["`list`", "1152921504606846976 entries"]),
        (list(4, u64::MAX), &["`list`", "18446744073709551615 entries"]),
        (list(9, 2), &["`list`", "type 9"]),
        (tensor(&[1 << 32, 1 << 32], 0, 0), &["`t`", "4294967296", "too large"]),
        (tensor(&[u64::MAX], 0, 0), &["`t`", "too large"]),
        (tensor(&[1 << 40], 0, 0), &["`t`", "cut short"]),
        (tensor(&[32], 0, u64::MAX), &["`t`", "cut short"]),
        (tensor(&[33, 2], 8, 0), &["`t`", "[2, 33]", "whole blocks"]),
        (tensor(&[0, 5], 0, 0), &["`t`", "[5, 0]"]),
        (tensor(&[32], 20, 0), &["`t`", "type 20 (IQ4_NL)", "Q4_K_M"]),
        (tensor(&[1, 1, 1, 1, 1], 0, 0), &["`t`", "5 dimensions"]),
    ];
    for (bytes, parts) in cases {
        write(&bytes);
        says(&refused(&path), &path, parts);
    }
}

/// Seeded draws, by a linear congruential generator.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// Cut anywhere, or with bytes changed anywhere in its header, a file is refused or loaded, never the loader's end.
#[test]
fn damage_is_survived() {
    let model = small("qwen2-tied");
    let bytes = std::fs::read(model.gguf_file(|_| GgmlDType::Q8_0).write("whole")).expect("written");
    let load = |bytes: &[u8]| LoadedModel::from_gguf_bytes("damaged", bytes);
    assert!(load(&bytes).is_ok());
    let data: usize = bytes.len() - 60_000;
    for len in (0..data.min(600)).chain((600..bytes.len()).step_by(997)) {
        assert!(load(&bytes[..len]).is_err(), "cut to {len} of {} bytes", bytes.len());
    }
    let mut draw = Draws(1);
    let header = 14_000.min(data);
    let mut damaged = bytes.clone();
    let mut refusals = 0;
    for _ in 0..3000 {
        let places: Vec<usize> = (0..1 + draw.below(3)).map(|_| draw.below(header)).collect();
        for place in &places {
            damaged[*place] = [0, 1, 0x7f, 0x80, 0xff, draw.below(256) as u8][draw.below(6)];
        }
        refusals += usize::from(load(&damaged).is_err());
        for place in places {
            damaged[place] = bytes[place];
        }
        assert_modest("a damaged header");
    }
    assert!(refusals > 500, "{refusals} refusals: the damage does not reach what matters");
}

fn spoiled_folder(name: &str, spoil: impl Fn(&Path)) -> PathBuf {
    let path = fresh(name);
    small("qwen3").write_folder(&path, DType::F32, 2);
    spoil(&path);
    path
}

fn edited(path: &Path, file: &str, edit: impl Fn(&mut Json)) {
    let path = path.join(file);
    let mut json: Json = serde_json::from_slice(&std::fs::read(&path).expect("there")).expect("JSON");
    edit(&mut json);
    std::fs::write(path, json.to_string()).expect("written");
}

#[test]
fn folders_are_refused_by_file_and_field() {
    const SHARD: &str = "model-00001-of-00002.safetensors";
    type Spoil = Box<dyn Fn(&Path)>;
    let config = |key: &'static str, value: Json| -> Spoil {
        Box::new(move |path| edited(path, "config.json", |config| config[key] = value.clone()))
    };
    let tokenizer = |edit: fn(&mut Json)| -> Spoil { Box::new(move |path| edited(path, "tokenizer.json", edit)) };
    let lost =
        |file: &'static str| -> Spoil { Box::new(move |path| std::fs::remove_file(path.join(file)).expect("there")) };
    let written = |file: &'static str, bytes: &'static [u8]| -> Spoil {
        Box::new(move |path| std::fs::write(path.join(file), bytes).expect("written"))
    };
    let cases: Vec<(Spoil, &[&str])> = vec![
        (lost("config.json"), &["config.json"]),
        (written("config.json", b"{"), &["config.json", "line 1"]),
        (config("model_type", json!("gpt_neox")), &["config.json", "`model_type` = `gpt_neox`", "qwen3, opt"]),
        (config("hidden_size", Json::Null), &["config.json", "`hidden_size` is missing"]),
        (config("hidden_size", json!("32")), &["config.json", "`hidden_size` = \"32\""]),
        (config("vocab_size", json!(1_u64 << 27)), &["`model.embed_tokens.weight`", "[320, 32]", "[134217728, 32]"]),
        (config("num_hidden_layers", json!(1_u64 << 40)), &["`model.layers.2.", "is missing"]),
        (config("tie_word_embeddings", json!(true)), &[]),
        (config("rope_scaling", json!({"rope_type": "yarn"})), &["config.json", "`rope_scaling`", "yarn"]),
        (config("model_type", json!("qwen2")), &["`model.layers.0.self_attn.q_proj.bias` is missing"]),
        (config("model_type", json!("llama")), &["_norm.weight` is not one that this architecture has"]),
        (lost("tokenizer.json"), &["tokenizer.json"]),
        (written("tokenizer.json", b"[]"), &["tokenizer.json"]),
        (tokenizer(|t| t["model"]["type"] = json!("WordPiece")), &["tokenizer.json", "WordPiece", "BPE"]),
        (tokenizer(|t| t["model"]["dropout"] = json!(0.1)), &["tokenizer.json", "`model.dropout` = 0.1"]),
        (tokenizer(|t| t["model"]["vocab"]["x"] = json!(u32::MAX)), &["tokenizer.json", "4294967295", "320 rows"]),
        (
            tokenizer(|t| t["added_tokens"][0]["content"] = json!("#")),
            &["tokenizer.json", "special token `#`", "too short"],
        ),
        (tokenizer(sentence_piece_spelling), &["tokenizer.json", "token 0 ", "byte-level"]),
        (tokenizer(|t| t["added_tokens"][0]["id"] = json!(310)), &["tokenizer.json", "`<|endoftext|>`", "310"]),
        (
            tokenizer(|t| {
                t["model"]["vocab"]["<s"] = json!(300);
                t["added_tokens"][0]["content"] = json!("he");
            }),
            &["tokenizer.json", "special token `he`", "merged"],
        ),
        (written("chat_template.jinja", b"{{ unclosed"), &["template"]),
        (written("tokenizer_config.json", b"nonsense"), &["tokenizer_config.json"]),
        (lost(SHARD), &["model.safetensors.index.json", SHARD]),
        (written(SHARD, b""), &[SHARD]),
        (written(SHARD, b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"), &[SHARD]),
        (written("model.safetensors.index.json", b"{}"), &["model.safetensors.index.json", "`weight_map`"]),
        (
            written("model.safetensors.index.json", br#"{"weight_map": {"a": "../../secret.safetensors"}}"#),
            &["model.safetensors.index.json", "../../secret.safetensors"],
        ),
    ];
    for (i, (spoil, parts)) in cases.into_iter().enumerate() {
        let path = spoiled_folder(&format!("folder-{i}"), spoil);
        if parts.is_empty() {
            // A head beside the table it is tied to is usual, and stays unused.
            assert!(LoadedModel::open(&path).is_ok());
        } else {
            says(&refused(&path), &path, parts);
        }
    }
}

fn sentence_piece_spelling(tokenizer: &mut Json) {
    let vocab = tokenizer["model"]["vocab"].as_object_mut().expect("tokens");
    vocab.remove("Ā");
    vocab.insert("▁".into(), json!(0));
}

#[test]
fn cut_shards_are_refused() {
    const SHARD: &str = "model-00002-of-00002.safetensors";
    let path = spoiled_folder("cut-shard", |_| {});
    let bytes = std::fs::read(path.join(SHARD)).expect("there");
    for len in [0, 1, 7, 8, 9, 100, 1000, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(path.join(SHARD), &bytes[..len]).expect("written");
        says(&refused(&path), &path, &[SHARD]);
    }
}

#[test]
fn damaged_shards_are_survived() {
    const SHARD: &str = "model-00001-of-00002.safetensors";
    let path = spoiled_folder("damaged-shard", |_| {});
    let bytes = std::fs::read(path.join(SHARD)).expect("there");
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let mut draw = Draws(2);
    for _ in 0..300 {
        let mut damaged = bytes.clone();
        damaged[draw.below(header)] = draw.below(256) as u8;
        std::fs::write(path.join(SHARD), &damaged).expect("written");
        // Either way is right: not every byte matters.
        if let Err(error) = LoadedModel::open(&path) {
            says(&error.to_string(), &path, &[]);
        }
        assert_modest("a damaged header");
    }
}

#[test]
fn weights_must_be_floats_of_up_to_32_bits() {
    let folder = fresh("kinds");
    let model = small("qwen3");
    for kind in [DType::F64, DType::I64, DType::U8] {
        model.write_folder(&folder, kind, 1);
        says(&refused(&folder), &folder, &["`model.embed_tokens.weight`", &format!("{kind:?}"), "BF16"]);
    }
}

#[test]
fn there_must_be_a_model() {
    let empty = fresh("empty");
    says(&refused(&empty), &empty, &["config.json"]);
    let nowhere = empty.join("nowhere.gguf");
    says(&refused(&nowhere), &nowhere, &[]);
    std::fs::write(empty.join("config.json"), small("qwen3").config().to_string()).expect("written");
    says(&refused(&empty), &empty, &["*.safetensors"]);
}
