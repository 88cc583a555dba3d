//! Distils a draft from its target: the divergence of its rows from the target's, streams trained along.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use candle_core::{DType, Device, Tensor, Var};
use serde::Deserialize;
use serde_json::{Map, Value};
use specula_decoding::Sampling;
use specula_models::{LoadedModel, Streams, check_pair_of};

use crate::data::{Reader, Text};
use crate::files;
use crate::loss::Goals;
use crate::model::{Start, Trainee, learnt_rows, packed};
use crate::order::{Sequence, Shuffle, pack};
use crate::recipe::{self, Data, Schedule};
use crate::run::{Learner, Outcome, Place, train};
use crate::teacher::Teacher;
use crate::trial::{Trial, Written, lengths, write};

/// `specula train draft`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    teacher: recipe::Teacher,
    model: Start,
    data: Data,
    training: Schedule,
    streams: Option<StreamRecipe>,
    #[serde(default)]
    trial: Trial,
}

/// Speculative streaming.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamRecipe {
    /// η.
    count: usize,
    /// Nₛ, last layers that carry the streams.
    layers: usize,
    /// Weight of stream j in the loss: this to the power of j.
    weight: f32,
    /// Learn the streams and leave the draft as it is.
    #[serde(default)]
    alone: bool,
}

const EMBEDDINGS: &str = "streams.embeddings";
const STREAMS: &str = "streams.safetensors";

/// Texts with what the target says of them.
struct Lessons {
    texts: Vec<Text>,
    teacher: Teacher,
}

struct DraftLearner {
    trainee: Trainee,
    streams: Option<(Streams, f32)>,
    training: Lessons,
    validation: Lessons,
    /// At temperatures 0 and 1.
    written: [Vec<Written>; 2],
    length: usize,
    acceptance: f32,
    folder: PathBuf,
}

/// Trains a draft as a recipe says.
///
/// # Errors
/// The recipe's and the data's, with what to mend; candle's.
pub fn train_draft(recipe: &Path, place: &Place) -> Result<Outcome> {
    let home = recipe::home(recipe);
    let recipe: Recipe = recipe::read(recipe)?;
    recipe.data.check()?;
    recipe.teacher.check()?;
    recipe.training.check(1)?;
    let target = LoadedModel::open(&home.join(&recipe.teacher.target))?;
    let seed = recipe.training.seed;
    let mut trainee = Trainee::new(&recipe.model, home, &recipe.training, &place.device)?;
    check_pair_of(&target, ("the draft in training", &trainee.folder.tokenizer)).map_err(anyhow::Error::msg)?;
    let streams =
        recipe.streams.as_ref().map(|s| new_streams(s, &mut trainee, (&recipe.model, home), (seed, &place.device)));
    let streams = streams.transpose()?;
    let reader = Reader {
        tokenizer: &target.tokenizer,
        template: target.template.as_ref(),
        end: target.model.config().end_tokens[0],
        learn: recipe.data.learn,
    };
    let read = reader.all(&recipe.data, home, seed)?;
    read.tell(recipe.data.length);
    let lessons = |texts: Vec<Text>, name: &str| -> Result<Lessons> {
        let cache = place.folder.join(name);
        let teacher = Teacher::ask(&target.model, &texts, recipe.teacher.top, &cache, &place.stop)?;
        Ok(Lessons { texts, teacher })
    };
    let validation = home.join(&recipe.data.validation);
    let mut unseen = reader.file(&validation, recipe.data.length, recipe.data.bad_lines)?.texts;
    Shuffle::new(1, 0).apply(&mut unseen);
    unseen.truncate(200);
    let mut prompts = reader.prompts(&validation)?;
    Shuffle::new(2, 0).apply(&mut prompts);
    prompts.truncate(recipe.trial.prompts);
    let written = |temperature| {
        let sampling = Sampling { temperature, ..Sampling::default() };
        write(&target.model, &prompts, &sampling, recipe.trial.tokens, &place.stop)
    };
    let learner = DraftLearner {
        written: [written(0.0)?, written(1.0)?],
        training: lessons(read.texts, "target-rows.safetensors")?,
        validation: lessons(unseen, "target-rows-validation.safetensors")?,
        trainee,
        streams,
        length: recipe.data.length,
        acceptance: recipe.teacher.acceptance,
        folder: place.folder.clone(),
    };
    let texts = (&*learner.training.texts, learner.length);
    train(&learner, &learner.trainee.variables, texts, &recipe.training, place)
}

