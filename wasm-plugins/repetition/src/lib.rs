//! Ends a text that says the same thing over and over: a piece of at most `period` tokens that came `times` times in a row and
//! makes at least `tokens` tokens in all.

use specula_policy_sdk::{Config, Fault, ModelInfo, Stop, Stopping, Token, export_schema, export_stopping};

#[derive(Clone)]
struct Repetition {
    times: usize,
    /// Fewest tokens of the repeated part.
    tokens: usize,
    /// The last `period` tokens, the latest last.
    text: Vec<Token>,
    /// For each distance d (d − 1 the index): how many tokens up to the last equalled the one d before.
    alike: Vec<usize>,
}

impl Repetition {
    /// Takes a token; the length of the piece that has now come often enough, the shortest if several have.
    fn repeats(&mut self, token: Token) -> Option<usize> {
        let mut found = None;
        for (i, alike) in self.alike.iter_mut().enumerate() {
            let distance = i + 1;
            let before = self.text.len().checked_sub(distance).map(|at| self.text[at]);
            *alike = if before == Some(token) { *alike + 1 } else { 0 };
            // The first time around is not a repetition of anything.
            if *alike >= distance * (self.times - 1) && *alike + distance >= self.tokens {
                found = found.or(Some(distance));
            }
        }
        if self.text.len() == self.alike.len() {
            self.text.remove(0);
        }
        self.text.push(token);
        found
    }
}

impl Stopping for Repetition {
    fn open(_model: &ModelInfo, config: &mut Config) -> Result<Self, Fault> {
        Ok(Self {
            times: config.whole("times", 4, 2..=100)? as usize,
            tokens: config.whole("tokens", 24, 1..=1000)? as usize,
            text: Vec::new(),
            alike: vec![0; config.whole("period", 32, 1..=256)? as usize],
        })
    }

    fn observe(&mut self, tokens: &[Token], _text: &str, _ends: &[u32]) -> Result<Option<Stop>, Fault> {
        for (i, token) in tokens.iter().enumerate() {
            if let Some(period) = self.repeats(*token) {
                let reason = format!("the last {period} tokens came {} times", self.times);
                return Ok(Some(Stop { keep: i as u32 + 1, reason }));
            }
        }
        Ok(None)
    }
}

export_stopping!(Repetition);
export_schema!(
    r#"{"type": "object", "additionalProperties": false, "properties": {
        "times": {"type": "integer", "minimum": 2, "maximum": 100, "default": 4},
        "tokens": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 24},
        "period": {"type": "integer", "minimum": 1, "maximum": 256, "default": 32}}}"#
);
