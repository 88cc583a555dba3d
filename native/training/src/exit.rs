//! Fits early exits: for every layer an affine map before the frozen norm and head, by the divergence of what they read
//! from the target's own rows. The target itself is never changed and may be of any format that it is served in.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor, Var};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value};
use specula_decoding::{Row, Sampling};
use specula_models::{Head, LoadedModel};

use crate::coverage::{Coverage, Exit, table};
use crate::data::{Reader, Text};
use crate::files;
use crate::loss::Goals;
use crate::optimiser::Variables;
use crate::order::{Sequence, Shuffle, pack};
use crate::recipe::{self, Data, Schedule};
use crate::run::{Learner, Outcome, Place, train};
use crate::trial::{Trial, write};

/// `specula train exit`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    teacher: recipe::Teacher,
    /// The draft whose rejections the coverage is measured on: a GGUF file or a folder.
    draft: Option<PathBuf>,
    /// Exits to go on from, as an earlier run wrote them; what they lack begins as the bare head, and those that `layers`
    /// leaves out stay in the result as they are.
    base: Option<PathBuf>,
    /// Exits, as numbers of layers run; empty: all but the last.
    #[serde(default)]
    layers: Vec<usize>,
    data: Data,
    training: Schedule,
    #[serde(default)]
    trial: Trial,
}

struct ExitLearner {
    target: LoadedModel,
    head: Head,
    layers: Vec<usize>,
    top: usize,
    acceptance: f32,
    variables: Variables,
    /// The base's other exits.
    others: HashMap<String, Tensor>,
    training: Vec<Text>,
    validation: Vec<Text>,
    length: usize,
    folder: PathBuf,
}

/// States and rows of some texts, at their learnt tokens.
struct Lesson {
    /// Of each layer, `[R, hidden]`.
    states: Vec<Tensor>,
    goals: Goals,
}

/// Trains early exits as a recipe says, and measures what they cover.
///
/// # Errors
/// The recipe's and the data's, with what to mend; candle's.
pub fn train_exit(recipe: &Path, place: &Place) -> Result<Outcome> {
    let home = recipe::home(recipe);
    let recipe: Recipe = recipe::read(recipe)?;
    recipe.data.check()?;
    recipe.teacher.check()?;
    // Exits that are there may be measured alone, with another draft, say.
    recipe.training.check(usize::from(recipe.base.is_none()))?;
    let path = home.join(&recipe.teacher.target);
    let target = LoadedModel::open(&path)?;
    let draft = recipe.draft.as_ref().map(|draft| LoadedModel::open(&home.join(draft))).transpose()?;
    if let Some(draft) = &draft {
        specula_models::check_pair(&target, draft).map_err(anyhow::Error::msg)?;
    }
    let layers = exits(&recipe.layers, target.model.config().layers)?;
    let hidden = target.model.config().hidden;
    let base = recipe.base.as_ref().map(|base| home.join(base));
    let (variables, others) = beginning(base.as_deref(), &layers, hidden, &place.device)?;
    let reader = Reader {
        tokenizer: &target.tokenizer,
        template: target.template.as_ref(),
        end: target.model.config().end_tokens[0],
        learn: recipe.data.learn,
    };
    let read = reader.all(&recipe.data, home, recipe.training.seed)?;
    read.tell(recipe.data.length);
    let unseen = home.join(&recipe.data.validation);
    let mut validation = reader.file(&unseen, recipe.data.length, recipe.data.bad_lines)?.texts;
    Shuffle::new(1, 0).apply(&mut validation);
    validation.truncate(100);
    let mut prompts = reader.prompts(&unseen)?;
    Shuffle::new(2, 0).apply(&mut prompts);
    prompts.truncate(recipe.trial.prompts);
    let learner = ExitLearner {
        head: Head::open(&path)?.to_device(&place.device)?,
        top: recipe.teacher.top.min(target.model.config().vocab_size),
        acceptance: recipe.teacher.acceptance,
        layers,
        variables,
        others,
        training: read.texts,
        validation,
        length: recipe.data.length,
        folder: place.folder.clone(),
        target,
    };
    let outcome = train(&learner, &learner.variables, (&learner.training, learner.length), &recipe.training, place)?;
    if outcome == Outcome::Finished {
        let mut measured = Vec::new();
        for sampling in [
            Sampling { temperature: 0.0, ..Sampling::default() },
            Sampling { temperature: 0.7, top_p: 0.9, ..Sampling::default() },
            Sampling::default(),
        ] {
            let written = write(&learner.target.model, &prompts, &sampling, recipe.trial.tokens, &place.stop)?;
            let exits = learner.exits()?;
            measured.push(Coverage::of((&learner.target, &learner.head), draft.as_ref(), &exits, &written, &sampling)?);
        }
        files::replace(&place.folder.join("coverage.json"), &serde_json::to_vec_pretty(&measured)?)?;
        let table = table(&measured);
        files::replace(&place.folder.join("coverage.md"), table.as_bytes())?;
        println!("{table}");
    }
    Ok(outcome)
}

