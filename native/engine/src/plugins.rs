//! Opens a request's plugins and keeps account of them.

use std::sync::Arc;

use specula_decoding::{Acceptance, PolicyError, Rule, Stopping, TokenId};
use specula_policies::{Kind, ModelInfo, PluginUse, Registry};

use crate::report::PluginCost;
use crate::request::{PluginSpec, RequestError};

/// A request's opened plugins.
#[derive(Default)]
pub(crate) struct Plugged {
    pub(crate) rules: Vec<Box<dyn Rule>>,
    pub(crate) acceptance: Option<Box<dyn Acceptance>>,
    pub(crate) stopping: Vec<Box<dyn Stopping>>,
    uses: Vec<(String, Arc<PluginUse>)>,
}

impl std::fmt::Debug for Plugged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.uses.iter().map(|u| &u.0)).finish()
    }
}

impl Plugged {
    /// Opens plugins in the request's order, each as everything it can be. Their failures are the request's.
    pub(crate) fn open(
        registry: &Registry,
        model: &ModelInfo,
        specs: &[PluginSpec],
        prompt: &[TokenId],
    ) -> Result<Self, RequestError> {
        let mut plugged = Self::default();
        for (i, spec) in specs.iter().enumerate() {
            let plugin = registry.get(&spec.name).ok_or_else(|| unknown(registry, i, &spec.name))?;
            let failed = |error: PolicyError| RequestError {
                field: format!("plugins[{i}].config"),
                code: "plugin_refused",
                message: format!("`plugins[{i}]`: {error}"),
            };
            for kind in &plugin.info().kinds {
                match kind {
                    Kind::Acceptance if plugged.acceptance.is_some() => return Err(second_acceptance(i, &spec.name)),
                    Kind::Acceptance => {
                        let opened = plugin.open_acceptance(model, &spec.config, prompt).map_err(failed)?;
                        plugged.acceptance = Some(opened.policy);
                        plugged.uses.push((spec.name.clone(), opened.usage));
                    }
                    Kind::Sampling => {
                        let opened = plugin.open_sampling(model, &spec.config, prompt).map_err(failed)?;
                        plugged.rules.push(opened.policy);
                        plugged.uses.push((spec.name.clone(), opened.usage));
                    }
                    Kind::Stopping => {
                        let opened = plugin.open_stopping(model, &spec.config).map_err(failed)?;
                        plugged.stopping.push(opened.policy);
                        plugged.uses.push((spec.name.clone(), opened.usage));
                    }
                }
            }
        }
        Ok(plugged)
    }

    /// Whether the request has none.
    pub(crate) fn is_empty(&self) -> bool {
        self.uses.is_empty()
    }

    /// What each plugin cost so far; times rounded to 10 µs, so that they tell nothing finer.
    pub(crate) fn costs(&self) -> Vec<PluginCost> {
        let cost = |(name, used): &(String, Arc<PluginUse>)| PluginCost {
            name: name.clone(),
            calls: used.calls(),
            fuel: used.fuel(),
            micros: used.micros().next_multiple_of(10),
        };
        self.uses.iter().map(cost).collect()
    }

    /// Name, calls, fuel, microseconds and failures of each plugin.
    pub(crate) fn counters(&self) -> impl Iterator<Item = (&str, [u64; 4])> {
        self.uses.iter().map(|(name, u)| (name.as_str(), [u.calls(), u.fuel(), u.micros(), u.failures()]))
    }
}

fn unknown(registry: &Registry, i: usize, name: &str) -> RequestError {
    let names: Vec<String> = registry.list().into_iter().map(|p| p.name).collect();
    RequestError {
        field: format!("plugins[{i}].name"),
        code: "unknown_plugin",
        message: format!("`plugins[{i}].name`: no plugin `{name}` is loaded; loaded: {}", names.join(", ")),
    }
}

fn second_acceptance(i: usize, name: &str) -> RequestError {
    RequestError {
        field: format!("plugins[{i}].name"),
        code: "too_many_acceptance_policies",
        message: format!(
            "`plugins[{i}].name`: `{name}` is a second acceptance policy; at most 1 is allowed, remove one"
        ),
    }
}
