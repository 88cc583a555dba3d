//! Where a text ends, judged token by token in commit order, and which of it may be shown yet.

use std::sync::Arc;

use crate::{PolicyError, TokenId};

/// The bytes each token stands for; control tokens stand for none. Texts are concatenations of these.
#[derive(Debug, Clone, Default)]
pub struct TokenBytes(pub Vec<Box<[u8]>>);

impl TokenBytes {
    /// Bytes of one token; empty for control tokens and ids outside the vocabulary.
    pub fn get(&self, token: TokenId) -> &[u8] {
        self.0.get(token as usize).map_or(&[], |b| b)
    }
}

/// A request's own end conditions, already checked.
#[derive(Debug, Clone, Default)]
pub struct EndConditions {
    /// Tokens that end the text and are not shown.
    pub end_tokens: Vec<TokenId>,
    /// Strings that end the text and are not shown; none is empty.
    pub stop_strings: Vec<String>,
    /// Tokens before which neither a stop string nor a stopping plugin ends the text. (End tokens cannot be drawn before.)
    pub min_tokens: usize,
    /// Most tokens to commit.
    pub max_tokens: usize,
    /// Tokens that still fit the context after the prompt.
    pub context_left: usize,
}

/// Why a text ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// The model gave an end token.
    EndToken,
    /// A stop string appeared.
    StopString(String),
    /// The request's token limit.
    MaxTokens,
    /// The model's context is full.
    ContextEnd,
    /// A stopping plugin said so.
    Plugin {
        /// The plugin's name.
        name: String,
        /// Its reason, as it gave it.
        reason: String,
    },
}

/// A stopping plugin's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// How many of the tokens just observed stay, the last of them ending the text; 1..=observed.
    pub keep: usize,
    /// Why, in the plugin's words.
    pub reason: String,
}

/// A stopping criterion with state that follows the committed text.
pub trait Stopping: Send {
    /// Name under which the request asked for it.
    fn name(&self) -> &str;

    /// Sees the tokens committed in this round. Token `i` completed the text `text[ends[i-1]..ends[i]]` (bytes; a token
    /// that ends inside a character completes nothing yet). Observing a text in other pieces gives the same result.
    ///
    /// # Errors
    /// The policy's own failure; the request's failure policy decides what follows.
    fn observe(&mut self, tokens: &[TokenId], text: &str, ends: &[u32]) -> Result<Option<Stop>, PolicyError>;
}

/// What a round's tokens came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judged {
    /// How many of the round's tokens are committed; the rest is discarded everywhere.
    pub kept: usize,
    /// Text that each kept token makes showable: may be empty, may include text held back before.
    pub pieces: Vec<String>,
    /// Set on the round that ended the text.
    pub reason: Option<FinishReason>,
}

/// The end state of one sequence.
pub struct Ends {
    conditions: EndConditions,
    bytes: Arc<TokenBytes>,
    stopping: Vec<Box<dyn Stopping>>,
    decoder: Decoder,
    /// Text that may be the beginning of a stop string.
    held: String,
    committed: usize,
}

impl Ends {
    /// Before the first token.
    pub fn new(conditions: EndConditions, bytes: Arc<TokenBytes>, stopping: Vec<Box<dyn Stopping>>) -> Self {
        Self { conditions, bytes, stopping, decoder: Decoder::default(), held: String::new(), committed: 0 }
    }

    /// Judges the tokens of a round.
    ///
    /// # Errors
    /// A stopping plugin's failure.
    pub fn judge(&mut self, tokens: &[TokenId]) -> Result<Judged, PolicyError> {
        let (kept, reason) = self.built_in(tokens);
        let (kept, reason) = self.plugged_in(&tokens[..kept], reason)?;
        let mut pieces = Vec::with_capacity(kept);
        for (i, &token) in tokens[..kept].iter().enumerate() {
            let ended = reason.as_ref().filter(|_| i + 1 == kept);
            pieces.push(self.show(token, ended));
        }
        self.committed += kept;
        Ok(Judged { kept, pieces, reason })
    }

