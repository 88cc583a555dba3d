//! A watermark by green lists (Kirchenbauer et al., arXiv:2301.10226): after every token a keyed part of the vocabulary is
//! green and gets `delta` added. Who has the key counts green tokens; `specula watermark` does.

use specula_policy_sdk::{BAD_CONFIG, Config, Fault, ModelInfo, Sampling, Token, export_sampling, export_schema, rows};

mod green;

#[derive(Clone)]
struct Watermark {
    key: u32,
    /// A token is green with probability 2^−halvings.
    halvings: u32,
    delta: f32,
    /// Words of a mask over the vocabulary.
    words: u32,
    /// The last token of the text; before the first, a number that is no token.
    last: Token,
}

impl Watermark {
    fn mask(&self, previous: Token) -> Vec<u32> {
        green::words(self.key, previous, self.halvings, self.words).collect()
    }
}

impl Sampling for Watermark {
    fn open(model: &ModelInfo, config: &mut Config) -> Result<Self, Fault> {
        let gamma = config.number("gamma", 0.5, 0.0..=1.0)?;
        let halvings = [(1, 0.5), (2, 0.25), (3, 0.125)].into_iter().find(|(_, share)| *share == gamma);
        let message = || format!("`gamma` must be one of 0.5, 0.25, 0.125, but is {gamma}");
        let (halvings, _) = halvings.ok_or_else(|| Fault { code: BAD_CONFIG, message: message() })?;
        let key = config.whole("key", 0, 0..=u32::MAX)?;
        let delta = config.number("delta", 2.0, 0.0..=100.0)? as f32;
        Ok(Self { key, halvings, delta, words: model.vocab_size.div_ceil(32), last: model.vocab_size })
    }

    fn adjust(&self, draft: &[Token], first: u32) -> Result<(), Fault> {
        for row in first..=draft.len() as u32 {
            let previous = row.checked_sub(1).map_or(self.last, |before| draft[before as usize]);
            rows::bias_mask(row, &self.mask(previous), self.delta);
        }
        Ok(())
    }

    fn commit(&mut self, tokens: &[Token]) -> Result<(), Fault> {
        self.last = tokens.last().copied().unwrap_or(self.last);
        Ok(())
    }
}

export_sampling!(Watermark);
export_schema!(
    r#"{"type": "object", "additionalProperties": false, "required": ["key"], "properties": {
        "key": {"type": "integer", "minimum": 0, "maximum": 4294967295},
        "gamma": {"enum": [0.5, 0.25, 0.125], "default": 0.5},
        "delta": {"type": "number", "minimum": 0, "maximum": 100, "default": 2.0}},
        "examples": [{"key": 7}]}"#
);
