//! One instance of a plugin in the service of one request: every call is prepared, bounded, measured and explained here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use specula_decoding::{PolicyError, TokenId};
use wasmtime::Store;
use wasmtime::component::ResourceAny;

use crate::bindings::offers::specula::policy::types;
use crate::explain::explain;
use crate::host::Host;
use crate::text::one_line;
use crate::ticker::Lease;
use crate::usage::PluginUse;
use crate::{Budget, Kind, Limits, ModelInfo, Plugin};

/// The exports of one kind, instantiated.
pub(crate) trait World: Sized + Send {
    /// The kind.
    const KIND: Kind;

    /// Instantiates a plugin that is of this kind.
    fn instantiate(plugin: &Plugin, store: &mut Store<Host>) -> wasmtime::Result<Self>;

    /// Calls `open`.
    fn open(&self, store: &mut Store<Host>, model: &types::ModelInfo, config: &str) -> Outcome<()>;

    /// Makes a session.
    fn session(&self, store: &mut Store<Host>) -> wasmtime::Result<ResourceAny>;
}

/// What a guest's function comes to: no return, its own fault, or a value.
pub(crate) type Outcome<T> = wasmtime::Result<Result<T, types::Fault>>;

/// A plugin opened as one kind. Its instance is dropped at the first trap or breach.
pub(crate) struct Session<W> {
    plugin: Arc<Plugin>,
    model: ModelInfo,
    config: String,
    usage: Arc<PluginUse>,
    live: Option<Live<W>>,
}

struct Live<W> {
    store: Store<Host>,
    /// Set once opened.
    opened: Option<(W, ResourceAny)>,
    _ticking: Lease,
}

impl<W: World> Session<W> {
    /// Instantiates and opens.
    pub(crate) fn open(plugin: Arc<Plugin>, model: &ModelInfo, config: &Value) -> Result<Self, PolicyError> {
        let (model, config) = (model.clone(), config.to_string());
        let mut session = Self { plugin, model, config, usage: Arc::default(), live: None };
        if !session.plugin.info().kinds.contains(&W::KIND) {
            return Err(session.error("wrong-kind", format!("it has no {} interface", W::KIND.as_str())));
        }
        session.reopen()?;
        Ok(session)
    }

    /// A fresh instance, opened, before the first token.
    pub(crate) fn reopen(&mut self) -> Result<(), PolicyError> {
        let (store, ticking) = self.plugin.sandbox.store(&self.model);
        self.live = Some(Live { store, opened: None, _ticking: ticking });
        let model = types::ModelInfo {
            vocab_size: self.model.vocab_size,
            end_tokens: self.model.end_tokens.clone(),
            max_window: self.model.max_window,
        };
        let (plugin, config) = (self.plugin.clone(), std::mem::take(&mut self.config));
        let opened = self.run(self.limits().open, |live| {
            let world = W::instantiate(&plugin, &mut live.store)?;
            if let Err(fault) = world.open(&mut live.store, &model, &config)? {
                return Ok(Err(fault));
            }
            let session = world.session(&mut live.store)?;
            live.opened = Some((world, session));
            Ok(Ok(()))
        });
        self.config = config;
        opened.map_err(|error| self.opening_error(error))
    }

    /// Calls a function of the session.
    pub(crate) fn call<T>(
        &mut self,
        budget: Budget,
        call: impl FnOnce(&W, ResourceAny, &mut Store<Host>) -> Outcome<T>,
    ) -> Result<T, PolicyError> {
        self.run(budget, |live| match &live.opened {
            Some((world, session)) => call(world, *session, &mut live.store),
            None => wasmtime::bail!("the session was not opened"),
        })
    }

    /// Remembers tokens as committed; the guest was told.
    pub(crate) fn remember(&mut self, tokens: &[TokenId]) {
        if let Some(live) = &mut self.live {
            live.store.data_mut().history.extend_from_slice(tokens);
        }
    }

    /// Drops the instance because the guest's answer breaks the contract.
    pub(crate) fn breach(&mut self, code: &str, message: String) -> PolicyError {
        self.live = None;
        self.usage.add_failure();
        self.error(code, message)
    }

    /// Whether there is an instance.
    pub(crate) fn is_live(&self) -> bool {
        self.live.is_some()
    }

    pub(crate) fn name(&self) -> &str {
        &self.plugin.info().name
    }

    pub(crate) fn usage(&self) -> Arc<PluginUse> {
        self.usage.clone()
    }

    pub(crate) fn limits(&self) -> Arc<Limits> {
        self.plugin.sandbox.limits.clone()
    }

    pub(crate) fn error(&self, code: &str, message: String) -> PolicyError {
        PolicyError { policy: self.name().to_owned(), code: code.to_owned(), message }
    }

    fn run<T>(&mut self, budget: Budget, work: impl FnOnce(&mut Live<W>) -> Outcome<T>) -> Result<T, PolicyError> {
        let Some(live) = &mut self.live else {
            return Err(self.error("instance-dead", "an earlier failure ended this plugin's instance".to_owned()));
        };
        live.store.data_mut().begin_call();
        // One tick more, because the current one is partly over.
        live.store.set_epoch_deadline(budget.brake_ms.saturating_add(1));
        let metered = live.store.set_fuel(budget.fuel);
        let start = Instant::now();
        // The host's functions do not panic on guests' data; should they, only this instance is lost.
        let outcome = catch_unwind(AssertUnwindSafe(|| metered.and_then(|()| work(live))));
        let used = budget.fuel.saturating_sub(live.store.get_fuel().unwrap_or(0));
        self.usage.add_call(used, start.elapsed());
        match outcome {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(fault))) => {
                self.usage.add_failure();
                let message = one_line(&fault.message, self.limits().line_bytes);
                Err(self.error(&format!("fault-{}", fault.code), message))
            }
            Ok(Err(trap)) => {
                let (code, mut message) = explain(&trap, budget);
                if let Some(line) = live.store.data_mut().last_line.take() {
                    message = format!("{message}; last log line: {line}");
                }
                let message = one_line(&message, 2 * self.limits().line_bytes);
                Err(self.breach(code, message))
            }
            Err(_) => Err(self.breach("host-bug", "the host panicked while serving this plugin".to_owned())),
        }
    }

    /// Faults of `open` have codes of their own.
    fn opening_error(&mut self, error: PolicyError) -> PolicyError {
        self.live = None;
        let code = match error.code.as_str() {
            "fault-1" => "bad-config",
            "fault-2" => "model-mismatch",
            _ => return error,
        };
        PolicyError { code: code.to_owned(), ..error }
    }
}