    /// Whether this token ends the text wherever it comes.
    pub fn is_end_token(&self, token: TokenId) -> bool {
        self.conditions.end_tokens.contains(&token)
    }

    /// Tokens committed so far, the one that ended the text included.
    pub fn committed(&self) -> usize {
        self.committed
    }

    /// Tokens that may still be committed: no window need be longer.
    pub fn remaining(&self) -> usize {
        self.conditions.max_tokens.min(self.conditions.context_left).saturating_sub(self.committed)
    }

    /// Ends without plugins: how many tokens stay, and why the text ends if it does.
    fn built_in(&self, tokens: &[TokenId]) -> (usize, Option<FinishReason>) {
        let c = &self.conditions;
        let mut decoder = self.decoder.clone();
        let mut text = self.held.clone();
        for (i, &token) in tokens.iter().enumerate() {
            if c.end_tokens.contains(&token) {
                return (i + 1, Some(FinishReason::EndToken));
            }
            text.push_str(&decoder.push(self.bytes.get(token)));
            let committed = self.committed + i + 1;
            if committed >= c.min_tokens
                && let Some((_, stop)) = first_stop(&text, &c.stop_strings)
            {
                return (i + 1, Some(FinishReason::StopString(stop.to_owned())));
            }
            if committed >= c.max_tokens {
                return (i + 1, Some(FinishReason::MaxTokens));
            }
            if committed >= c.context_left {
                return (i + 1, Some(FinishReason::ContextEnd));
            }
            // As `show` will: what is shown can no longer be part of a stop string.
            text = text.split_off(text.len() - held_back(&text, &c.stop_strings));
        }
        (tokens.len(), None)
    }

    /// Stopping plugins over what the built-in ends left; the earliest end wins, a tie goes to the built-in one.
    fn plugged_in(
        &mut self,
        tokens: &[TokenId],
        reason: Option<FinishReason>,
    ) -> Result<(usize, Option<FinishReason>), PolicyError> {
        let mut end = (tokens.len(), reason);
        if self.stopping.is_empty() {
            return Ok(end);
        }
        let mut decoder = self.decoder.clone();
        let mut text = String::new();
        let mut ends = Vec::with_capacity(tokens.len());
        for &token in tokens {
            text.push_str(&decoder.push(self.bytes.get(token)));
            ends.push(text.len() as u32);
        }
        // Tokens too early to end the text are told one by one, so that what a plugin sees after a stop that does not count is
        // the same however the text came in rounds.
        let early = self.conditions.min_tokens.saturating_sub(self.committed + 1).min(tokens.len());
        let start = |i: usize| if i == 0 { 0 } else { ends[i - 1] };
        for plugin in &mut self.stopping {
            for i in 0..early {
                let (from, to) = (start(i), ends[i]);
                plugin.observe(&tokens[i..=i], &text[from as usize..to as usize], &[to - from])?;
            }
            if early == tokens.len() {
                continue;
            }
            let from = start(early);
            let rest: Vec<u32> = ends[early..].iter().map(|end| end - from).collect();
            if let Some(stop) = plugin.observe(&tokens[early..], &text[from as usize..], &rest)?
                && (early + stop.keep < end.0 || end.1.is_none())
            {
                end = (
                    early + stop.keep,
                    Some(FinishReason::Plugin { name: plugin.name().to_owned(), reason: stop.reason }),
                );
            }
        }
        Ok(end)
    }

