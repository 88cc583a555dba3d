//! Threads that own models. Candle runs row-wise operations on the current rayon pool and quantised products on one
//! process-wide pool; a model thread is a rayon pool of its own, and the process-wide pool is limited to one thread, so
//! that two models never wait for each other.

use crate::cores::pin;

/// Limits candle's process-wide pool to one thread, in which case its users run inline and take no lock. Call before
/// the first tensor and before any other thread starts.
///
/// # Safety
/// Sets environment variables, which is sound only while the process has one thread.
pub unsafe fn limit_candle_threads() {
    for name in ["CANDLE_NUM_THREADS", "RAYON_NUM_THREADS"] {
        // SAFETY: the caller guarantees that no other thread reads the environment.
        unsafe { std::env::set_var(name, "1") };
    }
}

/// A thread that owns models, pinned to a core if one is named.
#[derive(Debug)]
pub struct ModelThread {
    finished: std::sync::mpsc::Receiver<()>,
}

impl ModelThread {
    /// Runs `body` on a new thread that is the only one of its rayon pool.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn spawn(name: &str, core: Option<usize>, body: impl FnOnce() + Send + 'static) -> Result<Self, String> {
        let (done, finished) = std::sync::mpsc::sync_channel(1);
        let name = name.to_owned();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .thread_name(move |_| name.clone())
            .start_handler(move |_| {
                if let Some(core) = core {
                    pin(core);
                }
            })
            .build()
            .map_err(|e| format!("no thread for a model: {e}"))?;
        pool.spawn(move || {
            body();
            // Nobody waits if the owner is gone.
            let _ = done.send(());
        });
        Ok(Self { finished })
    }

    /// Waits until the body has returned or died.
    pub fn join(self) {
        // An error means that the body panicked and dropped its end: it has ended as well.
        let _ = self.finished.recv();
    }
}
