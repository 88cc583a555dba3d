//! The engine all plugins of a registry run in, and the stores their instances live in.

use std::num::NonZeroUsize;
use std::sync::Arc;

use wasmtime::component::Linker;
use wasmtime::{Config, Engine, PoolingAllocationConfig, Store, WasmBacktraceDetails, WasmFeatures};

use crate::host::Host;
use crate::load_error::LoadError;
use crate::ticker::{Lease, Ticker};
use crate::versions::VERSIONS;
use crate::{Budget, Limits, ModelInfo};

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
        let pooled = Engine::new(config(&limits).allocation_strategy(pool(&limits)));
        let engine = pooled.or_else(|error| {
            // Where address space is short (a limit on it, say) every instance gets its own mapping when it is made.
            tracing::warn!("plugins run without a pool of instances: {error:#}");
            Engine::new(&config(&limits))
        });
        let engine = engine.map_err(|error| failed(&format_args!("{error:#}")))?;
        let mut linker = Linker::new(&engine);
        for version in VERSIONS {
            (version.offer)(&mut linker).map_err(|error| failed(&format_args!("{error:#}")))?;
        }
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

/// Sets what the next call may use.
pub(crate) fn meter(store: &mut Store<Host>, budget: Budget) -> wasmtime::Result<()> {
    // One tick more, because the current one is partly over.
    store.set_epoch_deadline(budget.brake_ms.saturating_add(1));
    store.set_fuel(budget.fuel)
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

/// Slots for the instances, so that one comes and goes without a system call for each of its parts, and all of them together
/// are bounded.
fn pool(limits: &Limits) -> PoolingAllocationConfig {
    let bound = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let (instances, memories, tables) = (bound(limits.core_instances), bound(limits.memories), bound(limits.tables));
    let all = |each: u32| each.saturating_mul(limits.live_instances);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(limits.live_instances).total_core_instances(all(instances));
    pool.total_memories(all(memories)).total_tables(all(tables));
    pool.max_core_instances_per_component(instances);
    pool.max_memories_per_component(memories).max_tables_per_component(tables);
    // Memories are bounded by the limiter, which says so; a slot has room for any.
    pool.max_tables_per_module(tables).table_elements(limits.table_elements);
    pool.linear_memory_keep_resident(limits.resident_bytes).table_keep_resident(limits.resident_bytes);
    pool
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