    /// Advances the text by one committed token and returns what may be shown.
    fn show(&mut self, token: TokenId, ended: Option<&FinishReason>) -> String {
        if ended != Some(&FinishReason::EndToken) {
            self.held.push_str(&self.decoder.push(self.bytes.get(token)));
        }
        match ended {
            Some(FinishReason::StopString(_)) => {
                let at = first_stop(&self.held, &self.conditions.stop_strings).map_or(self.held.len(), |f| f.0);
                self.held.truncate(at);
                std::mem::take(&mut self.held)
            }
            Some(_) => {
                self.held.push_str(&self.decoder.finish());
                std::mem::take(&mut self.held)
            }
            None => {
                let safe = self.held.len() - held_back(&self.held, &self.conditions.stop_strings);
                let rest = self.held.split_off(safe);
                std::mem::replace(&mut self.held, rest)
            }
        }
    }
}

/// Turns bytes into text, keeping back an unfinished UTF-8 character. Impossible bytes become U+FFFD.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// Text completed by these bytes.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.pending) {
                Ok(valid) => {
                    text.push_str(valid);
                    self.pending.clear();
                    return text;
                }
                Err(error) => {
                    let (valid, rest) = self.pending.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(bad) = error.error_len() else {
                        self.pending = rest.to_vec();
                        return text;
                    };
                    text.push('\u{FFFD}');
                    self.pending = rest[bad..].to_vec();
                }
            }
        }
    }

    /// What is left at the end: U+FFFD for an unfinished character, else nothing.
    pub fn finish(&mut self) -> String {
        let left = if self.pending.is_empty() { "" } else { "\u{FFFD}" };
        self.pending.clear();
        left.to_owned()
    }
}

/// The stop string that ends first, and where it begins: the one that a reader going byte by byte meets first; of
/// those, the longest.
fn first_stop<'a>(text: &str, stops: &'a [String]) -> Option<(usize, &'a str)> {
    let found = stops.iter().filter_map(|stop| text.find(stop.as_str()).map(|at| (at, stop.as_str())));
    found.min_by_key(|(at, stop)| (at + stop.len(), *at))
}

