//! Min-p sampling: forbids every token less than `min_p` times as likely as the best one. The host does the arithmetic.

use specula_policy_sdk::{Config, Fault, ModelInfo, Sampling, Token, export_sampling, export_schema, rows};

#[derive(Clone)]
struct MinP(f32);

impl Sampling for MinP {
    fn open(_model: &ModelInfo, config: &mut Config) -> Result<Self, Fault> {
        Ok(Self(config.number("min_p", 0.05, 0.0..=1.0)? as f32))
    }

    fn adjust(&self, draft: &[Token], first: u32) -> Result<(), Fault> {
        for row in first..=draft.len() as u32 {
            rows::keep_min_p(row, self.0);
        }
        Ok(())
    }
}

export_sampling!(MinP);
export_schema!(
    r#"{"type": "object", "additionalProperties": false, "properties": {
        "min_p": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.05}}}"#
);
