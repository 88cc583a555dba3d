//! Twins of the stopping criteria: a function of all that was observed.

use serde_json::Value;
use specula_decoding::{PolicyError, Stop, Stopping, TokenId};

/// A criterion that looks at the whole text after each token.
struct Plain<F> {
    tokens: Vec<TokenId>,
    text: String,
    stops: F,
}

impl<F: Fn(&[TokenId], &str) -> Option<String> + Send> Stopping for Plain<F> {
    fn name(&self) -> &str {
        "twin"
    }

    fn observe(&mut self, tokens: &[TokenId], text: &str, ends: &[u32]) -> Result<Option<Stop>, PolicyError> {
        let before = self.text.len();
        for (i, token) in tokens.iter().enumerate() {
            self.tokens.push(*token);
            self.text.push_str(&text[self.text.len() - before..ends[i] as usize]);
            if let Some(reason) = (self.stops)(&self.tokens, &self.text) {
                return Ok(Some(Stop { keep: i + 1, reason }));
            }
        }
        Ok(None)
    }
}

fn plain(stops: impl Fn(&[TokenId], &str) -> Option<String> + Send + 'static) -> Box<dyn Stopping> {
    Box::new(Plain { tokens: Vec::new(), text: String::new(), stops })
}

fn whole(config: &Value, key: &str) -> usize {
    config[key].as_u64().expect("a whole number") as usize
}

pub(crate) fn repetition(config: &Value) -> Box<dyn Stopping> {
    let (times, least, longest) = (whole(config, "times"), whole(config, "tokens"), whole(config, "period"));
    plain(move |tokens, _| {
        let period = (1..=longest).find(|&period| {
            // As long an end as repeats itself at this distance.
            let alike = (period..tokens.len()).rev().take_while(|&i| tokens[i] == tokens[i - period]).count();
            alike >= period * (times - 1) && alike + period >= least
        })?;
        Some(format!("the last {period} tokens came {times} times"))
    })
}

pub(crate) fn budget(config: &Value) -> Box<dyn Stopping> {
    let (budget, grace) = (whole(config, "tokens"), whole(config, "grace"));
    plain(move |tokens, text| {
        let last = text.chars().last()?;
        let sentence = text[..text.len() - last.len_utf8()].trim_end_matches(['"', '\'', ')', '”']);
        let ends = last == '\n' || (last.is_whitespace() && sentence.ends_with(['.', '!', '?', '…', '。']));
        let spent = tokens.len();
        (spent >= budget && (ends || spent >= budget + grace))
            .then(|| format!("the budget of {budget} tokens is spent"))
    })
}

pub(crate) fn balanced_json(config: &Value) -> Box<dyn Stopping> {
    let opening: &[u8] = if config["value"] == "object" { b"{" } else { b"{[" };
    plain(move |_, text| {
        let bytes = text.as_bytes();
        let mut at = 0;
        while let Some(begin) = (at..bytes.len()).find(|&i| opening.contains(&bytes[i])) {
            match value(bytes, begin) {
                Some(Ok(end)) => return (end == bytes.len()).then(|| "the JSON value is complete".to_owned()),
                Some(Err(after)) => at = after,
                None => return None,
            }
        }
        None
    })
}

/// Where the value that begins here ends, or where its brackets close in the wrong order; `None` if neither has come.
fn value(bytes: &[u8], begin: usize) -> Option<Result<usize, usize>> {
    let mut open = Vec::new();
    let mut at = begin;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while *bytes.get(at)? != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'{' => open.push(b'}'),
            b'[' => open.push(b']'),
            closing @ (b'}' | b']') => {
                if open.pop() != Some(closing) {
                    return Some(Err(at + 1));
                }
                if open.is_empty() {
                    return Some(Ok(at + 1));
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}