fn exits(asked: &[usize], layers: usize) -> Result<Vec<usize>> {
    if let Some(bad) = asked.iter().find(|layer| !(1..layers).contains(*layer)) {
        bail!("`layers` names {bad}; an exit of a target of {layers} layers stands after 1 to {}", layers - 1);
    }
    Ok(if asked.is_empty() { (1..layers).collect() } else { asked.to_vec() })
}

/// The exits before the first step, and what else is in the base.
fn beginning(
    base: Option<&Path>,
    layers: &[usize],
    hidden: usize,
    device: &Device,
) -> Result<(Variables, HashMap<String, Tensor>)> {
    let mut kept = match base {
        Some(base) => files::load_tensors(base)?.with_context(|| format!("`base`: no file {}", base.display()))?.0,
        None => HashMap::new(),
    };
    let mut variables = Variables::new();
    for layer in layers {
        for (name, shape) in [(weight_name(*layer), vec![hidden, hidden]), (bias_name(*layer), vec![hidden])] {
            let first = match kept.remove(&name) {
                Some(tensor) if tensor.dims() == shape => tensor.to_dtype(DType::F32)?.to_device(device)?,
                Some(tensor) => bail!("`base`: `{name}` is {:?}, this target needs {shape:?}", tensor.dims()),
                None => Tensor::zeros(shape, DType::F32, device)?,
            };
            variables.insert(name, Var::from_tensor(&first)?);
        }
    }
    Ok((variables, kept))
}

fn weight_name(layer: usize) -> String {
    format!("exit.{layer}.weight")
}

fn bias_name(layer: usize) -> String {
    format!("exit.{layer}.bias")
}

impl ExitLearner {
    fn lesson(&self, texts: &[Text], sequences: &[Sequence], acceptance: f32) -> Result<Lesson> {
        let texts: Vec<&Text> = sequences.iter().flatten().map(|text| &texts[*text]).collect();
        let (hidden, vocab) = (self.target.model.config().hidden, self.target.model.config().vocab_size);
        type Part = (Vec<Vec<f32>>, Vec<(Vec<u32>, Vec<f32>)>);
        let one = |text: &&Text| -> Result<Part> {
            let trace = self.target.model.trace(&text.tokens)?;
            let rows: Vec<usize> = (1..text.tokens.len()).filter(|i| text.learnt[*i]).map(|i| i - 1).collect();
            let states = self.layers.iter().map(|layer| {
                let states = &trace.states[layer - 1];
                rows.iter().flat_map(|row| &states[row * hidden..(row + 1) * hidden]).copied().collect()
            });
            let goals = rows.iter().map(|row| {
                let row = Row::new(&trace.logits[row * vocab..(row + 1) * vocab]);
                let sum = row.log_sum_exp();
                row.top(self.top).into_iter().map(|(token, logit)| (token, (logit - sum).exp())).unzip()
            });
            Ok((states.collect(), goals.collect()))
        };
        let parts: Vec<Part> = texts.par_iter().map(one).collect::<Result<_>>()?;
        let mut goals = Goals::new(self.top, acceptance);
        for (tokens, probabilities) in parts.iter().flat_map(|part| &part.1) {
            goals.push(tokens, probabilities, 1.0);
        }
        let states = (0..self.layers.len()).map(|i| {
            let all: Vec<f32> = parts.iter().flat_map(|part| &part.0[i]).copied().collect();
            Ok(Tensor::from_vec(all, (goals.rows(), hidden), self.head.weights.device())?)
        });
        Ok(Lesson { states: states.collect::<Result<_>>()?, goals })
    }

