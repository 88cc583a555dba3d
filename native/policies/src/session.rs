//! One instance of a plugin in the service of one request: every call is prepared, bounded, measured and explained here.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use specula_decoding::{PolicyError, TokenId};
use wasmtime::Store;
use wasmtime::component::ResourceAny;

use crate::busy::busy;
use crate::explain::explain;
use crate::host::Host;
use crate::plugin::Opening;
use crate::sandbox::meter;
use crate::text::one_line;
use crate::ticker::Lease;
use crate::usage::PluginUse;
use crate::world::{Outcome, World, types};
use crate::{Budget, Limits, ModelInfo, Plugin};

/// A plugin opened as one kind. Its instance is dropped at the first trap or breach.
pub(crate) struct Session<W: World> {
    plugin: Arc<Plugin>,
    pre: W::Pre,
    model: ModelInfo,
    config: String,
    prompt_tokens: usize,
    usage: Arc<PluginUse>,
    /// Time that its calls may still take in one go; `None` until it is in use.
    left: Option<Duration>,
    live: Option<Live<W>>,
}

struct Live<W> {
    store: Store<Host>,
    /// Set once opened.
    opened: Option<Opened<W>>,
    _ticking: Lease,
}

struct Opened<W> {
    world: W,
    /// The session in use.
    session: ResourceAny,
    /// Sessions that were left by [`Forks::fork`], in order; only the checks of the laws make any.
    left: Vec<ResourceAny>,
}

/// Going on in a copy of the session, and coming back.
pub(crate) trait Forks {
    /// Forks the session in use and goes on in the fork.
    ///
    /// # Errors
    /// The plugin's failure.
    fn fork(&mut self) -> Result<(), PolicyError>;

    /// Goes back to the session that the latest fork was made of.
    fn back(&mut self);
}

impl<W: World> Session<W> {
    /// Instantiates and opens.
    pub(crate) fn open(pre: W::Pre, opening: &Opening<'_>) -> Result<Self, PolicyError> {
        let mut session = Self {
            plugin: opening.plugin.clone(),
            pre,
            model: opening.model.clone(),
            config: opening.config.to_string(),
            prompt_tokens: opening.prompt.prompt_tokens,
            usage: Arc::default(),
            left: None,
            live: None,
        };
        session.reopen()?;
        Ok(session)
    }

    /// A fresh instance, opened, before the first token.
    pub(crate) fn reopen(&mut self) -> Result<(), PolicyError> {
        let (mut store, ticking) = self.plugin.sandbox.store(&self.model);
        store.data_mut().prompt_tokens = self.prompt_tokens;
        self.live = Some(Live { store, opened: None, _ticking: ticking });
        let model = types::ModelInfo {
            vocab_size: self.model.vocab_size,
            end_tokens: self.model.end_tokens.clone(),
            max_window: self.model.max_window,
        };
        let (pre, config) = (self.pre.clone(), std::mem::take(&mut self.config));
        let opened = self.run(self.limits().open, |live| {
            let world = W::instantiate(&pre, &mut live.store)?;
            if let Err(fault) = world.open(&mut live.store, &model, &config)? {
                return Ok(Err(fault));
            }
            let session = world.session(&mut live.store)?;
            live.opened = Some(Opened { world, session, left: Vec::new() });
            Ok(Ok(()))
        });
        self.config = config;
        opened.map_err(|error| self.opening_error(error))
    }

    /// From now on others wait while it is called.
    pub(crate) fn in_use(&mut self) {
        self.left = Some(Duration::from_millis(self.limits().burst_ms));
    }

    /// Calls a function of the session.
    pub(crate) fn call<T>(
        &mut self,
        budget: Budget,
        call: impl FnOnce(&W, ResourceAny, &mut Store<Host>) -> Outcome<T>,
    ) -> Result<T, PolicyError> {
        self.run(budget, |live| match &live.opened {
            Some(opened) => call(&opened.world, opened.session, &mut live.store),
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

    /// Forks the session in use and goes on in the fork.
    pub(crate) fn fork(&mut self) -> Result<(), PolicyError> {
        let forked = self.call(self.limits().open, |world, session, store| Ok(Ok(world.fork(store, session)?)))?;
        if let Some(opened) = self.live.as_mut().and_then(|live| live.opened.as_mut()) {
            opened.left.push(std::mem::replace(&mut opened.session, forked));
        }
        Ok(())
    }

    /// Goes back to the session that the latest fork was made of.
    pub(crate) fn back(&mut self) {
        if let Some(opened) = self.live.as_mut().and_then(|live| live.opened.as_mut())
            && let Some(session) = opened.left.pop()
        {
            opened.session = session;
        }
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

    /// What a call may use, given what earlier ones took. Before it is open nobody waits for the plugin but its own request.
    fn paced(&self, budget: Budget) -> Budget {
        match self.left {
            Some(left) => Budget { brake_ms: budget.brake_ms.min(left.as_millis() as u64), ..budget },
            None => budget,
        }
    }

    fn run<T>(&mut self, budget: Budget, work: impl FnOnce(&mut Live<W>) -> Outcome<T>) -> Result<T, PolicyError> {
        let budget = self.paced(budget);
        let Some(live) = &mut self.live else {
            return Err(self.error("instance-dead", "an earlier failure ended this plugin's instance".to_owned()));
        };
        live.store.data_mut().begin_call();
        let metered = meter(&mut live.store, budget);
        let burst = Duration::from_millis(self.plugin.sandbox.limits.burst_ms);
        // To ask for it costs as much as a quick call, so only those are asked whose forerunners took long.
        let busy_before = self.left.filter(|left| *left < burst).map(|_| busy());
        let start = Instant::now();
        // The host's functions do not panic on guests' data; should they, only this instance is lost.
        let outcome = catch_unwind(AssertUnwindSafe(|| metered.and_then(|()| work(live))));
        let used = budget.fuel.saturating_sub(live.store.get_fuel().unwrap_or(0));
        let took = start.elapsed();
        self.usage.add_call(used, took);
        if let Some(left) = &mut self.left {
            let pace = Duration::from_micros(self.plugin.sandbox.limits.pace_us);
            let computed = busy_before.map_or(took, |before| busy().saturating_sub(before));
            *left = left.saturating_sub(computed).saturating_add(pace).min(burst);
        }
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
                let message = one_line(&message, self.limits().line_bytes.saturating_mul(2));
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
