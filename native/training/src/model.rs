//! Models whose weights are variables: from a folder, or new.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use candle_core::{DType, Device, Tensor, Var};
use serde::Deserialize;
use serde_json::{Value, json};
use specula_decoding::TokenId;
use specula_models::{Batch, ModelFolder, Network, Precision, folder_name, write_gguf};

use crate::data::Text;
use crate::files;
use crate::optimiser::Variables;
use crate::order::{Sequence, Shuffle};
use crate::recipe::Schedule;

/// Where a model's weights start.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Start {
    /// Folder to start from; with `shape`, its tokenizer alone is taken.
    pub(crate) base: PathBuf,
    /// Name that the result's files hold.
    #[serde(default = "default_name")]
    pub(crate) name: String,
    /// Shape of a new model.
    pub(crate) shape: Option<Shape>,
    /// Start between the base and another model of its shape.
    pub(crate) mixed: Option<Mixed>,
    /// What the logits are divided by from the start (temperature scaling, arXiv:1706.04599): above 1 for a model that is
    /// surer than it is right. The last norm takes it.
    pub(crate) temperature: Option<f64>,
    /// Learn low-rank changes of the layers' matrices and nothing else.
    pub(crate) lora: Option<LowRank>,
}

/// Weights between two models that have one origin: what the later one has learnt, and most of what it has forgotten
/// (arXiv:2109.01903).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mixed {
    /// Folder of the other model.
    pub(crate) with: PathBuf,
    /// The other's part of every weight, 0 to 1.
    pub(crate) share: f64,
}

impl Mixed {
    /// Moves weights towards the other's.
    fn mix(&self, home: &Path, tensors: &mut HashMap<String, Tensor>) -> Result<()> {
        let Self { with, share } = self;
        if !(0.0..=1.0).contains(share) {
            bail!("`model.mixed.share` = {share} must be between 0 and 1");
        }
        let with = home.join(with);
        let others = ModelFolder::open(&with, None)?.tensors;
        for (name, tensor) in tensors {
            let other = others.get(name).with_context(|| format!("{}: no `{name}`", with.display()))?;
            let change = (other - &*tensor).and_then(|change| change * *share);
            *tensor = change.and_then(|change| &*tensor + change).with_context(|| format!("`{name}`, mixed"))?;
        }
        Ok(())
    }
}

/// A new model.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shape {
    /// `llama`, `mistral`, `qwen2`, `qwen3` or `opt`.
    pub(crate) architecture: String,
    /// Width of the residual stream.
    pub(crate) hidden: usize,
    /// N.
    pub(crate) layers: usize,
    /// H.
    pub(crate) heads: usize,
    /// K.
    pub(crate) kv_heads: usize,
    /// D.
    pub(crate) head_dim: usize,
    /// Width of the feed-forward block.
    pub(crate) feed_forward: usize,
    /// Rows of the embedding table.
    pub(crate) vocab_size: usize,
    /// Most positions.
    pub(crate) context: usize,
    /// Base of the rotary angles; of a model that has them.
    pub(crate) rope_theta: Option<f64>,
    /// Token that ends an answer.
    pub(crate) end_token: u32,
}

fn default_name() -> String {
    "model".to_owned()
}

impl Shape {
    /// As config.json; the head is tied to the embeddings.
    fn json(&self) -> Result<Value> {
        let class = match &*self.architecture {
            "llama" => "LlamaForCausalLM",
            "mistral" => "MistralForCausalLM",
            "qwen2" => "Qwen2ForCausalLM",
            "opt" => return self.opt_json(),
            _ => "Qwen3ForCausalLM",
        };
        Ok(json!({
            "architectures": [class],
            "model_type": self.architecture,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.feed_forward,
            "max_position_embeddings": self.context,
            "rope_theta": self.rope_theta.context("`model.shape.rope_theta` is missing")?,
            "rms_norm_eps": 1e-6,
            "hidden_act": "silu",
            "attention_bias": false,
            "tie_word_embeddings": true,
            "use_sliding_window": false,
            "sliding_window": null,
            "torch_dtype": "bfloat16",
            "eos_token_id": self.end_token,
        }))
    }

    fn opt_json(&self) -> Result<Value> {
        if self.rope_theta.is_some() {
            bail!("`model.shape.rope_theta`: OPT's positions are learned; leave it out");
        }
        if self.kv_heads != self.heads || self.heads * self.head_dim != self.hidden {
            bail!("`model.shape`: OPT's `kv_heads` are its `heads`, and `heads` times `head_dim` is `hidden`");
        }
        Ok(json!({
            "architectures": ["OPTForCausalLM"],
            "model_type": self.architecture,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden,
            "word_embed_proj_dim": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "ffn_dim": self.feed_forward,
            "max_position_embeddings": self.context,
            "do_layer_norm_before": true,
            "activation_function": "relu",
            "tie_word_embeddings": true,
            "torch_dtype": "bfloat16",
            "eos_token_id": self.end_token,
        }))
    }
}

