//! Loads a model with its tokenizer and template: a GGUF file, the bytes of one, or a folder as Hugging Face has them.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};
use memmap2::Mmap;
use serde_json::Value as Json;

use crate::borrowed::Borrowed;
use crate::config::ModelConfig;
use crate::dense::DenseWeights;
use crate::exit::Exits;
use crate::gguf::Gguf;
use crate::model::{Compute, Form, Model};
use crate::norm::Norm;
use crate::streams::Streams;
use crate::template::ChatTemplate;
use crate::tokenizer::{Tokenizer, named_tokens};
use crate::weights::Weights;

/// Names in a model's folder of what training put beside it.
const EXITS: &str = "exit.safetensors";
const STREAMS: &str = "streams.safetensors";

/// A model ready to run.
#[derive(Clone)]
pub struct LoadedModel {
    /// Name from the file's metadata, or the file's or folder's own.
    pub name: String,
    /// Weights.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its chat template, if it has one.
    pub template: Option<ChatTemplate>,
    /// The file or folder that it was read from; `None` if from bytes.
    pub source: Option<PathBuf>,
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("cannot load {what}: {reason}")]
pub struct LoadError {
    what: String,
    reason: String,
}

impl LoadedModel {
    /// Loads from a `.gguf` file or a folder with `config.json`, `tokenizer.json` and `*.safetensors`; a folder may also
    /// hold `exit.safetensors` ([`Exits`]) and `streams.safetensors` ([`Streams`]).
    ///
    /// # Errors
    /// Names the file, what is wrong with it, and what to do.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        Self::open_as(path, Form::default())
    }

    /// [`LoadedModel::open`] for a decoder of one's choice.
    ///
    /// # Errors
    /// As there.
    pub fn open_on(path: &Path, compute: Compute) -> Result<Self, LoadError> {
        Self::open_as(path, Form { compute, ..Form::default() })
    }

    /// [`LoadedModel::open`] in a form of one's choice, of which the model's name tells.
    ///
    /// # Errors
    /// As there, and if the model cannot have this form.
    pub fn open_as(path: &Path, form: Form) -> Result<Self, LoadError> {
        Self::open_named(path, &stem(path), form)
    }

    /// [`LoadedModel::open_as`] of files whose metadata holds no name and whose path none that people know.
    ///
    /// # Errors
    /// As there.
    pub fn open_named(path: &Path, name: &str, form: Form) -> Result<Self, LoadError> {
        let loaded = if path.is_dir() { open_folder(path, name, form) } else { open_gguf(path, name, form) };
        match loaded {
            Ok(model) => Ok(Self { source: Some(path.to_owned()), ..model }),
            Err(reason) => Err(LoadError { what: path.display().to_string(), reason }),
        }
    }

    /// Loads from the bytes of a GGUF file.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_gguf_bytes(name: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        Self::from_gguf_bytes_as(name, bytes, Form::default())
    }

    /// The same in a form of one's choice, as for [`LoadedModel::open_as`].
    ///
    /// # Errors
    /// As there.
    pub fn from_gguf_bytes_as(name: &str, bytes: &[u8], form: Form) -> Result<Self, LoadError> {
        from_gguf(name, bytes, form).map_err(|reason| LoadError { what: name.to_owned(), reason })
    }
}

/// What reads a model's states: its last norm and its head, in f32.
pub struct Head {
    /// The norm.
    pub norm: Norm,
    /// `[V, hidden]`.
    pub weights: Tensor,
}

impl Head {
    /// Opens the head of a `.gguf` file or a folder.
    ///
    /// # Errors
    /// As for [`LoadedModel::open`].
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        read_dense(path, |dense| {
            let DenseWeights { config, weights } = dense;
            let name = if config.tied_head { "model.embed_tokens" } else { "lm_head" };
            Ok(Self {
                norm: weights.norm(config, "model.norm")?,
                weights: weights.table(config.vocab_size, config.hidden, name)?,
            })
        })
    }

    /// The head on a device.
    ///
    /// # Errors
    /// Candle's.
    pub fn to_device(self, device: &Device) -> candle_core::Result<Self> {
        Ok(Self { norm: self.norm.to_device(device)?, weights: self.weights.to_device(device)? })
    }
}

