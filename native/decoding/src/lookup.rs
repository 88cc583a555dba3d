//! Prompt look-up: drafts by copying what followed an earlier occurrence of the latest n-gram (Saxena 2023, "Prompt
//! lookup decoding"). Needs no model.

use crate::TokenId;

/// Longest n-gram tried.
pub const MAX_NGRAM: usize = 3;

/// Up to `window` tokens that followed the most recent earlier occurrence of the last `n` tokens, for the largest
/// n ≤ [`MAX_NGRAM`] that occurs; empty if none does.
pub fn propose(text: &[TokenId], window: usize) -> &[TokenId] {
    for n in (1..=MAX_NGRAM.min(text.len().saturating_sub(1))).rev() {
        let pattern = &text[text.len() - n..];
        let found = (0..text.len() - n).rev().find(|&start| &text[start..start + n] == pattern);
        if let Some(start) = found {
            let from = start + n;
            return &text[from..(from + window).min(text.len())];
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_after_the_longest_most_recent_match() {
        assert_eq!(propose(&[1, 2, 3, 9, 2, 3, 7, 8, 2, 3], 3), [7, 8, 2]);
        assert_eq!(propose(&[5, 6, 5], 4), [6, 5]);
        assert_eq!(propose(&[1, 2, 3], 4), []);
        assert_eq!(propose(&[1], 4), []);
        assert_eq!(propose(&[4, 4], 0), []);
    }
}