/// Low-rank changes of the layers' matrices (arXiv:2106.09685): the base stays as it is, W + scale · B A takes its place.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LowRank {
    /// Rows of A, columns of B.
    pub(crate) rank: usize,
    /// α; the scale is α ÷ rank.
    pub(crate) alpha: f64,
}

/// A model in training.
pub(crate) struct Trainee {
    pub(crate) folder: ModelFolder,
    /// What is learned: the weights themselves, or with LoRA the factors of their changes.
    pub(crate) variables: Variables,
    /// What is not learned: the base's weights, and the scale of LoRA's changes to them.
    frozen: Option<(BTreeMap<String, Tensor>, f64)>,
    base: PathBuf,
    /// For files that hold a name.
    name: String,
    precision: Precision,
}

impl Trainee {
    pub(crate) fn new(start: &Start, home: &Path, s: &Schedule, device: &Device) -> Result<Self> {
        let base = home.join(&start.base);
        let fresh = start.shape.as_ref().map(Shape::json).transpose()?;
        let is_fresh = fresh.is_some();
        let mut folder = ModelFolder::open(&base, fresh)?;
        let mut tensors = std::mem::take(&mut folder.tensors);
        if is_fresh && (start.mixed.is_some() || start.temperature.is_some()) {
            bail!("`model.mixed` and `model.temperature` change a model that there is; leave out `model.shape`");
        }
        if let Some(mixed) = &start.mixed {
            mixed.mix(home, &mut tensors)?;
        }
        if let Some(temperature) = start.temperature {
            if !(temperature > 0.0 && temperature.is_finite()) {
                bail!("`model.temperature` = {temperature} must be a number above 0");
            }
            for name in ["model.norm.weight", "model.norm.bias"] {
                if let Some(tensor) = tensors.get_mut(&*folder_name(folder.config.architecture, name.into())) {
                    *tensor = (&*tensor / temperature)?;
                }
            }
        }
        let made: RefCell<BTreeMap<String, Tensor>> = RefCell::default();
        let noise = RefCell::new(Shuffle::new(s.seed, 0));
        // The network is built once for the names and shapes that it asks for.
        let give = |name: &str, shape: &[usize]| -> Result<Tensor, String> {
            if let Some(tensor) = made.borrow().get(name) {
                return Ok(tensor.clone());
            }
            let tensor = match tensors.get(name) {
                Some(tensor) => tensor.to_device(device),
                None if is_fresh => initial(name, shape, &mut noise.borrow_mut(), device),
                None => return Err(format!("tensor `{name}` is missing in {}", base.display())),
            };
            let tensor = tensor.map_err(|e| format!("tensor `{name}`: {e}"))?;
            made.borrow_mut().insert(name.to_owned(), tensor.clone());
            Ok(tensor)
        };
        Network::new(folder.config.clone(), &give, s.precision).map_err(|why| anyhow!(why))?;
        let made = made.into_inner();
        if let Some(unused) = tensors.keys().find(|name| !made.contains_key(*name) && *name != "lm_head.weight") {
            bail!("{}: tensor `{unused}` is not one that this architecture has", base.display());
        }
        let mut variables = Variables::new();
        let frozen = match &start.lora {
            None => {
                for (name, tensor) in made {
                    variables.insert(name, Var::from_tensor(&tensor)?);
                }
                None
            }
            Some(LowRank { rank: 0, .. }) => bail!("`model.lora.rank` = 0 must be at least 1"),
            Some(LowRank { rank, alpha }) => {
                for (name, tensor) in made.iter().filter(|(name, t)| t.rank() == 2 && name.contains(".layers.")) {
                    let (out, input) = tensor.dims2()?;
                    let values: Vec<f32> =
                        (0..rank * input).map(|_| noise.borrow_mut().normal() / (input as f32).sqrt()).collect();
                    let a = Tensor::from_vec(values, (*rank, input), device)?;
                    variables.insert(format!("{name}.a"), Var::from_tensor(&a)?);
                    variables.insert(format!("{name}.b"), Var::zeros((out, *rank), DType::F32, device)?);
                }
                Some((made, alpha / *rank as f64))
            }
        };
        Ok(Self { folder, variables, frozen, base, name: start.name.clone(), precision: s.precision })
    }