    /// What the head reads after each exit: `[R, hidden]`, normed.
    fn normed(&self, layer: usize, states: &Tensor) -> Result<Tensor> {
        let (weights, bias) = (&self.variables[&weight_name(layer)], &self.variables[&bias_name(layer)]);
        let adapted = (states + states.matmul(&weights.as_tensor().t()?)?)?.broadcast_add(bias)?;
        Ok(self.head.norm.forward(&adapted)?)
    }

    /// The exits as they are now.
    fn exits(&self) -> Result<Vec<Exit>> {
        let tensor = |name: String| -> Result<Tensor> {
            let var = self.variables.get(&name).with_context(|| format!("no `{name}`"))?;
            Ok(var.as_tensor().clone())
        };
        let exit = |layer: &usize| {
            Ok(Exit { layer: *layer, weights: tensor(weight_name(*layer))?, bias: tensor(bias_name(*layer))? })
        };
        self.layers.iter().map(exit).collect()
    }
}

impl Learner for ExitLearner {
    fn loss(&self, batch: &[Sequence]) -> Result<Tensor> {
        let lesson = self.lesson(&self.training, batch, self.acceptance)?;
        let mut total: Option<Tensor> = None;
        for (layer, states) in self.layers.iter().zip(&lesson.states) {
            let normed = self.normed(*layer, states)?;
            // The head is frozen, but a product's gradient would be computed for both sides: so only the slope goes through
            // it, and the loss is a linear stand-in with the same value and the same gradient.
            let logits = normed.detach().matmul(&self.head.weights.t()?)?;
            let (loss, slope) = lesson.goals.clone().slope(&logits)?;
            let slope = slope.matmul(&self.head.weights)?;
            let stand_in = (&normed * slope)?.sum_all()?;
            let loss = ((&stand_in - stand_in.detach())? + loss)?;
            total = Some(match total {
                Some(total) => (total + loss)?,
                None => loss,
            });
        }
        total.context("no layer to exit from")
    }

    fn measure(&self) -> Result<Map<String, Value>> {
        let sequences = pack(&self.validation, self.length, 1, 0);
        let mut sums = vec![0.0; self.layers.len()];
        let mut rows = 0;
        for part in sequences.chunks(8) {
            let lesson = self.lesson(&self.validation, part, 0.0)?;
            for (sum, (layer, states)) in sums.iter_mut().zip(self.layers.iter().zip(&lesson.states)) {
                let logits = self.normed(*layer, states)?.detach().matmul(&self.head.weights.t()?)?;
                let loss = lesson.goals.clone().loss(&logits)?.to_scalar::<f32>()?;
                *sum += f64::from(loss) * lesson.goals.rows() as f64;
            }
            rows += lesson.goals.rows();
        }
        let mut told = Map::new();
        let mean = |sum: &f64| sum / rows as f64;
        told.insert("validation_loss".into(), sums.iter().map(mean).sum::<f64>().into());
        for (layer, sum) in self.layers.iter().zip(&sums) {
            told.insert(format!("validation_loss_after_layer_{layer}"), mean(sum).into());
        }
        Ok(told)
    }

    fn save(&self) -> Result<()> {
        let learned = self.variables.iter().map(|(name, var)| (name, var.as_tensor()));
        let half = learned.chain(&self.others).map(|(name, t)| Ok((name.clone(), t.detach().to_dtype(DType::BF16)?)));
        let tensors: BTreeMap<String, Tensor> = half.collect::<Result<_>>()?;
        files::save_tensors(&self.folder.join("exit.safetensors"), &tensors, &[("target", &self.target.name)])
    }
}
