//! Ends a text at the end of a sentence or line once a number of tokens is spent, and at the latest `grace` tokens later.

use specula_policy_sdk::{Config, Fault, ModelInfo, Stop, Stopping, Token, export_schema, export_stopping};

#[derive(Clone)]
struct Budget {
    tokens: u32,
    grace: u32,
    spent: u32,
    /// Whether the text so far ends a sentence, if a blank or nothing follows.
    ended: bool,
}

impl Budget {
    /// Takes a token's text; whether a sentence or line has ended in it or before it.
    fn ends(&mut self, piece: &str) -> bool {
        let mut ends = false;
        for c in piece.chars() {
            ends |= c == '\n' || (self.ended && c.is_whitespace());
            // Closing marks belong to the sentence.
            self.ended =
                matches!(c, '.' | '!' | '?' | '…' | '。') || (self.ended && matches!(c, '"' | '\'' | ')' | '”'));
        }
        ends
    }
}

impl Stopping for Budget {
    fn open(_model: &ModelInfo, config: &mut Config) -> Result<Self, Fault> {
        let tokens = config.whole("tokens", 256, 1..=1_000_000)?;
        Ok(Self { tokens, grace: config.whole("grace", 64, 0..=100_000)?, spent: 0, ended: false })
    }

    fn observe(&mut self, _tokens: &[Token], text: &str, ends: &[u32]) -> Result<Option<Stop>, Fault> {
        let mut from = 0;
        for (i, end) in ends.iter().enumerate() {
            let piece = &text[from..*end as usize];
            from = *end as usize;
            self.spent += 1;
            let sentence = self.ends(piece);
            let over = self.spent.checked_sub(self.tokens);
            if over.is_some_and(|over| sentence || over >= self.grace) {
                let reason = format!("the budget of {} tokens is spent", self.tokens);
                return Ok(Some(Stop { keep: i as u32 + 1, reason }));
            }
        }
        Ok(None)
    }
}

export_stopping!(Budget);
export_schema!(
    r#"{"type": "object", "additionalProperties": false, "properties": {
        "tokens": {"type": "integer", "minimum": 1, "maximum": 1000000, "default": 256},
        "grace": {"type": "integer", "minimum": 0, "maximum": 100000, "default": 64}}}"#
);