/// Bytes at the end of `text` that may be the beginning of a stop string.
fn held_back(text: &str, stops: &[String]) -> usize {
    let longest = |stop: &String| {
        let possible = (1..stop.len().min(text.len() + 1)).rev();
        possible.into_iter().find(|&n| stop.is_char_boundary(n) && text.ends_with(&stop[..n])).unwrap_or(0)
    };
    stops.iter().map(longest).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(pieces: &[&[u8]], stops: &[&str], max_tokens: usize) -> Ends {
        let bytes = TokenBytes(pieces.iter().map(|p| p.to_vec().into_boxed_slice()).collect());
        let conditions = EndConditions {
            end_tokens: vec![99],
            stop_strings: stops.iter().map(|s| s.to_string()).collect(),
            min_tokens: 0,
            max_tokens,
            context_left: 1000,
        };
        Ends::new(conditions, Arc::new(bytes), Vec::new())
    }

    fn text(judged: &[Judged]) -> String {
        judged.iter().flat_map(|j| j.pieces.iter().map(String::as_str)).collect()
    }

    #[test]
    fn end_token_discards_the_rest_and_is_not_shown() {
        let judged = ends(&[b"a", b"b"], &[], 10).judge(&[0, 99, 1]).expect("no plugin");
        assert_eq!((judged.kept, judged.reason), (2, Some(FinishReason::EndToken)));
        assert_eq!(judged.pieces, ["a", ""]);
    }

    #[test]
    fn stop_string_across_tokens_and_rounds_is_held_back_and_cut() {
        let tokens: [&[u8]; 4] = [b"x EN", b"D", b" y", b"E"];
        let mut e = ends(&tokens, &["END"], 10);
        let first = e.judge(&[0]).expect("no plugin");
        assert_eq!(first.pieces, ["x "]);
        let second = e.judge(&[1, 2]).expect("no plugin");
        assert_eq!((second.kept, second.reason.clone()), (1, Some(FinishReason::StopString("END".into()))));
        assert_eq!(text(&[first, second]), "x ");
        let mut other = ends(&tokens, &["END"], 10);
        let judged: Vec<Judged> = [0, 2].map(|t| other.judge(&[t]).expect("no plugin")).to_vec();
        assert_eq!(text(&judged), "x EN y");
    }

    #[test]
    fn any_split_into_rounds_gives_the_same_text() {
        let pieces: [&[u8]; 6] = [b"ab", b"\xE2\x82", b"\xAC", b"aEN", b"EN", b"D."];
        let all = [0, 1, 2, 3, 4, 0, 5, 1, 4, 5];
        let whole = ends(&pieces, &["END", "b\u{20AC}aX"], 9).judge(&all).expect("no plugin");
        for split in 1..all.len() {
            let mut e = ends(&pieces, &["END", "b\u{20AC}aX"], 9);
            let mut judged = vec![e.judge(&all[..split]).expect("no plugin")];
            if judged[0].reason.is_none() {
                judged.push(e.judge(&all[split..]).expect("no plugin"));
            }
            assert_eq!(text(&judged), text(std::slice::from_ref(&whole)), "split {split}");
            assert_eq!(judged.last().and_then(|j| j.reason.clone()), whole.reason);
        }
    }

    #[test]
    fn unfinished_characters_wait_and_bad_bytes_are_replaced() {
        let pieces: [&[u8]; 3] = [b"\xE2", b"\x82\xAC", b"\xFF"];
        let mut e = ends(&pieces, &[], 4);
        assert_eq!(e.judge(&[0]).expect("no plugin").pieces, [""]);
        assert_eq!(e.judge(&[1, 2]).expect("no plugin").pieces, ["\u{20AC}", "\u{FFFD}"]);
        let last = e.judge(&[0]).expect("no plugin");
        assert_eq!((last.reason, last.pieces), (Some(FinishReason::MaxTokens), vec!["\u{FFFD}".to_owned()]));
    }

    /// Before `min_tokens` no stop string counts, in whatever rounds the text comes.
    #[test]
    fn nothing_ends_before_min_tokens() {
        let pieces: [&[u8]; 3] = [b"x EN", b"D", b" y"];
        let all = [0, 1, 2, 0, 1, 2];
        for split in 1..all.len() {
            let mut e = ends(&pieces, &["END", "a"], 10);
            e.conditions.min_tokens = 3;
            let first = e.judge(&all[..split]).expect("no plugin");
            let mut judged = vec![first];
            if judged[0].reason.is_none() {
                judged.push(e.judge(&all[split..]).expect("no plugin"));
            }
            assert_eq!(text(&judged), "x END yx ", "split {split}");
            assert_eq!(e.committed(), 5);
        }
        let mut e = ends(&pieces, &[], 10);
        e.conditions.min_tokens = 4;
        e.stopping.push(Box::new(StopAfter(2)));
        let judged = e.judge(&all).expect("no failure");
        assert_eq!((judged.kept, judged.reason.is_some()), (4, true), "a plugin's early stop does not count");
    }

    struct StopAfter(usize);
    impl Stopping for StopAfter {
        fn name(&self) -> &str {
            "after"
        }
        fn observe(&mut self, tokens: &[TokenId], _: &str, _: &[u32]) -> Result<Option<Stop>, PolicyError> {
            let keep = self.0.max(1);
            self.0 = self.0.saturating_sub(tokens.len());
            Ok((keep <= tokens.len()).then(|| Stop { keep, reason: "enough".into() }))
        }
    }

    #[test]
    fn the_earliest_end_wins() {
        let mut e = ends(&[b"a", b"b"], &[], 3);
        e.stopping.push(Box::new(StopAfter(2)));
        let judged = e.judge(&[0, 1, 0, 1]).expect("no failure");
        assert_eq!(judged.kept, 2);
        assert!(matches!(judged.reason, Some(FinishReason::Plugin { .. })));
        let mut e = ends(&[b"a", b"b"], &[], 2);
        e.stopping.push(Box::new(StopAfter(2)));
        assert_eq!(e.judge(&[0, 1]).expect("no failure").reason, Some(FinishReason::MaxTokens));
    }
}
