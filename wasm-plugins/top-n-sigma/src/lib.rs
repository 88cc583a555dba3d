//! Top-nσ sampling (arXiv:2411.07641): keeps the tokens whose logit is at most `n` standard deviations of the row's logits
//! below the best. The host does the arithmetic over the row.

use specula_policy_sdk::{Config, Fault, ModelInfo, Sampling, Token, export_sampling, export_schema, rows};

#[derive(Clone)]
struct TopNSigma(f32);

impl Sampling for TopNSigma {
    fn open(_model: &ModelInfo, config: &mut Config) -> Result<Self, Fault> {
        Ok(Self(config.number("n", 1.0, 0.0..=100.0)? as f32))
    }

    fn adjust(&self, draft: &[Token], first: u32) -> Result<(), Fault> {
        for row in first..=draft.len() as u32 {
            let summary = rows::summary(row);
            if summary.allowed > 0 {
                rows::keep_from(row, summary.max - self.0 * summary.deviation);
            }
        }
        Ok(())
    }
}

export_sampling!(TopNSigma);
export_schema!(
    r#"{"type": "object", "additionalProperties": false, "properties": {
        "n": {"type": "number", "minimum": 0, "maximum": 100, "default": 1.0}}}"#
);
