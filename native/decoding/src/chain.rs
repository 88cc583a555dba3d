//! The sampling chain: one table, one implementation, the same in every method, in the target and in the draft.
//!
//! Order: logit bias → end tokens before their time → repetition, presence and frequency penalties → sampling plugins → temperature → top-k → top-p →
//! min-p → own draw.

use std::collections::HashMap;

use crate::{Noise, NoiseRows, PolicyError, Row, Rule, TokenId, draw};

/// Temperatures below this are greedy.
pub const GREEDY_BELOW: f32 = 1e-4;

/// A request's sampling parameters, already checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 = greedy.
    pub temperature: f32,
    /// Keep the k best tokens; 0 = off.
    pub top_k: usize,
    /// Keep the smallest set reaching this probability; 1 = off.
    pub top_p: f32,
    /// Keep tokens at least this likely relative to the best; 0 = off.
    pub min_p: f32,
    /// Seed of the request's noise.
    pub seed: u64,
    /// Index among the choices asked for at once; part of the noise's key.
    pub choice: u32,
    /// Added to raw logits.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Penalties on tokens already there.
    pub penalties: Penalties,
    /// Tokens of output before which no end token may come.
    pub min_tokens: usize,
    /// What `min_tokens` forbids.
    pub end_tokens: Vec<TokenId>,
}

/// Penalties on tokens that already occurred.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Penalties {
    /// Divides positive and multiplies negative logits of tokens in prompt or output; 1 = off.
    pub repetition: f32,
    /// Subtracted once if the token is in the output; 0 = off.
    pub presence: f32,
    /// Subtracted per occurrence in the output; 0 = off.
    pub frequency: f32,
}

impl Default for Penalties {
    fn default() -> Self {
        Self { repetition: 1.0, presence: 0.0, frequency: 0.0 }
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
            choice: 0,
            logit_bias: Vec::new(),
            penalties: Penalties::default(),
            min_tokens: 0,
            end_tokens: Vec::new(),
        }
    }
}

impl Sampling {
    /// Whether the own draw is the plain argmax.
    pub fn is_greedy(&self) -> bool {
        self.temperature < GREEDY_BELOW
    }

    /// These parameters with the nucleus cut half as hard: for draft and exit rows, whose nucleus differs from the
    /// target's.
    pub fn slack(&self) -> Self {
        Self { top_p: 1.0 - (1.0 - self.top_p) * 0.5, min_p: self.min_p * 0.5, ..self.clone() }
    }
}

/// Why a row could not be drawn from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Every token was forbidden.
    #[error(
        "`empty_support`: the sampling rules forbid every token at position {position}; loosen logit_bias, masks or plugins"
    )]
    EmptySupport {
        /// Position of the token that could not be drawn.
        position: u32,
    },
    /// A sampling plugin failed.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// The sampling chain of one sequence with its state, which follows the committed text.
pub struct Chain {
    sampling: Sampling,
    noise: NoiseRows,
    rules: Vec<Box<dyn Rule>>,
    /// Per token: occurrences in the prompt and in the output.
    seen: HashMap<TokenId, Occurrences>,
    prompt: u32,
    committed: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Occurrences {
    prompt: u32,
    output: u32,
}

impl Chain {
    /// A chain after `prompt`, with sampling plugins in the request's order. The plugins have seen the prompt already.
    pub fn new(sampling: Sampling, prompt: &[TokenId], rules: Vec<Box<dyn Rule>>) -> Self {
        let mut seen: HashMap<TokenId, Occurrences> = HashMap::new();
        for &token in prompt {
            seen.entry(token).or_default().prompt += 1;
        }
        let prompt = prompt.len() as u32;
        let noise = NoiseRows::new(Noise::new(sampling.seed, sampling.choice));
        Self { noise, sampling, rules, seen, prompt, committed: prompt }
    }

    /// The same chain with the noise rows of another one of the same sequence, so that each row is made once.
    pub fn sharing(self, noise: NoiseRows) -> Self {
        Self { noise, ..self }
    }

