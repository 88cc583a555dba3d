//! Typical acceptance (Medusa, arXiv:2401.10774): a draft token is kept if it equals the target's own draw or if
//! p > min(ε, δ·exp(−H)), with p its probability in the target's row and H that row's entropy in nats. Where the target is
//! undecided (large H) unlikely tokens pass too. Lossy: kept tokens need not be the target's own.

use specula_policy_sdk::{Acceptance, Config, Fault, ModelInfo, Window, export_acceptance, export_schema};

#[derive(Clone)]
struct Typical {
    /// ε, the threshold that is always enough.
    epsilon: f32,
    /// δ, how much of exp(−H) is asked for.
    delta: f32,
}

impl Acceptance for Typical {
    fn open(_model: &ModelInfo, config: &mut Config) -> Result<Self, Fault> {
        let epsilon = config.number("epsilon", 0.09, 0.0..=1.0)? as f32;
        let delta = config.number("delta", 0.3, 0.0..=1.0)? as f32;
        Ok(Self { epsilon, delta })
    }

    fn judge(&self, window: &Window) -> Result<u32, Fault> {
        let positions = window.draft.iter().zip(&window.own_draw).zip(window.log_p.iter().zip(&window.entropy));
        let kept = positions.take_while(|((draft, own), (log_p, entropy))| {
            let threshold = self.epsilon.min(self.delta * libm::expf(-**entropy));
            draft == own || libm::expf(**log_p) > threshold
        });
        Ok(kept.count() as u32)
    }
}

export_acceptance!(Typical);
export_schema!(
    r#"{"type": "object", "additionalProperties": false, "properties": {
        "epsilon": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.09, "description": "always enough"},
        "delta": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.3, "description": "share of exp(-H)"}}}"#
);
