//! The clock behind the brakes: advances the engine's epoch every millisecond while an instance lives.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::EngineWeak;

const TICK: Duration = Duration::from_millis(1);

/// Owns the thread; ends it when dropped.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Keeps the clock going.
pub(crate) struct Lease(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    leases: usize,
    ended: bool,
}

impl Ticker {
    /// Starts the thread; the clock stands until the first lease.
    pub(crate) fn start(engine: EngineWeak) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let for_thread = shared.clone();
        let thread = std::thread::Builder::new().name("plugin-ticker".into()).spawn(move || for_thread.run(&engine))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Lets the clock run until the lease is dropped.
    pub(crate) fn lease(&self) -> Lease {
        self.shared.change(|state| state.leases += 1);
        Lease(self.shared.clone())
    }
}

impl Shared {
    fn run(&self, engine: &EngineWeak) {
        loop {
            {
                let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let state = self.changed.wait_while(state, |state| state.leases == 0 && !state.ended);
                if state.unwrap_or_else(PoisonError::into_inner).ended {
                    return;
                }
            }
            std::thread::sleep(TICK);
            if let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.change(|state| state.leases -= 1);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.change(|state| state.ended = true);
        if let Some(thread) = self.thread.take() {
            // It cannot have panicked, and a drop could not report it.
            let _ = thread.join();
        }
    }
}
