//! A compiled plugin and the ways to open it for a request.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::arithmetic_side_effects)]

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use specula_decoding::{Acceptance, PolicyError, Rule, Stopping, TokenBytes, TokenId};
use wasmtime::component::{Component, InstancePre};

use crate::acceptance::PluginAcceptance;
use crate::checks::{self, Checked, Offer};
use crate::digest::digest;
use crate::host::Host;
use crate::load_error::LoadError;
use crate::sampling::PluginRule;
use crate::sandbox::Sandbox;
use crate::schema::{self, Schema};
use crate::session::{Forks, Session};
use crate::stopping::PluginStopping;
use crate::text::one_line;
use crate::usage::PluginUse;
use crate::world::{AcceptanceWorld, SamplingWorld, StoppingWorld};

const MESSAGE_BYTES: usize = 512;

/// What a plugin can be opened as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Judges windows.
    Acceptance,
    /// Edits rows.
    Sampling,
    /// Ends texts.
    Stopping,
}

impl Kind {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Acceptance, Self::Sampling, Self::Stopping];

    /// Name on the wire and in the interface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acceptance => "acceptance",
            Self::Sampling => "sampling",
            Self::Stopping => "stopping",
        }
    }
}

/// Facts on a loaded plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginInfo {
    /// Name that requests use.
    pub name: String,
    /// What it can be opened as; at least one, in order.
    pub kinds: Vec<Kind>,
    /// `sha256:` and 64 hexadecimal digits, of the file.
    pub digest: String,
    /// Length of the file.
    pub bytes: usize,
    /// Its own words on what it is, one line.
    pub description: Option<String>,
    /// JSON schema of its configuration, if it exports one; configurations are checked against it before it is opened.
    pub config_schema: Option<Value>,
}

impl PluginInfo {
    /// Of a file that passed the checks.
    pub(crate) fn of(name: &str, bytes: &[u8], checked: &Checked<'_>) -> Self {
        Self {
            name: name.to_owned(),
            kinds: checked.offer.kinds.clone(),
            digest: digest(bytes),
            bytes: bytes.len(),
            description: checked.description.clone(),
            config_schema: None,
        }
    }
}

/// The model that an opened plugin works for.
#[derive(Debug, Clone, Default)]
pub struct ModelInfo {
    /// Entries of a row, V.
    pub vocab_size: u32,
    /// Tokens that end a text.
    pub end_tokens: Vec<TokenId>,
    /// What the tokens stand for.
    pub token_bytes: Arc<TokenBytes>,
    /// Most draft tokens in a window.
    pub max_window: u32,
}

/// A plugin opened for one request, and the counters of what it costs.
pub struct Opened<T: ?Sized> {
    /// The policy, as the decoder takes it.
    pub policy: Box<T>,
    /// Counters; they outlive the policy.
    pub usage: Arc<PluginUse>,
}

/// A checked and compiled component. Opening takes some tens of microseconds.
pub struct Plugin {
    info: PluginInfo,
    schema: Option<Schema>,
    exports: Exports,
    pub(crate) sandbox: Arc<Sandbox>,
}

/// What a component exports, in whatever version of the interface, ready to be opened.
#[derive(Default)]
pub(crate) struct Exports {
    acceptance: Option<Opener<dyn ForkingAcceptance>>,
    sampling: Option<Opener<dyn ForkingRule>>,
    stopping: Option<Opener<dyn ForkingStopping>>,
}

type Opener<T> = Box<dyn Fn(&Opening<'_>) -> Result<Opened<T>, PolicyError> + Send + Sync>;

/// What a plugin hears of the prompt when it is opened.
pub(crate) struct Told<'a> {
    /// Length of the whole prompt.
    pub(crate) prompt_tokens: usize,
    /// What is committed at once: all of it, but for the checks of the laws.
    pub(crate) told: &'a [TokenId],
}

