//! What a plugin costs a request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters of one opened plugin; readable at any time, from any thread.
#[derive(Debug, Default)]
pub struct PluginUse {
    calls: AtomicU64,
    fuel: AtomicU64,
    nanos: AtomicU64,
    failures: AtomicU64,
}

impl PluginUse {
    /// Calls into the guest, opening included.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Fuel used.
    pub fn fuel(&self) -> u64 {
        self.fuel.load(Ordering::Relaxed)
    }

    /// Wall clock in the calls, microseconds.
    pub fn micros(&self) -> u64 {
        self.nanos() / 1000
    }

    pub(crate) fn nanos(&self) -> u64 {
        self.nanos.load(Ordering::Relaxed)
    }

    /// Calls that ended in an error: traps, exhausted limits, wrong answers, the plugin's own faults.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(crate) fn add_call(&self, fuel: u64, time: Duration) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.fuel.fetch_add(fuel, Ordering::Relaxed);
        self.nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn add_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}
