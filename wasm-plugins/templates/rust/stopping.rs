//! Ends a text after so many `sentences`.

use specula_policy_sdk::{Config, Fault, ModelInfo, Stop, Stopping, Token, export_stopping};

#[derive(Clone)]
struct Criterion {
    sentences: usize,
    ended: usize,
}

impl Stopping for Criterion {
    fn open(_model: &ModelInfo, config: &mut Config) -> Result<Self, Fault> {
        Ok(Self { sentences: config.number("sentences", 1.0, 1.0..=1e6)? as usize, ended: 0 })
    }

    /// Token `i` completed `text[ends[i - 1]..ends[i]]`, in bytes.
    fn observe(&mut self, _tokens: &[Token], text: &str, ends: &[u32]) -> Result<Option<Stop>, Fault> {
        let mut start = 0;
        for (i, end) in ends.iter().enumerate() {
            self.ended += text[start..*end as usize].matches(['.', '!', '?']).count();
            start = *end as usize;
            if self.ended >= self.sentences {
                return Ok(Some(Stop { keep: i as u32 + 1, reason: format!("{} sentences", self.ended) }));
            }
        }
        Ok(None)
    }
}

export_stopping!(Criterion);
