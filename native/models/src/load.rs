//! Loads a model with its tokenizer and template: a GGUF file, the bytes of one, or a folder as Hugging Face has them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::quantized::gguf_file::Content;
use candle_core::{DType, Device};
use candle_transformers::quantized_var_builder::VarBuilder as GgufWeights;
use serde_json::Value as Json;

use crate::config::ModelConfig;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;
use crate::transformer::Transformer;
use crate::weights::Weights;

/// A model ready to run.
#[derive(Clone)]
pub struct LoadedModel {
    /// Name from the file's metadata, or the file's or folder's own.
    pub name: String,
    /// Weights.
    pub transformer: Arc<Transformer>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its chat template, if it has one.
    pub template: Option<ChatTemplate>,
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("cannot load {what}: {reason}")]
pub struct LoadError {
    what: String,
    reason: String,
}

impl LoadedModel {
    /// Loads from a `.gguf` file or a folder with `config.json`, `tokenizer.json` and `*.safetensors`.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let loaded = if path.is_dir() { open_folder(path) } else { open_gguf(path) };
        loaded.map_err(|reason| LoadError { what: path.display().to_string(), reason })
    }

    /// Loads from the bytes of a GGUF file.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_gguf_bytes(name: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        let load = || -> Result<Self, String> {
            let content = Content::read(&mut std::io::Cursor::new(bytes)).map_err(text)?;
            let weights = GgufWeights::from_gguf_buffer(bytes, &Device::Cpu).map_err(text)?;
            from_gguf(name, &content, weights)
        };
        load().map_err(|reason| LoadError { what: name.to_owned(), reason })
    }
}

fn open_gguf(path: &Path) -> Result<LoadedModel, String> {
    let mut file = std::fs::File::open(path).map_err(text)?;
    let content = Content::read(&mut file).map_err(text)?;
    let weights = GgufWeights::from_gguf(path, &Device::Cpu).map_err(text)?;
    from_gguf(&stem(path), &content, weights)
}

fn from_gguf(fallback_name: &str, content: &Content, weights: GgufWeights) -> Result<LoadedModel, String> {
    let string = |key: &str| content.metadata.get(key).and_then(|v| v.to_string().ok()).cloned();
    let config = ModelConfig::from_gguf(content)?;
    let template = string("tokenizer.chat_template").map(|t| ChatTemplate::new(&t)).transpose().map_err(text)?;
    assemble(
        string("general.name").unwrap_or_else(|| fallback_name.to_owned()),
        (config, Weights::Gguf(weights)),
        Tokenizer::from_gguf(content)?,
        template,
    )
}

fn open_folder(folder: &Path) -> Result<LoadedModel, String> {
    let config = read_json(&folder.join("config.json"))?;
    let generation = optional(read_json, &folder.join("generation_config.json"))?;
    let config = ModelConfig::from_hf(&config, generation.as_ref())?;
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(text)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    files.sort();
    if files.is_empty() {
        return Err("the folder holds no *.safetensors file".into());
    }
    // SAFETY: the operator's model files are mapped; they must not change while they are read here, before this
    // function's caller has the model.
    let weights = unsafe { candle_nn::VarBuilder::from_mmaped_safetensors(&files, DType::F32, &Device::Cpu) };
    let tokenizer = std::fs::read(folder.join("tokenizer.json")).map_err(|e| format!("tokenizer.json: {e}"))?;
    assemble(
        stem(folder),
        (config, Weights::Safetensors(weights.map_err(text)?)),
        Tokenizer::from_json(&tokenizer)?,
        folder_template(folder)?,
    )
}

/// `chat_template.jinja`, else the entry in tokenizer_config.json.
fn folder_template(folder: &Path) -> Result<Option<ChatTemplate>, String> {
    let file = optional(|p| std::fs::read_to_string(p).map_err(text), &folder.join("chat_template.jinja"))?;
    let source = match file {
        Some(source) => Some(source),
        None => optional(read_json, &folder.join("tokenizer_config.json"))?
            .and_then(|config| config["chat_template"].as_str().map(str::to_owned)),
    };
    source.map(|s| ChatTemplate::new(&s)).transpose().map_err(text)
}

fn assemble(
    name: String,
    (config, weights): (ModelConfig, Weights),
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
) -> Result<LoadedModel, String> {
    // A padded vocabulary (rows without a token) is usual; a token without a row is not.
    if tokenizer.vocab_size() > config.vocab_size {
        return Err(format!("the tokenizer has {} tokens, the model {}", tokenizer.vocab_size(), config.vocab_size));
    }
    let transformer = Arc::new(Transformer::new(config, &weights).map_err(text)?);
    Ok(LoadedModel { name, transformer, tokenizer, template })
}

fn read_json(path: &Path) -> Result<Json, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|e| format!("{}: {e}", path.display()))
}

fn optional<T>(read: impl Fn(&Path) -> Result<T, String>, path: &Path) -> Result<Option<T>, String> {
    if path.exists() { read(path).map(Some) } else { Ok(None) }
}

fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| "model".into(), |s| s.to_string_lossy().into_owned())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
