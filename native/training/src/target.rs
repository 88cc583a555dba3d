//! Trains a small target on texts themselves: every row learns the token that follows.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::Tensor;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::data::{Reader, Text};
use crate::loss::Goals;
use crate::model::{Start, Trainee, learnt_rows, packed};
use crate::order::{Sequence, Shuffle, pack};
use crate::recipe::{self, Data, Schedule};
use crate::run::{Learner, Outcome, Place, train};

/// `specula train target`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    model: Start,
    data: Data,
    training: Schedule,
}

struct TargetLearner {
    trainee: Trainee,
    training: Vec<Text>,
    validation: Vec<Text>,
    length: usize,
    folder: PathBuf,
}

/// Trains a target as a recipe says.
///
/// # Errors
/// The recipe's and the data's, with what to mend; candle's.
pub fn train_target(recipe: &Path, place: &Place) -> Result<Outcome> {
    let home = recipe::home(recipe);
    let recipe: Recipe = recipe::read(recipe)?;
    recipe.data.check()?;
    recipe.training.check(usize::from(recipe.model.shape.is_some()))?;
    let trainee = Trainee::new(&recipe.model, home, &recipe.training, &place.device)?;
    let reader = Reader {
        tokenizer: &trainee.folder.tokenizer,
        template: trainee.folder.template.as_ref(),
        end: trainee.folder.config.end_tokens[0],
        learn: recipe.data.learn,
    };
    let read = reader.all(&recipe.data, home, recipe.training.seed)?;
    read.tell(recipe.data.length);
    let unseen = home.join(&recipe.data.validation);
    let mut validation = reader.file(&unseen, recipe.data.length, recipe.data.bad_lines)?.texts;
    Shuffle::new(1, 0).apply(&mut validation);
    validation.truncate(200);
    let learner = TargetLearner {
        trainee,
        training: read.texts,
        validation,
        length: recipe.data.length,
        folder: place.folder.clone(),
    };
    train(&learner, &learner.trainee.variables, (&learner.training, learner.length), &recipe.training, place)
}

impl TargetLearner {
    /// The loss, and over how many rows.
    fn loss_over(&self, texts: &[Text], sequences: &[Sequence]) -> Result<(Tensor, usize)> {
        let network = self.trainee.network()?;
        let states = network.states(&packed(texts, sequences, self.length), None)?;
        let states = states.first().context("a network without states")?;
        let (mut goals, mut rows) = (Goals::new(1, 0.0), Vec::new());
        learnt_rows(texts, sequences, self.length, 0, |row, (text, token), _| {
            rows.push(row);
            goals.push(&[texts[text].tokens[token]], &[1.0], 1.0);
        });
        let count = rows.len();
        let logits = network.logits(&states.index_select(&Tensor::new(rows, states.device())?, 0)?)?;
        Ok((goals.loss(&logits)?, count))
    }
}

impl Learner for TargetLearner {
    fn loss(&self, batch: &[Sequence]) -> Result<Tensor> {
        Ok(self.loss_over(&self.training, batch)?.0)
    }

    fn measure(&self) -> Result<Map<String, Value>> {
        let (mut sum, mut rows) = (0.0, 0);
        for part in pack(&self.validation, self.length, 1, 0).chunks(8) {
            let (loss, count) = self.loss_over(&self.validation, part)?;
            sum += f64::from(loss.to_scalar::<f32>()?) * count as f64;
            rows += count;
        }
        Ok(Map::from_iter([("validation_loss".to_owned(), (sum / rows.max(1) as f64).into())]))
    }

    fn save(&self) -> Result<()> {
        self.trainee.save(&self.folder.join("model"))
    }
}
