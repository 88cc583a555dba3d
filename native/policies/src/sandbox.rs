//! The engine all plugins of a registry run in, and the stores their instances live in.

use std::num::NonZeroUsize;
use std::sync::Arc;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Engine, Store, WasmBacktraceDetails, WasmFeatures};

use crate::bindings::offers::Offers;
use crate::host::Host;
use crate::load_error::LoadError;
use crate::ticker::{Lease, Ticker};
use crate::{Limits, ModelInfo};

/// Engine, offered imports, clock and limits.
pub(crate) struct Sandbox {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<Host>,
    pub(crate) limits: Arc<Limits>,
    ticker: Ticker,
}

impl Sandbox {
    /// Sets it up.
    pub(crate) fn new(limits: Limits) -> Result<Self, LoadError> {
        let failed = |error: &dyn std::fmt::Display| LoadError::Sandbox(error.to_string());
        let engine = Engine::new(&config(&limits)).map_err(|error| failed(&format_args!("{error:#}")))?;
        let mut linker = Linker::new(&engine);
        Offers::add_to_linker::<Host, HasSelf<Host>>(&mut linker, |host| host)
            .map_err(|error| failed(&format_args!("{error:#}")))?;
        let ticker = Ticker::start(engine.weak()).map_err(|error| failed(&error))?;
        Ok(Self { engine, linker, limits: Arc::new(limits), ticker })
    }

    /// A store for one instance, and the lease that keeps the clock going for it.
    pub(crate) fn store(&self, model: &ModelInfo) -> (Store<Host>, Lease) {
        let mut store = Store::new(&self.engine, Host::new(self.limits.clone(), model));
        store.limiter(|host| host);
        store.epoch_deadline_trap();
        store.set_hostcall_fuel(self.limits.transfer_bytes);
        store.set_max_component_handles(self.limits.handles);
        (store, self.ticker.lease())
    }
}

fn config(limits: &Limits) -> Config {
    let mut config = Config::new();
    config.wasm_component_model(true);
    // The upload checks let none of these through; off here too, no code for them is ever run.
    config.wasm_features(off(), false);
    // Not off: wasmtime's own adapters have several memories. The checks bound how many a plugin has.
    config.wasm_multi_memory(true);
    // Nothing here awaits; without it a call takes a third of the time.
    config.concurrency_support(false);
    config.consume_fuel(true).epoch_interruption(true).max_wasm_stack(limits.stack_bytes);
    config.wasm_backtrace_details(WasmBacktraceDetails::Disable).wasm_backtrace_max_frames(NonZeroUsize::new(16));
    config
}

/// Proposals that guests do without.
fn off() -> WasmFeatures {
    WasmFeatures::MEMORY64
        | WasmFeatures::RELAXED_SIMD
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::GC
        | WasmFeatures::FUNCTION_REFERENCES
        | WasmFeatures::EXCEPTIONS
        | WasmFeatures::THREADS
        | WasmFeatures::CUSTOM_PAGE_SIZES
        | WasmFeatures::WIDE_ARITHMETIC
        | WasmFeatures::STACK_SWITCHING
        | WasmFeatures::CM_ASYNC
}