/// Opens the weights of a `.gguf` file or a folder and has them read.
///
/// # Errors
/// As for [`LoadedModel::open`], and the reader's.
pub fn read_dense<T>(path: &Path, read: impl FnOnce(&DenseWeights<'_>) -> Result<T, String>) -> Result<T, LoadError> {
    let opened = || {
        if path.is_dir() {
            let config = ours(ModelConfig::from_folder(&read_json(&path.join("config.json"))?, None)?)?;
            // SAFETY: as for GGUF files.
            let files = unsafe { MmapedSafetensors::multi(&weight_files(path)?) }.map_err(text)?;
            let weights = Weights::safetensors(&files, config.architecture);
            return read(&DenseWeights { config, weights });
        }
        let file = std::fs::File::open(path).map_err(text)?;
        // SAFETY: as for whole models.
        read_gguf(&unsafe { Mmap::map(&file) }.map_err(text)?, read)
    };
    opened().map_err(|reason| LoadError { what: path.display().to_string(), reason })
}

/// [`read_dense`] from the bytes of a GGUF file.
///
/// # Errors
/// As there.
pub fn read_dense_gguf<T>(
    name: &str,
    bytes: &[u8],
    read: impl FnOnce(&DenseWeights<'_>) -> Result<T, String>,
) -> Result<T, LoadError> {
    read_gguf(bytes, read).map_err(|reason| LoadError { what: name.to_owned(), reason })
}

fn read_gguf<T>(bytes: &[u8], read: impl FnOnce(&DenseWeights<'_>) -> Result<T, String>) -> Result<T, String> {
    let file = Gguf::parse(bytes)?;
    let config = ModelConfig::from_gguf(&file)?;
    let weights = Weights::gguf(&file, config.architecture);
    read(&DenseWeights { config, weights })
}

/// A folder as Hugging Face has them, for training: nothing is packed.
pub struct ModelFolder {
    /// Shape.
    pub config: ModelConfig,
    /// config.json.
    pub json: Json,
    /// Weights in f32, by the names of the folder; empty if the folder has none.
    pub tensors: HashMap<String, Tensor>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its chat template, if it has one.
    pub template: Option<ChatTemplate>,
}

impl ModelFolder {
    /// Opens a folder; `config` replaces its config.json, for a new model with the folder's tokenizer.
    ///
    /// # Errors
    /// Names the file, and what is wrong with it.
    pub fn open(folder: &Path, config: Option<Json>) -> Result<Self, LoadError> {
        Self::read(folder, config).map_err(|reason| LoadError { what: folder.display().to_string(), reason })
    }

    fn read(folder: &Path, new: Option<Json>) -> Result<Self, String> {
        let fresh = new.is_some();
        let json = new.map_or_else(|| read_json(&folder.join("config.json")), Ok)?;
        let config =
            ModelConfig::from_folder(&json, None).and_then(ours).map_err(|why| format!("config.json: {why}"))?;
        let mut tensors = HashMap::new();
        for file in if fresh { Vec::new() } else { weight_files(folder)? } {
            for (name, tensor) in candle_core::safetensors::load(&file, &Device::Cpu).map_err(text)? {
                tensors.insert(name, tensor.to_dtype(DType::F32).map_err(text)?);
            }
        }
        let tokenizer = read_tokenizer(folder, config.vocab_size)?;
        Ok(Self { config, json, tensors, tokenizer, template: folder_template(folder)? })
    }
}

/// Refuses models that none of our decoders computes, where their states are needed.
fn ours(config: ModelConfig) -> Result<ModelConfig, String> {
    match config.architecture.is_borrowed() {
        true => Err(format!("`{}` models can be served but not trained with", config.architecture.name())),
        false => Ok(config),
    }
}

fn read_tokenizer(folder: &Path, rows: usize) -> Result<Tokenizer, String> {
    let bytes = std::fs::read(folder.join("tokenizer.json")).map_err(|e| format!("tokenizer.json: {e}"))?;
    Tokenizer::from_json(&bytes, rows).map_err(|why| format!("tokenizer.json: {why}"))
}

fn open_gguf(path: &Path, name: &str, form: Form) -> Result<LoadedModel, String> {
    let file = std::fs::File::open(path).map_err(text)?;
    // SAFETY: the operator's model file is mapped; it must not change while it is read here, before this function's
    // caller has the model.
    let bytes = unsafe { Mmap::map(&file) }.map_err(text)?;
    from_gguf(name, &bytes, form)
}

fn from_gguf(fallback_name: &str, bytes: &[u8], form: Form) -> Result<LoadedModel, String> {
    let file = Gguf::parse(bytes)?;
    let config = ModelConfig::from_gguf(&file)?;
    let weights = Weights::gguf(&file, config.architecture);
    let template = file.text("tokenizer.chat_template")?;
    let template = template.map(|source| parse_template(source, named_tokens(&file)?)).transpose()?;
    Ok(LoadedModel {
        name: format!("{}{}", file.text("general.name")?.unwrap_or(fallback_name), form.label()),
        tokenizer: Tokenizer::from_gguf(&file, config.vocab_size)?,
        model: Model::new(config, weights, form)?,
        template,
        source: None,
    })
}

fn open_folder(folder: &Path, name: &str, form: Form) -> Result<LoadedModel, String> {
    let json = read_json(&folder.join("config.json"))?;
    let generation = optional(read_json, &folder.join("generation_config.json"))?;
    let config = ModelConfig::from_folder(&json, generation.as_ref()).map_err(|why| format!("config.json: {why}"))?;
    let files = weight_files(folder)?;
    // SAFETY: as for GGUF files.
    let files = unsafe { MmapedSafetensors::multi(&files) }.map_err(text)?;
    // First of all the weights: their size bounds the vocabulary that a tokenizer may declare.
    let mut model = if config.architecture.is_borrowed() {
        Model::borrowed(Borrowed::new(config, &json, &files)?, form)?
    } else {
        let weights = Weights::safetensors(&files, config.architecture);
        Model::new(config, weights, form)?
    };
    if let Some(exits) = optional(Exits::open, &folder.join(EXITS))? {
        model.set_exits(&exits)?;
    }
    if let Some(streams) = optional(Streams::open, &folder.join(STREAMS))? {
        model.set_streams(&streams)?;
    }
    let tokenizer = read_tokenizer(folder, model.config().vocab_size)?;
    let name = format!("{name}{}", form.label());
    Ok(LoadedModel { name, model, tokenizer, template: folder_template(folder)?, source: None })
}

/// The shards that `model.safetensors.index.json` names, else every `*.safetensors`.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    const INDEX: &str = "model.safetensors.index.json";
    if let Some(index) = optional(read_json, &folder.join(INDEX))? {
        let map = index["weight_map"].as_object().ok_or_else(|| format!("{INDEX}: `weight_map` is missing"))?;
        let named: BTreeSet<&str> = map.values().map(|file| file.as_str().unwrap_or_default()).collect();
        let shard = |name: &str| {
            // A bare name: an index points to nothing outside its folder.
            let bare = Path::new(name).file_name().is_some_and(|file| file == name);
            let path = folder.join(name);
            match bare && path.is_file() {
                true => Ok(path),
                false => Err(format!("{INDEX} names `{name}`, which is not in the folder; fetch it")),
            }
        };
        return named.into_iter().map(shard).collect();
    }
    let entries = std::fs::read_dir(folder).map_err(text)?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_weights = |path: &PathBuf| {
        // What training puts beside a model is no part of it.
        let beside = path.file_name().is_some_and(|name| name == EXITS || name == STREAMS);
        !beside && path.extension().is_some_and(|e| e == "safetensors")
    };
    let mut files: Vec<PathBuf> = entries.filter(is_weights).collect();
    files.sort();
    if files.is_empty() {
        return Err("the folder holds no *.safetensors file; weights of other formats must be converted first".into());
    }
    Ok(files)
}

fn folder_template(folder: &Path) -> Result<Option<ChatTemplate>, String> {
    let config = optional(read_json, &folder.join("tokenizer_config.json"))?.unwrap_or_default();
    let named = ["bos_token", "eos_token"].into_iter().filter_map(|name| {
        let token = &config[name];
        Some((name, token.as_str().or(token["content"].as_str())?.to_owned()))
    });
    template_source(folder)?.map(|source| parse_template(&source, named)).transpose()
}

/// `chat_template.jinja`, else the entry in tokenizer_config.json: one template, or a list of named ones.
pub(crate) fn template_source(folder: &Path) -> Result<Option<String>, String> {
    let config = optional(read_json, &folder.join("tokenizer_config.json"))?.unwrap_or_default();
    let file = optional(|p| std::fs::read_to_string(p).map_err(text), &folder.join("chat_template.jinja"))?;
    let listed = |templates: &Vec<Json>| {
        Some(templates.iter().find(|t| t["name"] == "default")?["template"].as_str()?.to_owned())
    };
    let configured = match &config["chat_template"] {
        Json::Array(templates) => listed(templates),
        template => template.as_str().map(str::to_owned),
    };
    Ok(file.or(configured))
}

fn parse_template(
    source: &str,
    named: impl IntoIterator<Item = (&'static str, String)>,
) -> Result<ChatTemplate, String> {
    ChatTemplate::new(source, named).map_err(|error| format!("the chat template cannot be read: {}", error.0))
}

fn read_json(path: &Path) -> Result<Json, String> {
    let name = path.file_name().unwrap_or_default().display();
    let bytes = std::fs::read(path).map_err(|e| format!("{name}: {e}"))?;
    serde_json::from_slice(&bytes).map_err(|e| format!("{name}: {e}"))
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
