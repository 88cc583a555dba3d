//! The rule of one sequence.

use std::sync::Arc;

use llguidance::Matcher;
use specula_decoding::{PolicyError, Row, Rule, TokenId};

/// Name that failures bear.
const NAME: &str = "response_format";

/// A grammar at work. Between calls the matcher stands behind the committed text.
pub(crate) struct GrammarRule {
    matcher: Matcher,
    /// The matcher before the first token, and what was committed since: a matcher that failed on a draft is of no more use.
    fresh: Matcher,
    committed: Vec<TokenId>,
    /// Whether an end token was committed.
    ended: bool,
    end_tokens: Arc<[TokenId]>,
    vocab_size: usize,
}

/// A place along a path of draft tokens.
enum Place {
    /// The matcher stands there.
    Within,
    /// Behind an end token.
    Ended,
    /// Behind a token that the grammar forbids: no text gets there.
    Nowhere,
}

impl GrammarRule {
    pub(crate) fn new(fresh: Matcher, end_tokens: Arc<[TokenId]>, vocab_size: usize) -> Self {
        Self { matcher: fresh.deep_clone(), fresh, committed: Vec::new(), ended: false, end_tokens, vocab_size }
    }

    /// Masks the rows; how many tokens the matcher has then taken, to be taken back.
    fn mask_along(&mut self, path: &[TokenId], first: usize, rows: &mut [&mut Row]) -> Result<usize, String> {
        let mut place = if self.ended { Place::Ended } else { Place::Within };
        let mut taken = 0;
        for token in &path[..first] {
            place = self.step(place, *token, &mut taken)?;
        }
        for (i, row) in rows.iter_mut().enumerate() {
            row.allow(&self.mask(&place)?);
            if let Some(token) = path.get(first + i) {
                place = self.step(place, *token, &mut taken)?;
            }
        }
        Ok(taken)
    }

    /// Goes on by one token.
    fn step(&mut self, place: Place, token: TokenId, taken: &mut usize) -> Result<Place, String> {
        let ends = self.end_tokens.contains(&token);
        Ok(match place {
            Place::Ended if ends => Place::Ended,
            Place::Within if ends && self.may_end()? => Place::Ended,
            Place::Within if !ends && self.take(token)? => {
                *taken += 1;
                Place::Within
            }
            _ => Place::Nowhere,
        })
    }

    fn mask(&mut self, place: &Place) -> Result<Vec<u32>, String> {
        let mut mask = vec![0_u32; self.vocab_size.div_ceil(32)];
        if matches!(place, Place::Within) && !self.matcher.is_stopped() {
            let allowed = self.matcher.compute_mask().map_err(|error| error.to_string())?;
            mask.iter_mut().zip(allowed.as_slice()).for_each(|(word, allowed)| *word = *allowed);
        }
        let may_end = match place {
            Place::Within => self.may_end()?,
            Place::Ended => true,
            Place::Nowhere => false,
        };
        for token in self.end_tokens.iter() {
            let (word, bit) = (*token as usize / 32, 1 << (token % 32));
            if let Some(word) = mask.get_mut(word) {
                *word = if may_end { *word | bit } else { *word & !bit };
            }
        }
        Ok(mask)
    }

    fn may_end(&mut self) -> Result<bool, String> {
        Ok(self.matcher.is_stopped() || self.matcher.is_accepting().map_err(|error| error.to_string())?)
    }

    /// Whether the matcher took the token.
    fn take(&mut self, token: TokenId) -> Result<bool, String> {
        if self.matcher.is_stopped() {
            return Ok(false);
        }
        self.matcher.try_consume_tokens(&[token]).map(|taken| taken == 1).map_err(|error| error.to_string())
    }

    /// Puts the matcher back behind the committed text.
    fn restore(&mut self) -> Result<(), PolicyError> {
        self.matcher = self.fresh.deep_clone();
        let committed = std::mem::take(&mut self.committed);
        let again = committed.iter().all(|token| self.take(*token).unwrap_or(false));
        self.committed = committed;
        if again { Ok(()) } else { Err(failed("the committed text is no longer understood".to_owned())) }
    }
}

/// The limits of a mask are the only way to fail there is.
fn failed(message: String) -> PolicyError {
    PolicyError { policy: NAME.to_owned(), code: "grammar-limit".to_owned(), message }
}

impl Rule for GrammarRule {
    fn apply(&mut self, path: &[TokenId], first: usize, rows: &mut [&mut Row]) -> Result<(), PolicyError> {
        match self.mask_along(path, first, rows) {
            Ok(taken) => self.matcher.rollback(taken).map_err(|error| failed(error.to_string())),
            Err(message) if path.is_empty() || rows.is_empty() => Err(failed(message)),
            // A draft led where masks cost too much. Whether the text itself ever gets there is not known: row by row, what
            // fails is forbidden, and the text fails only if it comes to a row that is.
            Err(_) => {
                for (i, row) in rows.iter_mut().enumerate() {
                    self.restore()?;
                    if self.mask_along(&path[..first + i], first + i, &mut [row]).is_err() {
                        row.allow(&[]);
                    }
                }
                self.restore()
            }
        }
    }

    fn commit(&mut self, tokens: &[TokenId]) -> Result<(), PolicyError> {
        for token in tokens {
            if self.end_tokens.contains(token) {
                self.ended = true;
            } else if self.take(*token).map_err(failed)? {
                self.committed.push(*token);
            } else {
                return Err(failed(format!("token {token} was committed against the grammar")));
            }
        }
        Ok(())
    }
}
