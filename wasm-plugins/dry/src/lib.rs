//! DRY ("don't repeat yourself"): a token that would continue a repetition of the text's end loses
//! `multiplier * base^(length - allowed)`, where `length` is that of the part repeated.

use specula_policy_sdk::{Config, Fault, ModelInfo, Sampling, Token, export_sampling, export_schema, rows};

/// Longest repetition that counts; keeps powers finite and calls short.
const LONGEST: usize = 48;
/// Largest penalty: more forbids a token as surely.
const LARGEST: f32 = 1000.0;

#[derive(Clone)]
struct Dry {
    multiplier: f32,
    base: f32,
    allowed: usize,
    /// How much of the text is looked at.
    range: usize,
    /// The end of the committed text, at most `range` tokens.
    text: Vec<Token>,
}

impl Dry {
    /// Penalties of the tokens that would continue a repetition, by token.
    fn penalties(&self, text: &[Token]) -> (Vec<Token>, Vec<f32>) {
        let text = &text[text.len().saturating_sub(self.range)..];
        let mut longest: Vec<(Token, usize)> = Vec::new();
        for end in 1..text.len() {
            // The text up to `end` and the whole text end alike for so long; what came then was `text[end]`.
            let ends = text[..end].iter().rev().zip(text.iter().rev()).take(LONGEST);
            let length = ends.take_while(|(a, b)| a == b).count();
            if length < self.allowed {
                continue;
            }
            match longest.iter_mut().find(|(token, _)| *token == text[end]) {
                Some((_, known)) => *known = length.max(*known),
                None => longest.push((text[end], length)),
            }
        }
        let penalty = |length: usize| {
            // Multiplied step by step: the same bits everywhere.
            let power = (self.allowed..length).fold(self.multiplier, |power, _| (power * self.base).min(LARGEST));
            -power.min(LARGEST)
        };
        longest.into_iter().map(|(token, length)| (token, penalty(length))).unzip()
    }
}

impl Sampling for Dry {
    fn open(_model: &ModelInfo, config: &mut Config) -> Result<Self, Fault> {
        Ok(Self {
            multiplier: config.number("multiplier", 0.8, 0.0..=100.0)? as f32,
            base: config.number("base", 1.75, 1.0..=8.0)? as f32,
            allowed: config.whole("allowed", 2, 1..=32)? as usize,
            range: config.whole("range", 512, 1..=1024)? as usize,
            text: Vec::new(),
        })
    }

    fn adjust(&self, draft: &[Token], first: u32) -> Result<(), Fault> {
        let mut text = self.text.clone();
        text.extend_from_slice(&draft[..first as usize]);
        for row in first as usize..=draft.len() {
            let (ids, biases) = self.penalties(&text);
            rows::bias(row as u32, &ids, &biases);
            text.extend(draft.get(row));
        }
        Ok(())
    }

    fn commit(&mut self, tokens: &[Token]) -> Result<(), Fault> {
        self.text.extend_from_slice(tokens);
        let surplus = self.text.len().saturating_sub(self.range);
        self.text.drain(..surplus);
        Ok(())
    }
}

export_sampling!(Dry);
export_schema!(
    r#"{"type": "object", "additionalProperties": false, "properties": {
        "multiplier": {"type": "number", "minimum": 0, "maximum": 100, "default": 0.8},
        "base": {"type": "number", "minimum": 1, "maximum": 8, "default": 1.75},
        "allowed": {"type": "integer", "minimum": 1, "maximum": 32, "default": 2},
        "range": {"type": "integer", "minimum": 1, "maximum": 1024, "default": 512}}}"#
);
