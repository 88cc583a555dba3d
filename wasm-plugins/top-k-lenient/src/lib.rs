//! Keeps a draft token that is among the target's `k` best and not much less likely than the best. Lossy.

use specula_policy_sdk::{Acceptance, Config, Fault, ModelInfo, Window, export_acceptance, export_schema};

#[derive(Clone)]
struct TopKLenient {
    k: u32,
    /// Least share of the best token's probability.
    ratio: f32,
}

impl Acceptance for TopKLenient {
    fn open(_model: &ModelInfo, config: &mut Config) -> Result<Self, Fault> {
        Ok(Self { k: config.whole("k", 3, 1..=64)?, ratio: config.number("ratio", 0.3, 0.0..=1.0)? as f32 })
    }

    fn judge(&self, window: &Window) -> Result<u32, Fault> {
        let kept = (0..window.draft.len()).take_while(|&i| {
            let likely = libm::expf(window.log_p[i]) >= self.ratio * window.top_probability[i];
            window.draft[i] == window.own_draw[i] || (window.rank[i] < self.k && likely)
        });
        Ok(kept.count() as u32)
    }
}

export_acceptance!(TopKLenient);
export_schema!(
    r#"{"type": "object", "additionalProperties": false, "properties": {
        "k": {"type": "integer", "minimum": 1, "maximum": 64, "default": 3},
        "ratio": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.3}}}"#
);