    /// Leaves the weights as they are; what joins the variables later is learned.
    pub(crate) fn freeze(&mut self) {
        let variables = std::mem::take(&mut self.variables).into_iter();
        self.frozen = Some((variables.map(|(name, var)| (name, var.as_tensor().detach())).collect(), 1.0));
    }

    /// The network of the weights as they are now.
    pub(crate) fn network(&self) -> Result<Network> {
        let give = |name: &str, _: &[usize]| self.weight(name).map_err(|error| format!("{error:#}"));
        Network::new(self.folder.config.clone(), &give, self.precision).map_err(|why| anyhow!(why))
    }

    fn weight(&self, name: &str) -> Result<Tensor> {
        let Some((frozen, scale)) = &self.frozen else {
            return Ok(self.variables.get(name).with_context(|| format!("no `{name}`"))?.as_tensor().clone());
        };
        let base = frozen.get(name).with_context(|| format!("no `{name}`"))?;
        let factor = |part: &str| self.variables.get(&format!("{name}.{part}"));
        match (factor("a"), factor("b")) {
            (Some(a), Some(b)) => Ok((base + (b.matmul(a)? * *scale)?)?),
            _ => Ok(base.clone()),
        }
    }

    fn names(&self) -> Vec<&String> {
        match &self.frozen {
            Some((frozen, _)) => frozen.keys().collect(),
            None => self
                .variables
                .keys()
                .filter(|name| name.starts_with("model.") || name.starts_with("lm_head."))
                .collect(),
        }
    }

    /// Writes the model as a folder: weights in bf16, LoRA merged, and what belongs to them.
    pub(crate) fn save(&self, to: &Path) -> Result<()> {
        let names = self.names().into_iter();
        let weights = names.map(|name| Ok((name.clone(), self.weight(name)?.detach().to_dtype(DType::BF16)?)));
        let weights: BTreeMap<String, Tensor> = weights.collect::<Result<_>>()?;
        files::save_tensors(&to.join("model.safetensors"), &weights, &[("format", "pt")])?;
        files::replace(&to.join("config.json"), &serde_json::to_vec_pretty(&self.folder.json)?)?;
        for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"] {
            let from = self.base.join(name);
            if from.exists() {
                std::fs::copy(&from, to.join(name)).with_context(|| from.display().to_string())?;
            }
        }
        let gguf = to.with_extension("gguf");
        // A folder serves where GGUF has no words for a model.
        if let Err(why) = write_gguf(to, &self.name, &gguf) {
            eprintln!("{} is not written: {why}", gguf.display());
        }
        Ok(())
    }
}

/// Norms begin as 1 and biases as 0; matrices as noise that keeps the size of what goes through them.
fn initial(name: &str, shape: &[usize], noise: &mut Shuffle, device: &Device) -> candle_core::Result<Tensor> {
    match shape {
        [_] if name.ends_with(".bias") => Tensor::zeros(shape, DType::F32, device),
        [_] => Tensor::ones(shape, DType::F32, device),
        _ => {
            let deviation = if name.contains("embed_") { 0.02 } else { 0.5 / (shape[1] as f32).sqrt() };
            let values: Vec<f32> = (0..shape.iter().product()).map(|_| noise.normal() * deviation).collect();
            Tensor::from_vec(values, shape, device)
        }
    }
}

/// The batch of some sequences.
pub(crate) fn packed(texts: &[Text], sequences: &[Sequence], length: usize) -> Batch {
    let tokens = |sequence: &Sequence| sequence.iter().map(|text| &*texts[*text].tokens).collect();
    let sequences: Vec<Vec<&[TokenId]>> = sequences.iter().map(tokens).collect();
    Batch::new(&sequences, length, 0)
}

/// Visits the rows of a batch that are to say a learnt token `1 + ahead` tokens after their own: `each` gets the row, the
/// token (its text and its place there), and how many learnt tokens of the text come before it.
pub(crate) fn learnt_rows(
    texts: &[Text],
    sequences: &[Sequence],
    length: usize,
    ahead: usize,
    mut each: impl FnMut(u32, (usize, usize), usize),
) {
    for (i, sequence) in sequences.iter().enumerate() {
        let mut start = i * length;
        for &text in sequence {
            let learnt = &texts[text].learnt;
            for (n, token) in (0..learnt.len()).filter(|token| learnt[*token]).enumerate() {
                if let Some(row) = token.checked_sub(1 + ahead) {
                    each((start + row) as u32, (text, token), n);
                }
            }
            start += learnt.len();
        }
    }
}