impl<'a> Told<'a> {
    fn all(prompt: &'a [TokenId]) -> Self {
        Self { prompt_tokens: prompt.len(), told: prompt }
    }
}

/// For whom, and on which text, a plugin is opened.
pub(crate) struct Opening<'a> {
    pub(crate) plugin: &'a Arc<Plugin>,
    pub(crate) model: &'a ModelInfo,
    pub(crate) config: &'a Value,
    pub(crate) prompt: &'a Told<'a>,
}

/// An acceptance policy that the checks of the laws can fork.
pub(crate) trait ForkingAcceptance: Acceptance + Forks {}
impl<T: Acceptance + Forks> ForkingAcceptance for T {}

/// A sampling rule that the checks of the laws can fork.
pub(crate) trait ForkingRule: Rule + Forks {}
impl<T: Rule + Forks> ForkingRule for T {}

/// A stopping criterion that the checks of the laws can fork.
pub(crate) trait ForkingStopping: Stopping + Forks {}
impl<T: Stopping + Forks> ForkingStopping for T {}

impl Exports {
    /// Exports an acceptance policy.
    pub(crate) fn accept<W: AcceptanceWorld>(&mut self, pre: W::Pre) {
        self.acceptance = Some(Box::new(move |o| {
            let session: Session<W> = Session::open(pre.clone(), o)?;
            let usage = session.usage();
            Ok(Opened { policy: Box::new(PluginAcceptance::new(session, o.prompt.told)?), usage })
        }));
    }

    /// Exports a sampling rule.
    pub(crate) fn sample<W: SamplingWorld>(&mut self, pre: W::Pre) {
        self.sampling = Some(Box::new(move |o| {
            let session: Session<W> = Session::open(pre.clone(), o)?;
            let usage = session.usage();
            Ok(Opened { policy: Box::new(PluginRule::new(session, o.prompt.told)?), usage })
        }));
    }

    /// Exports a stopping criterion.
    pub(crate) fn stop<W: StoppingWorld>(&mut self, pre: W::Pre) {
        self.stopping = Some(Box::new(move |o| {
            let session: Session<W> = Session::open(pre.clone(), o)?;
            let usage = session.usage();
            Ok(Opened { policy: Box::new(PluginStopping::new(session)), usage })
        }));
    }
}

impl Plugin {
    /// Checks and compiles a file.
    pub(crate) fn load(sandbox: Arc<Sandbox>, name: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        let checked = checks::check(bytes, &sandbox.limits)?;
        let component = compile(&sandbox, &checked.component)?;
        Self::assemble(sandbox, PluginInfo::of(name, bytes, &checked), &component, &checked.offer)
    }

    /// Makes a plugin of a compiled component. The schema of its configuration is read from it.
    pub(crate) fn assemble(
        sandbox: Arc<Sandbox>,
        info: PluginInfo,
        component: &Component,
        offer: &Offer,
    ) -> Result<Self, LoadError> {
        let mismatch = |error: wasmtime::Error| LoadError::InterfaceMismatch(told(&error));
        let pre: InstancePre<Host> = sandbox.linker.instantiate_pre(component).map_err(mismatch)?;
        let exports = (offer.version.exports)(pre.clone(), &offer.kinds).map_err(mismatch)?;
        let schema = offer.configurable.then(|| schema::read(&sandbox, offer.version, pre)).transpose()?;
        let config_schema = schema.as_ref().map(|schema| schema.json().clone());
        Ok(Self { exports, info: PluginInfo { config_schema, ..info }, schema, sandbox })
    }

    /// Facts.
    pub fn info(&self) -> &PluginInfo {
        &self.info
    }

