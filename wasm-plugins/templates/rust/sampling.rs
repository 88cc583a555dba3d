//! Makes a token that was just drawn less likely to be drawn again: `penalty` is taken from its logit, for the `last` tokens of
//! the text.

use std::collections::BTreeSet;

use specula_policy_sdk::{Config, Fault, ModelInfo, Sampling, Token, export_sampling, rows};

#[derive(Clone)]
struct Rule {
    last: usize,
    penalty: f32,
    /// The end of the committed text.
    text: Vec<Token>,
}

impl Sampling for Rule {
    fn open(_model: &ModelInfo, config: &mut Config) -> Result<Self, Fault> {
        Ok(Self {
            last: config.number("last", 8.0, 1.0..=64.0)? as usize,
            penalty: config.number("penalty", 1.0, 0.0..=100.0)? as f32,
            text: Vec::new(),
        })
    }

    /// Row `i` may depend on the committed text and the draft tokens before it alone.
    fn adjust(&self, draft: &[Token], first: u32) -> Result<(), Fault> {
        for row in first..=draft.len() as u32 {
            let before = draft[..row as usize].iter().rev().chain(self.text.iter().rev());
            let recent: BTreeSet<Token> = before.take(self.last).copied().collect();
            let recent: Vec<Token> = recent.into_iter().collect();
            rows::bias(row, &recent, &vec![-self.penalty; recent.len()]);
        }
        Ok(())
    }

    fn commit(&mut self, tokens: &[Token]) -> Result<(), Fault> {
        self.text.extend_from_slice(tokens);
        let beyond = self.text.len().saturating_sub(self.last);
        self.text.drain(..beyond);
        Ok(())
    }
}

export_sampling!(Rule);