/// Streams join the variables: those of the base's `streams.safetensors`, and new ones.
fn new_streams(
    s: &StreamRecipe,
    trainee: &mut Trainee,
    (start, home): (&Start, &Path),
    (seed, device): (u64, &Device),
) -> Result<(Streams, f32)> {
    let c = &trainee.folder.config;
    if s.count == 0 || s.layers == 0 || s.layers > c.layers {
        bail!(
            "`streams.count` = {} and `streams.layers` = {} must be at least 1, layers at most {}",
            s.count,
            s.layers,
            c.layers
        );
    }
    let hidden = c.hidden;
    if s.alone {
        if start.lora.is_some() {
            bail!("`streams.alone` leaves the draft as it is, and `model.lora` changes it; leave one of them out");
        }
        trainee.freeze();
    }
    let mut noise = Shuffle::new(seed, u64::MAX);
    let mut values: Vec<f32> = (0..s.count * hidden).map(|_| noise.normal() * 0.02).collect();
    let kept = home.join(&start.base).join(STREAMS);
    if kept.exists() {
        let kept = Streams::open(&kept).map_err(anyhow::Error::msg)?.embeddings.flatten_all()?.to_vec1::<f32>()?;
        values.iter_mut().zip(kept).for_each(|(value, kept)| *value = kept);
    }
    let embeddings = Var::from_tensor(&Tensor::from_vec(values, (s.count, hidden), device)?)?;
    let streams = Streams { embeddings: embeddings.as_tensor().clone(), layers: s.layers };
    trainee.variables.insert(EMBEDDINGS.into(), embeddings);
    Ok((streams, s.weight))
}

impl DraftLearner {
    fn loss_over(&self, lessons: &Lessons, sequences: &[Sequence], acceptance: f32) -> Result<Tensor> {
        let network = self.trainee.network()?;
        let streams = self.streams.as_ref().map(|(streams, _)| streams);
        let states = network.states(&packed(&lessons.texts, sequences, self.length), streams)?;
        let mut goals = Goals::new(lessons.teacher.top(), acceptance);
        let mut chosen = Vec::new();
        for (ahead, states) in states.iter().enumerate() {
            let weight = self.streams.as_ref().map_or(1.0, |(_, weight)| weight.powi(ahead as i32));
            let mut rows = Vec::new();
            learnt_rows(&lessons.texts, sequences, self.length, ahead, |row, (text, _), n| {
                rows.push(row);
                lessons.teacher.push(&mut goals, text, n, weight);
            });
            chosen.push(states.index_select(&Tensor::new(rows, states.device())?, 0)?);
        }
        Ok(goals.loss(&network.logits(&Tensor::cat(&chosen, 0)?)?)?)
    }
}

impl Learner for DraftLearner {
    fn loss(&self, batch: &[Sequence]) -> Result<Tensor> {
        self.loss_over(&self.training, batch, self.acceptance)
    }

    fn measure(&self) -> Result<Map<String, Value>> {
        let sequences = pack(&self.validation.texts, self.length, 1, 0);
        let mut losses = Vec::new();
        for part in sequences.chunks(8) {
            losses.push(f64::from(self.loss_over(&self.validation, part, 0.0)?.to_scalar::<f32>()?));
        }
        let mut told = Map::new();
        told.insert("validation_loss".into(), (losses.iter().sum::<f64>() / losses.len() as f64).into());
        let network = self.trainee.network()?;
        let mut tell = |name: &str, streams: Option<&Streams>| -> Result<()> {
            for (temperature, texts) in [0, 1].into_iter().zip(&self.written) {
                for (window, length) in lengths(&network, streams, texts)? {
                    let rounded = (length * 1000.0).round() / 1000.0;
                    told.insert(format!("{name}_window_{window}_temperature_{temperature}"), rounded.into());
                }
            }
            Ok(())
        };
        tell("acceptance_length", None)?;
        if let Some((streams, _)) = &self.streams {
            tell("streaming_acceptance_length", Some(streams))?;
        }
        Ok(told)
    }

    fn save(&self) -> Result<()> {
        let folder = self.folder.join("model");
        self.trainee.save(&folder)?;
        if let Some((streams, _)) = &self.streams {
            let embeddings = streams.embeddings.detach().to_dtype(DType::BF16)?;
            let tensors = BTreeMap::from([("embeddings".to_owned(), embeddings)]);
            files::save_tensors(&folder.join(STREAMS), &tensors, &[("layers", &streams.layers.to_string())])?;
        }
        Ok(())
    }
}