    /// The noise it draws with.
    pub fn noise(&self) -> &NoiseRows {
        &self.noise
    }

    /// Applies steps 1-5 to the rows of one path. Row `i` is conditioned on the committed text and `path[..first + i]`.
    ///
    /// # Errors
    /// A plugin's failure.
    pub fn process(&mut self, path: &[TokenId], first: usize, rows: &mut [&mut Row]) -> Result<(), PolicyError> {
        for (i, row) in rows.iter_mut().enumerate() {
            for &(token, bias) in &self.sampling.logit_bias {
                row.bias(token, bias);
            }
            let output = (self.committed - self.prompt) as usize + first + i;
            if output < self.sampling.min_tokens {
                self.sampling.end_tokens.iter().for_each(|&token| row.forbid(token));
            }
            self.penalise(&path[..first + i], row);
        }
        for rule in &mut self.rules {
            rule.apply(path, first, rows)?;
        }
        let s = &self.sampling;
        for row in rows.iter_mut() {
            if !s.is_greedy() {
                if s.temperature != 1.0 {
                    row.scale(s.temperature);
                }
                row.keep_top_k(s.top_k);
                row.keep_top_p(s.top_p);
                row.keep_min_p(s.min_p);
            }
        }
        Ok(())
    }

    /// Step 6: the own draw of a processed row, `depth` tokens after the committed text.
    ///
    /// # Errors
    /// [`ChainError::EmptySupport`] if every token is forbidden.
    pub fn draw(&self, row: &Row, depth: usize) -> Result<TokenId, ChainError> {
        draw::own_draw(row, self.at(depth)).ok_or(ChainError::EmptySupport { position: self.position(depth) })
    }

    /// The `k` tokens the draw of this processed row most likely gives, with perturbed scores, best first.
    pub fn ranked(&self, row: &Row, depth: usize, k: usize) -> Vec<(TokenId, f32)> {
        draw::ranked(row, self.at(depth), k)
    }

    /// Raw logits of some tokens as the draw `depth` tokens after the committed text would score them, but for penalties
    /// and cuts: divided by the temperature, with the noise of that position.
    pub fn perturbed(&self, candidates: &[(TokenId, f32)], depth: usize) -> Vec<(TokenId, f32)> {
        let noise = self.noise.noise();
        let score = |&(token, logit): &(TokenId, f32)| match self.sampling.is_greedy() {
            true => (token, logit),
            false => (token, logit / self.sampling.temperature + noise.gumbel(self.position(depth), token)),
        };
        candidates.iter().map(score).collect()
    }

    /// Moves the state: these tokens are now committed text.
    ///
    /// # Errors
    /// A plugin's failure.
    pub fn commit(&mut self, tokens: &[TokenId]) -> Result<(), PolicyError> {
        for &token in tokens {
            self.seen.entry(token).or_default().output += 1;
        }
        self.committed += tokens.len() as u32;
        self.rules.iter_mut().try_for_each(|rule| rule.commit(tokens))
    }

    /// The parameters.
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// Position, counted from the first prompt token, of the token `depth` places after the committed text.
    pub fn position(&self, depth: usize) -> u32 {
        self.committed + depth as u32
    }

    /// Position of the first token of the output.
    pub(crate) fn first_position(&self) -> u32 {
        self.prompt
    }

    /// Whether sampling plugins take part.
    pub fn has_plugins(&self) -> bool {
        !self.rules.is_empty()
    }

    fn at(&self, depth: usize) -> draw::At<'_> {
        (!self.sampling.is_greedy()).then(|| (&self.noise, self.position(depth)))
    }

