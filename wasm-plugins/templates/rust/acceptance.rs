//! Keeps draft tokens that are among the target's `rank` + 1 best, besides those that are its own draw. Lossy: the answer says
//! how many tokens were not the target's own.

use specula_policy_sdk::{Acceptance, Config, Fault, ModelInfo, Window, export_acceptance};

#[derive(Clone)]
struct Policy {
    rank: u32,
}

impl Acceptance for Policy {
    fn open(model: &ModelInfo, config: &mut Config) -> Result<Self, Fault> {
        let most = f64::from(model.vocab_size - 1);
        Ok(Self { rank: config.number("rank", 1.0, 0.0..=most)? as u32 })
    }

    /// State, if there is any, moves in `commit` alone: this may be called again, or its answer thrown away.
    fn judge(&self, window: &Window) -> Result<u32, Fault> {
        let positions = window.draft.iter().zip(&window.own_draw).zip(&window.rank);
        Ok(positions.take_while(|((draft, own), rank)| draft == own || **rank <= self.rank).count() as u32)
    }
}

export_acceptance!(Policy);
