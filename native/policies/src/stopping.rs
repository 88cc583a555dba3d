//! Plugins as stopping criteria.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::arithmetic_side_effects)]

use specula_decoding::{PolicyError, Stop, Stopping, TokenId};

use crate::session::{Forks, Session};
use crate::text::one_line;
use crate::world::StoppingWorld;

/// A plugin at work as a stopping criterion.
pub(crate) struct PluginStopping<W: StoppingWorld> {
    session: Session<W>,
}

impl<W: StoppingWorld> PluginStopping<W> {
    pub(crate) fn new(mut session: Session<W>) -> Self {
        session.in_use();
        Self { session }
    }
}

impl<W: StoppingWorld> Forks for PluginStopping<W> {
    fn fork(&mut self) -> Result<(), PolicyError> {
        self.session.fork()
    }

    fn back(&mut self) {
        self.session.back();
    }
}

impl<W: StoppingWorld> Stopping for PluginStopping<W> {
    fn name(&self) -> &str {
        self.session.name()
    }

    fn observe(&mut self, tokens: &[TokenId], text: &str, ends: &[u32]) -> Result<Option<Stop>, PolicyError> {
        let limits = self.session.limits();
        let stop = self
            .session
            .call(limits.commit, |world, session, store| world.observe(store, session, tokens, text, ends))?;
        self.session.remember(tokens);
        let Some(stop) = stop else { return Ok(None) };
        match usize::try_from(stop.keep) {
            Ok(keep) if (1..=tokens.len()).contains(&keep) => {
                Ok(Some(Stop { keep, reason: one_line(&stop.reason, limits.line_bytes) }))
            }
            _ => {
                let message = format!("wants to keep {} of {} tokens", stop.keep, tokens.len());
                Err(self.session.breach("bad-verdict", message))
            }
        }
    }
}
