//! Keeps a draft token that the target did not draw only where the target is undecided, and only so many of them in a window.
//! Lossy.

use specula_policy_sdk::{Acceptance, Config, Fault, ModelInfo, Window, export_acceptance, export_schema};

#[derive(Clone)]
struct EntropyGate {
    /// Entropy from which on the target counts as undecided, nats.
    gate: f32,
    /// Least probability of what passes.
    floor: f32,
    /// Most of them in a window.
    per_window: u32,
}

impl Acceptance for EntropyGate {
    fn open(_model: &ModelInfo, config: &mut Config) -> Result<Self, Fault> {
        Ok(Self {
            gate: config.number("gate", 2.0, 0.0..=20.0)? as f32,
            floor: config.number("floor", 0.05, 0.0..=1.0)? as f32,
            per_window: config.whole("per_window", 1, 0..=64)?,
        })
    }

    fn judge(&self, window: &Window) -> Result<u32, Fault> {
        let mut passed = 0;
        let kept = (0..window.draft.len()).take_while(|&i| {
            if window.draft[i] == window.own_draw[i] {
                return true;
            }
            passed += 1;
            let undecided = window.entropy[i] >= self.gate;
            undecided && libm::expf(window.log_p[i]) >= self.floor && passed <= self.per_window
        });
        Ok(kept.count() as u32)
    }
}

export_acceptance!(EntropyGate);
export_schema!(
    r#"{"type": "object", "additionalProperties": false, "properties": {
        "gate": {"type": "number", "minimum": 0, "maximum": 20, "default": 2.0, "description": "nats"},
        "floor": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.05},
        "per_window": {"type": "integer", "minimum": 0, "maximum": 64, "default": 1}}}"#
);
