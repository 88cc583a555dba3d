//! Twins of the sampling rules: a function of the whole text before a row.

use regex_automata::dfa::{Automaton, dense};
use regex_automata::util::primitives::StateID;
use regex_automata::util::{start, syntax};
use regex_automata::{Anchored, MatchKind};
use serde_json::Value;
use specula_decoding::{PolicyError, Row, Rule, TokenId};

use crate::green;

/// A rule that is a function of text, prompt length and row.
struct Plain<F> {
    text: Vec<TokenId>,
    /// Length of the first commit.
    prompt: Option<usize>,
    edit: F,
}

impl<F: Fn(&[TokenId], usize, &mut Row) + Send> Rule for Plain<F> {
    fn apply(&mut self, path: &[TokenId], first: usize, rows: &mut [&mut Row]) -> Result<(), PolicyError> {
        for (i, row) in rows.iter_mut().enumerate() {
            let text = [&self.text[..], &path[..first + i]].concat();
            (self.edit)(&text, self.prompt.unwrap_or(0), row);
        }
        Ok(())
    }

    fn commit(&mut self, tokens: &[TokenId]) -> Result<(), PolicyError> {
        self.prompt.get_or_insert(tokens.len());
        self.text.extend_from_slice(tokens);
        Ok(())
    }
}

fn plain(edit: impl Fn(&[TokenId], usize, &mut Row) + Send + 'static) -> Box<dyn Rule> {
    Box::new(Plain { text: Vec::new(), prompt: None, edit })
}

fn number(config: &Value, key: &str) -> f64 {
    config[key].as_f64().expect("a number")
}

pub(crate) fn min_p(config: &Value) -> Box<dyn Rule> {
    let p = number(config, "min_p") as f32;
    plain(move |_, _, row| row.keep_min_p(p))
}

pub(crate) fn top_n_sigma(config: &Value) -> Box<dyn Rule> {
    let n = number(config, "n") as f32;
    plain(move |_, _, row| {
        let (_, max, _, deviation) = row.summary();
        let floor = max - n * deviation;
        let below: Vec<TokenId> =
            (0..row.vocab_size() as TokenId).filter(|&token| row.logits()[token as usize] < floor).collect();
        below.into_iter().for_each(|token| row.forbid(token));
    })
}

pub(crate) fn dry(config: &Value) -> Box<dyn Rule> {
    let (multiplier, base) = (number(config, "multiplier") as f32, number(config, "base") as f32);
    let (allowed, range) = (number(config, "allowed") as usize, number(config, "range") as usize);
    plain(move |text, _, row| {
        let text = &text[text.len().saturating_sub(range)..];
        for token in 0..row.vocab_size() as TokenId {
            // The longest end of the text that stands somewhere else with this token behind it.
            let repeated = (1..=text.len().min(48)).rev().find(|&length| {
                let end = &text[text.len() - length..];
                text.windows(length + 1).any(|piece| &piece[..length] == end && piece[length] == token)
            });
            if let Some(length) = repeated.filter(|length| *length >= allowed) {
                let mut penalty = multiplier;
                for _ in allowed..length {
                    penalty = (penalty * base).min(1000.0);
                }
                row.bias(token, -penalty.min(1000.0));
            }
        }
    })
}

pub(crate) fn watermark(config: &Value) -> Box<dyn Rule> {
    let (key, delta) = (config["key"].as_u64().expect("a key") as u32, number(config, "delta") as f32);
    let halvings = (-number(config, "gamma").log2()) as u32;
    plain(move |text, _, row| {
        let vocabulary = row.vocab_size() as u32;
        let previous = text.last().copied().unwrap_or(vocabulary);
        let words: Vec<u32> = green::words(key, previous, halvings, vocabulary.div_ceil(32)).collect();
        for token in (0..vocabulary).filter(|token| words[*token as usize / 32] >> (token % 32) & 1 == 1) {
            row.bias(token, delta);
        }
    })
}

/// Whether some text behind a state ends in a match. The end that leaves a state as it is needs no text.
fn leads_to_a_match(dfa: &dense::DFA<Vec<u32>>, state: StateID, seen: &mut Vec<StateID>) -> bool {
    if dfa.is_match_state(dfa.next_eoi_state(state)) {
        return true;
    }
    if seen.contains(&state) {
        return false;
    }
    seen.push(state);
    (0..=255).any(|byte| leads_to_a_match(dfa, dfa.next_state(state, byte), seen))
}

pub(crate) fn regex(config: &Value) -> Box<dyn Rule> {
    let dfa = dense::Builder::new()
        .configure(dense::Config::new().match_kind(MatchKind::All))
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .build(config["pattern"].as_str().expect("a pattern"))
        .expect("it is a pattern");
    let start = dfa.start_state(&start::Config::new().anchored(Anchored::Yes)).expect("it can be anchored");
    // The models of these tests: a token is a character of ASCII, and 0 ends.
    plain(move |text, prompt, row| {
        let may_end = |state| dfa.is_match_state(dfa.next_eoi_state(state));
        let step = |state, token: TokenId| {
            if token == 0 && may_end(state) { state } else { dfa.next_state(state, token as u8) }
        };
        let before = text[prompt..].iter().fold(start, |state, token| step(state, *token));
        for token in 0..row.vocab_size() as TokenId {
            if !leads_to_a_match(&dfa, step(before, token), &mut Vec::new()) {
                row.forbid(token);
            }
        }
    })
}