    fn penalise(&self, path: &[TokenId], row: &mut Row) {
        let p = self.sampling.penalties;
        if p == Penalties::default() {
            return;
        }
        let mut drafted: HashMap<TokenId, u32> = HashMap::new();
        for &token in path {
            *drafted.entry(token).or_default() += 1;
        }
        let fresh = drafted.keys().filter(|t| !self.seen.contains_key(t)).copied();
        for token in self.seen.keys().copied().chain(fresh) {
            let seen = self.seen.get(&token).copied().unwrap_or_default();
            let output = seen.output + drafted.get(&token).copied().unwrap_or(0);
            let Some(logit) = row.logits_mut().get_mut(token as usize) else { continue };
            if seen.prompt + output > 0 {
                *logit = if *logit > 0.0 { *logit / p.repetition } else { *logit * p.repetition };
            }
            if output > 0 {
                *logit -= p.presence + p.frequency * output as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processed(sampling: Sampling, prompt: &[TokenId], path: &[TokenId], logits: &[f32]) -> Row {
        let mut chain = Chain::new(sampling, prompt, Vec::new());
        let mut row = Row::new(logits);
        chain.process(path, path.len(), &mut [&mut row]).expect("no plugin");
        row
    }

    #[test]
    fn penalties_count_prompt_output_and_window() {
        let penalties = Penalties { repetition: 2.0, presence: 0.5, frequency: 0.25 };
        let sampling = Sampling { penalties, ..Sampling::default() };
        let row = processed(sampling, &[0], &[1, 1], &[4.0, 4.0, -4.0]);
        assert_eq!(row.logits(), [2.0, 2.0 - 0.5 - 0.5, -4.0]);
    }

    #[test]
    fn window_rows_equal_committed_rows() {
        let penalties = Penalties { repetition: 1.3, presence: 0.5, frequency: 0.25 };
        let sampling = Sampling { penalties, ..Sampling::default() };
        let logits = [0.3, 1.0, -2.0, 0.5];
        let in_window = processed(sampling.clone(), &[3], &[1, 2], &logits);
        let mut chain = Chain::new(sampling, &[3], Vec::new());
        chain.commit(&[1, 2]).expect("no plugin");
        let mut committed = Row::new(&logits);
        chain.process(&[], 0, &mut [&mut committed]).expect("no plugin");
        assert_eq!(in_window, committed);
        assert_eq!(chain.position(0), 3);
    }

    #[test]
    fn bias_comes_before_temperature() {
        let sampling = Sampling { temperature: 0.5, logit_bias: vec![(1, 2.0)], ..Sampling::default() };
        assert_eq!(processed(sampling, &[], &[], &[1.0, 1.0]).logits(), [2.0, 6.0]);
    }

    #[test]
    fn end_tokens_are_forbidden_until_their_time() {
        let sampling = Sampling { min_tokens: 3, end_tokens: vec![1], ..Sampling::default() };
        let mut chain = Chain::new(sampling, &[0, 0], Vec::new());
        chain.commit(&[2]).expect("no plugin");
        let mut rows = vec![Row::new(&[0.0, 9.0, 0.0]); 3];
        chain.process(&[2, 2], 0, &mut rows.iter_mut().collect::<Vec<_>>()).expect("no plugin");
        let allowed: Vec<bool> = rows.iter().map(|row| row.logits()[1].is_finite()).collect();
        assert_eq!(allowed, [false, false, true], "the 2nd, 3rd and 4th token of the output");
    }

    #[test]
    fn choices_draw_with_noise_of_their_own() {
        let draws = |choice| {
            let sampling = Sampling { choice, ..Sampling::default() };
            let chain = Chain::new(sampling, &[], Vec::new());
            (0..64).map(|depth| chain.draw(&Row::new(&[0.0; 8]), depth).expect("support")).collect::<Vec<_>>()
        };
        assert_ne!(draws(0), draws(1));
    }

    #[test]
    fn empty_support_is_an_error() {
        let sampling = Sampling { logit_bias: vec![(0, f32::NEG_INFINITY)], ..Sampling::default() };
        let mut chain = Chain::new(sampling, &[], Vec::new());
        let mut row = Row::new(&[1.0]);
        chain.process(&[], 0, &mut [&mut row]).expect("no plugin");
        assert_eq!(chain.draw(&row, 0), Err(ChainError::EmptySupport { position: 0 }));
    }
}
