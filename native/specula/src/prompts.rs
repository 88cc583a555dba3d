//! The validation prompts: one short and one long question of each of 150 pages that the embedded pair never saw.

use anyhow::{Context, Result};
use serde::Deserialize;

static PROMPTS: &str = include_str!("../../weights/prompts.jsonl");

/// Questions about one page.
#[derive(Debug, Deserialize)]
pub(crate) struct Prompt {
    /// The page's name.
    pub(crate) page: String,
    /// A whole-page question.
    pub(crate) short: String,
    /// The page's longest question.
    pub(crate) long: String,
}

/// `count` questions, spread evenly over the pages, short and long in turn.
pub(crate) fn questions(count: usize) -> Result<Vec<(String, String)>> {
    let prompts: Vec<Prompt> = PROMPTS
        .lines()
        .map(|line| serde_json::from_str(line).context("native/weights/prompts.jsonl"))
        .collect::<Result<_>>()?;
    let all = prompts.len();
    let pick = |i: usize| {
        let prompt = &prompts[i * all / count.clamp(1, all) % all];
        let question = if i.is_multiple_of(2) { &prompt.short } else { &prompt.long };
        (prompt.page.clone(), question.clone())
    };
    Ok((0..count).map(pick).collect())
}
