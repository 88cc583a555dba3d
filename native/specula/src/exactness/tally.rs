//! Counts what was compared.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use specula_engine::Engine;

use super::told::Told;
use crate::contender::Contender;

/// Counts by every dimension of the matrix.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Tally {
    total: Counts,
    methods: BTreeMap<String, Counts>,
    profiles: BTreeMap<&'static str, Counts>,
    temperatures: BTreeMap<String, Counts>,
    /// By how the texts ended, over all comparisons.
    ends: BTreeMap<String, u64>,
    /// By how many ran at the same time.
    company: BTreeMap<usize, u64>,
    cancelled_neighbours: u64,
    /// Shortest and longest, in tokens.
    prompts: Option<(usize, usize)>,
    /// Cases, each generated once by the target alone.
    cases: u64,
}

#[derive(Debug, Default, Clone, Copy, Serialize)]
struct Counts {
    answers: u64,
    tokens: u64,
    differences: u64,
}

impl Tally {
    /// Counts an answer of the target alone.
    pub(crate) fn reference(&mut self, plain: &Told) {
        let length = plain.prompt_tokens;
        let (least, most) = self.prompts.unwrap_or((length, length));
        self.prompts = Some((least.min(length), most.max(length)));
        self.cases += 1;
    }

    /// Counts requests that ran at the same time.
    pub(crate) fn company(&mut self, size: usize, with_cancelled: bool) {
        *self.company.entry(size).or_default() += 1;
        self.cancelled_neighbours += u64::from(with_cancelled);
    }

    /// Counts a comparison.
    pub(crate) fn compared(
        &mut self,
        contender: &Contender,
        profile: &'static str,
        temperature: f64,
        told: &Told,
        same: bool,
    ) {
        for counts in [
            &mut self.total,
            self.methods.entry(contender.name.clone()).or_default(),
            self.profiles.entry(profile).or_default(),
            self.temperatures.entry(temperature.to_string()).or_default(),
        ] {
            counts.answers += 1;
            counts.tokens += told.tokens.len() as u64;
            counts.differences += u64::from(!same);
        }
        let end = match &told.reason {
            Some(reason) => format!("{reason:?}").chars().take_while(char::is_ascii_alphabetic).collect(),
            None => "Cancelled".to_owned(),
        };
        *self.ends.entry(end).or_default() += 1;
    }

    pub(crate) fn tokens(&self) -> u64 {
        self.total.tokens
    }

    pub(crate) fn differences(&self) -> u64 {
        self.total.differences
    }

    pub(crate) fn markdown(&self, engine: &Engine) -> String {
        let mut text = String::new();
        let facts = engine.facts();
        let (least, most) = self.prompts.unwrap_or_default();
        let draft = facts.draft.as_deref().unwrap_or("no draft");
        let _ = writeln!(
            text,
            "{} with {draft}: {} generated tokens of {} answers compared with the target alone, {} answers differ.\n",
            facts.name, self.total.tokens, self.total.answers, self.total.differences
        );
        let _ = writeln!(
            text,
            "{} cases, prompts of {least} to {most} tokens, {} neighbours cancelled.\n",
            self.cases, self.cancelled_neighbours
        );
        rows(&mut text, "method", self.methods.iter());
        rows(&mut text, "profile", self.profiles.iter());
        rows(&mut text, "temperature", self.temperatures.iter());
        counted(&mut text, "text ended by", "answers", self.ends.iter());
        counted(&mut text, "at the same time", "groups", self.company.iter());
        text
    }
}

fn rows<'a>(text: &mut String, of: &str, counts: impl Iterator<Item = (impl std::fmt::Display, &'a Counts)>) {
    let _ = writeln!(text, "| {of} | answers | tokens | differing |\n|---|---|---|---|");
    for (name, counts) in counts {
        let _ = writeln!(text, "| {name} | {} | {} | {} |", counts.answers, counts.tokens, counts.differences);
    }
    text.push('\n');
}

fn counted<'a>(
    text: &mut String,
    of: &str,
    what: &str,
    counts: impl Iterator<Item = (impl std::fmt::Display, &'a u64)>,
) {
    let _ = writeln!(text, "| {of} | {what} |\n|---|---|");
    for (name, count) in counts {
        let _ = writeln!(text, "| {name} | {count} |");
    }
    text.push('\n');
}
