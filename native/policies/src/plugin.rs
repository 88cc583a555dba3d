//! A compiled plugin and the ways to open it for a request.

use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use specula_decoding::{Acceptance, PolicyError, Rule, Stopping, TokenBytes, TokenId};
use wasmtime::component::{Component, InstancePre};

use crate::acceptance::PluginAcceptance;
use crate::bindings::acceptor::AcceptorPre;
use crate::bindings::sampler::SamplerPre;
use crate::bindings::stopper::StopperPre;
use crate::checks;
use crate::host::Host;
use crate::load_error::LoadError;
use crate::sampling::PluginRule;
use crate::sandbox::Sandbox;
use crate::session::Session;
use crate::stopping::PluginStopping;
use crate::usage::PluginUse;

/// What a plugin can be opened as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
}

/// The model that an opened plugin works for.
#[derive(Debug, Clone)]
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
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) acceptance: Option<AcceptorPre<Host>>,
    pub(crate) sampling: Option<SamplerPre<Host>>,
    pub(crate) stopping: Option<StopperPre<Host>>,
}

impl Plugin {
    /// Checks and compiles a file.
    pub(crate) fn load(sandbox: Arc<Sandbox>, name: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        let checked = checks::check(bytes, &sandbox.limits)?;
        let component = compile(&sandbox, &checked.component)?;
        let mismatch = |error: wasmtime::Error| LoadError::InterfaceMismatch(format!("{error:#}"));
        let pre: InstancePre<Host> = sandbox.linker.instantiate_pre(&component).map_err(mismatch)?;
        let has = |kind: Kind| checked.kinds.contains(&kind).then(|| pre.clone());
        Ok(Self {
            acceptance: has(Kind::Acceptance).map(AcceptorPre::new).transpose().map_err(mismatch)?,
            sampling: has(Kind::Sampling).map(SamplerPre::new).transpose().map_err(mismatch)?,
            stopping: has(Kind::Stopping).map(StopperPre::new).transpose().map_err(mismatch)?,
            info: PluginInfo {
                name: name.to_owned(),
                digest: digest(bytes),
                bytes: bytes.len(),
                description: checked.description,
                kinds: checked.kinds,
            },
            sandbox,
        })
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
        let session = Session::open(self.clone(), model, config)?;
        let usage = session.usage();
        Ok(Opened { policy: Box::new(PluginAcceptance::new(session, prompt)?), usage })
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
        let session = Session::open(self.clone(), model, config)?;
        let usage = session.usage();
        Ok(Opened { policy: Box::new(PluginRule::new(session, prompt)?), usage })
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
        let session = Session::open(self.clone(), model, config)?;
        let usage = session.usage();
        Ok(Opened { policy: Box::new(PluginStopping::new(session)), usage })
    }
}

fn compile(sandbox: &Sandbox, component: &[u8]) -> Result<Component, LoadError> {
    let compile = || Component::from_binary(&sandbox.engine, component);
    // The compiler makes no promise for hostile input, so a panic of it must not take the server down.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(compile)) {
        Ok(compiled) => compiled.map_err(|error| LoadError::CompileFailed(format!("{error:#}"))),
        Err(_) => Err(LoadError::CompileFailed("the compiler panicked".to_owned())),
    }
}

fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}
