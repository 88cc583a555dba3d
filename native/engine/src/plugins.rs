//! Opens a request's plugins and keeps account of them.

use std::sync::Arc;

use specula_decoding::{Acceptance, PolicyError, Rule, Stopping, TokenId};
use specula_policies::{Kind, LoadError, ModelInfo, PluginUse, Registry};

use crate::failure::{Failures, Guarded, GuardedStopping, OnFailure};
use crate::report::PluginCost;
use crate::request::{PluginSpec, RequestError};

/// The label of uploads; no plugin's name.
const UPLOADED: &str = "(uploaded)";

/// A request's opened plugins.
#[derive(Default)]
pub(crate) struct Plugged {
    pub(crate) rules: Vec<Box<dyn Rule>>,
    pub(crate) acceptance: Option<Box<dyn Acceptance>>,
    pub(crate) stopping: Vec<Box<dyn Stopping>>,
    /// What their failure policies came to.
    pub(crate) failures: Failures,
    uses: Vec<Used>,
}

/// A plugin in one of its kinds, and what that cost.
struct Used {
    name: String,
    /// What metrics call it: uploads all alike, for their names are their owners' affair and without number.
    label: String,
    kind: Kind,
    counts: Arc<PluginUse>,
}

impl std::fmt::Debug for Plugged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.uses.iter().map(|used| &used.name)).finish()
    }
}

impl Plugged {
    /// Opens plugins in the request's order, each as everything it can be. Their failures are the request's.
    pub(crate) fn open(
        (registry, owner): (&Registry, &str),
        model: &ModelInfo,
        specs: &[PluginSpec],
        prompt: &[TokenId],
    ) -> Result<Self, RequestError> {
        let mut plugged = Self::default();
        for (i, spec) in specs.iter().enumerate() {
            let found = registry.find(owner, &spec.name).map_err(|error| unnamed(i, &error))?;
            let plugin = found.ok_or_else(|| unknown((registry, owner), i, &spec.name))?;
            let label = if registry.is_operators(&plugin) { plugin.info().name.as_str() } else { UPLOADED };
            let failed = |error: PolicyError| RequestError {
                field: format!("plugins[{i}].config"),
                code: "plugin_refused",
                message: format!("`plugins[{i}]`: {error}"),
            };
            for kind in &plugin.info().kinds {
                let policy = spec.on_failure.unwrap_or_else(|| default_policy(*kind));
                let failures = plugged.failures.clone();
                let counts = match kind {
                    Kind::Acceptance if plugged.acceptance.is_some() => return Err(second_acceptance(i, &spec.name)),
                    Kind::Acceptance => {
                        let opened = plugin.open_acceptance(model, &spec.config, prompt).map_err(failed)?;
                        plugged.acceptance = Some(Box::new(Guarded::new(opened.policy, policy, failures)));
                        opened.usage
                    }
                    Kind::Sampling => {
                        let opened = plugin.open_sampling(model, &spec.config, prompt).map_err(failed)?;
                        plugged.rules.push(Box::new(Guarded::new(opened.policy, policy, failures)));
                        opened.usage
                    }
                    Kind::Stopping => {
                        let opened = plugin.open_stopping(model, &spec.config).map_err(failed)?;
                        let guarded = Guarded::new(opened.policy, policy, failures);
                        plugged.stopping.push(Box::new(GuardedStopping { name: spec.name.clone(), guarded }));
                        opened.usage
                    }
                };
                plugged.uses.push(Used { name: spec.name.clone(), label: label.to_owned(), kind: *kind, counts });
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
        let cost = |used: &Used| PluginCost {
            name: used.name.clone(),
            kind: used.kind.as_str(),
            calls: used.counts.calls(),
            fuel: used.counts.fuel(),
            micros: used.counts.micros().next_multiple_of(10),
            failures: used.counts.failures(),
        };
        self.uses.iter().map(cost).collect()
    }

    /// Label, calls, fuel, microseconds and failures of each plugin.
    pub(crate) fn counters(&self) -> impl Iterator<Item = (&str, [u64; 4])> {
        let counts = |u: &PluginUse| [u.calls(), u.fuel(), u.micros(), u.failures()];
        self.uses.iter().map(move |used| (used.label.as_str(), counts(&used.counts)))
    }
}

/// An acceptance policy can be done without, for own draw is always there; dropping a constraint in silence would be worse
/// than an error.
fn default_policy(kind: Kind) -> OnFailure {
    match kind {
        Kind::Acceptance => OnFailure::Fallback,
        Kind::Sampling | Kind::Stopping => OnFailure::Fail,
    }
}

fn unnamed(i: usize, error: &LoadError) -> RequestError {
    RequestError {
        field: format!("plugins[{i}].name"),
        code: "bad_plugin_name",
        message: format!("`plugins[{i}].name`: {error}, and `@` with a version's number or digest if you like"),
    }
}

fn unknown((registry, owner): (&Registry, &str), i: usize, name: &str) -> RequestError {
    let names: Vec<String> = registry.list(owner).into_iter().map(|card| card.name).collect();
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
