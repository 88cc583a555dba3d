//! Keeps exactly what the target would draw: the rule of the host itself, as a policy. A starting point for others.

use specula_policy_sdk::{Acceptance, Config, Fault, ModelInfo, Window, export_acceptance};

#[derive(Clone)]
struct OwnDraw;

impl Acceptance for OwnDraw {
    fn open(_model: &ModelInfo, _config: &mut Config) -> Result<Self, Fault> {
        Ok(Self)
    }

    fn judge(&self, window: &Window) -> Result<u32, Fault> {
        Ok(window.draft.iter().zip(&window.own_draw).take_while(|(draft, own)| draft == own).count() as u32)
    }
}

export_acceptance!(OwnDraw);
