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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::{Limits, ModelInfo, Registry};

    fn observe(
        world: &Stopper,
        store: &mut Store<Host>,
        session: ResourceAny,
        text: &str,
    ) -> wasmtime::Result<Option<u32>> {
        let exports = world.specula_policy_stopping();
        let stop = exports.session().call_observe(store, session, &[1], text, &[text.len() as u32])?;
        Ok(stop.ok().flatten().map(|stop| stop.keep))
    }

    #[test]
    fn a_fork_begins_in_the_same_state_and_goes_its_own_way() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/dist/plugins/balanced-json.wasm");
        let bytes = std::fs::read(path).expect("`cargo xtask build --only plugins` makes it");
        let plugin = Registry::new(Limits::default()).and_then(|r| r.load("json", &bytes)).expect("it passes");
        let model = ModelInfo { vocab_size: 4, end_tokens: Vec::new(), token_bytes: Arc::default(), max_window: 4 };
        let mut session: Session<Stopper> = Session::open(plugin, &model, &json!({})).expect("it opens");
        let keeps = session.call(session.limits().open, |world, first, store| {
            let before = observe(world, store, first, "{\"a\": [")?;
            let second = world.specula_policy_stopping().session().call_fork(&mut *store, first)?;
            let mut keeps = vec![before];
            for (session, text) in [(first, "]"), (second, "1"), (first, "}"), (second, "]}")] {
                keeps.push(observe(world, store, session, text)?);
            }
            Ok(Ok(keeps))
        });
        let keeps = keeps.expect("all calls return");
        assert_eq!(keeps, [None, None, None, Some(1), Some(1)]);
    }
}
