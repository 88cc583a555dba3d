//! Recipes: what is trained on what, as TOML. Every field has one name and, where that is sensible, a default.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use specula_models::Precision;

/// Texts to learn from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Data {
    /// Files: `.jsonl` with a conversation `{"messages": […]}` a line, anything else is plain text.
    pub(crate) files: Vec<PathBuf>,
    /// Conversations that are never trained on, for the measurements.
    pub(crate) validation: PathBuf,
    /// Most texts of one file, picked by the seed; 0 takes all.
    #[serde(default)]
    pub(crate) texts_per_file: usize,
    /// What of a conversation the loss is taken over.
    #[serde(default)]
    pub(crate) learn: Learn,
    /// T, tokens of a packed sequence; longer texts are cut.
    #[serde(default = "default_length")]
    pub(crate) length: usize,
    /// What becomes of lines that are no conversation.
    #[serde(default)]
    pub(crate) bad_lines: BadLines,
}

/// What the loss is taken over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Learn {
    /// The assistant's answers and their ends.
    #[default]
    Assistant,
    /// Every token.
    All,
}

/// What becomes of lines that are no conversation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BadLines {
    /// The run ends with the first.
    #[default]
    Refuse,
    /// They are told and left out.
    Skip,
}

/// How the optimiser goes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Schedule {
    /// Optimiser steps; 0, where there is something already, measures and writes it.
    pub(crate) steps: usize,
    /// B, packed sequences of a pass.
    #[serde(default = "default_batch")]
    pub(crate) batch: usize,
    /// Passes whose gradients make one step; the CPU computes as many at once as it has cores.
    #[serde(default = "one")]
    pub(crate) accumulate: usize,
    /// What matrix products are computed in.
    #[serde(default)]
    pub(crate) precision: Precision,
    /// Who makes steps of gradients.
    #[serde(default)]
    pub(crate) optimiser: Method,
    /// Highest learning rate.
    pub(crate) learning_rate: f64,
    /// Steps of linear warm-up; afterwards the rate falls along a cosine.
    #[serde(default)]
    pub(crate) warmup: usize,
    /// The last rate as a part of the highest.
    #[serde(default = "default_floor")]
    pub(crate) floor: f64,
    /// AdamW's decay, of matrices only.
    #[serde(default)]
    pub(crate) weight_decay: f64,
    /// Most that the gradient's norm may be; larger ones are scaled down.
    #[serde(default = "default_clip")]
    pub(crate) clip: f64,
    /// Seed of the texts' order and of new weights.
    #[serde(default = "default_seed")]
    pub(crate) seed: u64,
    /// Steps between checkpoints and measurements.
    #[serde(default = "default_checkpoint")]
    pub(crate) checkpoint: usize,
}

/// An optimiser.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Method {
    /// AdamW for everything.
    #[serde(rename = "adamw")]
    AdamW,
    /// Muon for the layers' matrices, AdamW for the rest.
    #[default]
    Muon,
}

/// What a draft or an exit learns from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Teacher {
    /// The target: a GGUF file or a folder.
    pub(crate) target: PathBuf,
    /// m, tokens of a row that are remembered one by one; the others' probability is one number.
    #[serde(default = "default_top")]
    pub(crate) top: usize,
    /// Part of the loss in training that is −ln α, α being the probability that learner and target draw one token with the
    /// same noise; the other part is the divergence, which is also what is told as the validation loss.
    #[serde(default)]
    pub(crate) acceptance: f32,
}

impl Teacher {
    pub(crate) fn check(&self) -> Result<()> {
        at_least("teacher.top", self.top, 1)?;
        if !(0.0..=1.0).contains(&self.acceptance) {
            bail!("`teacher.acceptance` = {} must be 0 to 1", self.acceptance);
        }
        Ok(())
    }
}

fn default_length() -> usize {
    256
}

fn default_batch() -> usize {
    8
}

fn one() -> usize {
    1
}

fn default_floor() -> f64 {
    0.1
}

fn default_clip() -> f64 {
    1.0
}

fn default_seed() -> u64 {
    1
}

fn default_checkpoint() -> usize {
    200
}

fn default_top() -> usize {
    32
}

/// Reads a recipe. Its paths are relative to the recipe.
///
/// # Errors
/// Names the file, and the field that is wrong.
pub(crate) fn read<R: DeserializeOwned>(path: &Path) -> Result<R> {
    let text = std::fs::read_to_string(path).with_context(|| format!("recipe {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("recipe {}", path.display()))
}

/// Directory that a recipe's paths start from.
pub(crate) fn home(recipe: &Path) -> &Path {
    recipe.parent().unwrap_or(Path::new("."))
}

impl Data {
    pub(crate) fn check(&self) -> Result<()> {
        if self.files.is_empty() {
            bail!("`data.files` is empty; name at least one file");
        }
        at_least("data.length", self.length, 8)
    }
}

impl Schedule {
    pub(crate) fn check(&self, least_steps: usize) -> Result<()> {
        at_least("training.steps", self.steps, least_steps)?;
        at_least("training.batch", self.batch, 1)?;
        at_least("training.accumulate", self.accumulate, 1)?;
        at_least("training.checkpoint", self.checkpoint, 1)?;
        for (name, value) in [("learning_rate", self.learning_rate), ("clip", self.clip)] {
            if !(value > 0.0 && value.is_finite()) {
                bail!("`training.{name}` = {value} must be a number above 0");
            }
        }
        for (name, value) in [("floor", self.floor), ("weight_decay", self.weight_decay)] {
            if !(0.0..=1.0).contains(&value) {
                bail!("`training.{name}` = {value} must be 0 to 1");
            }
        }
        Ok(())
    }

    /// Learning rate of a step, counted from 0.
    pub(crate) fn rate(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.learning_rate * (step + 1) as f64 / self.warmup as f64;
        }
        let rest = (self.steps - self.warmup.min(self.steps)).max(1);
        let progress = ((step - self.warmup) as f64 / rest as f64).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        self.learning_rate * (self.floor + (1.0 - self.floor) * cosine)
    }
}

pub(crate) fn at_least(name: &str, value: usize, least: usize) -> Result<()> {
    if value < least {
        bail!("`{name}` = {value} must be at least {least}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_and_falls() {
        let schedule: Schedule = toml::from_str("steps = 110\nlearning_rate = 1.0\nwarmup = 10").expect("a schedule");
        assert_eq!(schedule.rate(0), 0.1);
        assert_eq!(schedule.rate(10), 1.0);
        assert!((schedule.rate(60) - 0.55).abs() < 1e-9);
        assert!((schedule.rate(110) - 0.1).abs() < 1e-9);
    }

    #[test]
    fn unknown_fields_are_named() {
        let error = toml::from_str::<Schedule>("steps = 1\nlearning_rate = 1.0\nwarm_up = 3").expect_err("misspelt");
        assert!(error.to_string().contains("warm_up"), "{error}");
    }
}
