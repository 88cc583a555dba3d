//! Text from guests, made fit for logs, terminals and responses.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::arithmetic_side_effects)]

/// One line of at most `limit` bytes without control characters; cut between characters.
pub(crate) fn one_line(text: &str, limit: usize) -> String {
    let mut line = String::new();
    for c in text.chars() {
        let c = if c == '\n' || c == '\t' { ' ' } else { c };
        if line.len().saturating_add(c.len_utf8()) > limit {
            break;
        }
        // Escape sequences start with a control character; the marks that turn writing direction can disguise text.
        if !c.is_control() && !matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}') {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_go_and_cuts_fall_between_characters() {
        assert_eq!(one_line("a\u{1b}[31mb\r\nc\u{202E}d", 64), "a[31mb cd");
        assert_eq!(one_line("äöü", 5), "äö");
        assert_eq!(one_line("äöü", 6), "äöü");
    }
}
