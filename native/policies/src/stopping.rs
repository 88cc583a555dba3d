//! Plugins as stopping criteria.

use specula_decoding::{PolicyError, Stop, Stopping, TokenId};
use wasmtime::Store;
use wasmtime::component::ResourceAny;

use crate::bindings::offers::specula::policy::types;
use crate::bindings::stopper::Stopper;
use crate::host::Host;
use crate::session::{Outcome, Session, World};
use crate::text::one_line;
use crate::{Kind, Plugin};

impl World for Stopper {
    const KIND: Kind = Kind::Stopping;

    fn instantiate(plugin: &Plugin, store: &mut Store<Host>) -> wasmtime::Result<Self> {
        let Some(pre) = &plugin.stopping else { wasmtime::bail!("not a stopping criterion") };
        pre.instantiate(store)
    }

    fn open(&self, store: &mut Store<Host>, model: &types::ModelInfo, config: &str) -> Outcome<()> {
        self.specula_policy_stopping().call_open(store, model, config)
    }

    fn session(&self, store: &mut Store<Host>) -> wasmtime::Result<ResourceAny> {
        self.specula_policy_stopping().session().call_constructor(store)
    }
}

/// A plugin at work as a stopping criterion.
pub(crate) struct PluginStopping {
    session: Session<Stopper>,
}

impl PluginStopping {
    pub(crate) fn new(session: Session<Stopper>) -> Self {
        Self { session }
    }
}

impl Stopping for PluginStopping {
    fn name(&self) -> &str {
        self.session.name()
    }

    fn observe(&mut self, tokens: &[TokenId], text: &str, ends: &[u32]) -> Result<Option<Stop>, PolicyError> {
        let limits = self.session.limits();
        let stop = self.session.call(limits.commit, |world, session, store| {
            world.specula_policy_stopping().session().call_observe(store, session, tokens, text, ends)
        })?;
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