    /// Opens it as an acceptance policy and commits the prompt to it. After a failure the next `judge` works on a fresh
    /// instance that was told the text again; after [`crate::Limits::strikes`] failures every `judge` answers `off`.
    ///
    /// # Errors
    /// `wrong-kind`, `bad-config`, `model-mismatch`, or any failure of the plugin while it is opened.
    pub fn open_acceptance(
        self: &Arc<Self>,
        model: &ModelInfo,
        config: &Value,
        prompt: &[TokenId],
    ) -> Result<Opened<dyn Acceptance>, PolicyError> {
        let Opened { policy, usage } = self.forking_acceptance(model, config, &Told::all(prompt))?;
        Ok(Opened { policy, usage })
    }

    /// Opens it as a sampling rule and commits the prompt to it. After a trap or a breach of the contract every call answers
    /// `instance-dead`.
    ///
    /// # Errors
    /// As for [`Plugin::open_acceptance`].
    pub fn open_sampling(
        self: &Arc<Self>,
        model: &ModelInfo,
        config: &Value,
        prompt: &[TokenId],
    ) -> Result<Opened<dyn Rule>, PolicyError> {
        let Opened { policy, usage } = self.forking_rule(model, config, &Told::all(prompt))?;
        Ok(Opened { policy, usage })
    }

    /// Opens it as a stopping criterion, which sees generated text only. After a trap or a breach of the contract every call
    /// answers `instance-dead`.
    ///
    /// # Errors
    /// As for [`Plugin::open_acceptance`].
    pub fn open_stopping(
        self: &Arc<Self>,
        model: &ModelInfo,
        config: &Value,
    ) -> Result<Opened<dyn Stopping>, PolicyError> {
        let Opened { policy, usage } = self.forking_stopping(model, config)?;
        Ok(Opened { policy, usage })
    }

    pub(crate) fn forking_acceptance(
        self: &Arc<Self>,
        model: &ModelInfo,
        config: &Value,
        prompt: &Told<'_>,
    ) -> Result<Opened<dyn ForkingAcceptance>, PolicyError> {
        self.open(&self.exports.acceptance, Kind::Acceptance, &Opening { plugin: self, model, config, prompt })
    }

    pub(crate) fn forking_rule(
        self: &Arc<Self>,
        model: &ModelInfo,
        config: &Value,
        prompt: &Told<'_>,
    ) -> Result<Opened<dyn ForkingRule>, PolicyError> {
        self.open(&self.exports.sampling, Kind::Sampling, &Opening { plugin: self, model, config, prompt })
    }

    pub(crate) fn forking_stopping(
        self: &Arc<Self>,
        model: &ModelInfo,
        config: &Value,
    ) -> Result<Opened<dyn ForkingStopping>, PolicyError> {
        self.open(
            &self.exports.stopping,
            Kind::Stopping,
            &Opening { plugin: self, model, config, prompt: &Told::all(&[]) },
        )
    }

    fn open<T: ?Sized>(
        &self,
        opener: &Option<Opener<T>>,
        kind: Kind,
        opening: &Opening<'_>,
    ) -> Result<Opened<T>, PolicyError> {
        let refused = |code: &str, message| PolicyError { policy: self.info.name.clone(), code: code.into(), message };
        let Some(open) = opener else {
            return Err(refused("wrong-kind", format!("it has no {} interface", kind.as_str())));
        };
        if let Some(Err(message)) = self.schema.as_ref().map(|schema| schema.check(opening.config)) {
            return Err(refused("bad-config", message));
        }
        open(opening)
    }
}

/// Machine code of a component that passed the checks.
pub(crate) fn compile(sandbox: &Sandbox, component: &[u8]) -> Result<Component, LoadError> {
    let compile = || Component::from_binary(&sandbox.engine, component);
    // The compiler makes no promise for hostile input, so a panic of it must not take the server down.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(compile)) {
        Ok(compiled) => compiled.map_err(|error| LoadError::CompileFailed(told(&error))),
        Err(_) => Err(LoadError::CompileFailed("the compiler panicked".to_owned())),
    }
}

/// Wasmtime's words, in which the file's own names may stand.
fn told(error: &wasmtime::Error) -> String {
    one_line(&format!("{error:#}"), MESSAGE_BYTES)
}
