//! What all handlers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use specula_engine::Refused;
use tokio::sync::{Semaphore, watch};

use crate::assets::Page;
use crate::body::BodyLimits;
use crate::config::ServerConfig;
use crate::errors::Fault;
use crate::metrics::RequestCounts;
use crate::origin::Origins;
use crate::seam::Engine;

/// Bodies decoded and tokenised at once. A body of 1 MiB can cost a tenth of a second and, as a tree of JSON values,
/// thirty times its size: neither may be multiplied by the number of connections.
const DECODERS: usize = 4;
/// Uploads read and examined at once.
const UPLOADS: usize = 8;

/// How far the server's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Takes requests.
    Open,
    /// Finishes what runs, refuses new generations.
    Draining,
    /// Lets go of everything.
    Closed,
}

pub(crate) struct App {
    pub(crate) engine: Engine,
    pub(crate) config: ServerConfig,
    pub(crate) page: Page,
    pub(crate) origins: Origins,
    pub(crate) requests: RequestCounts,
    pub(crate) phase: watch::Sender<Phase>,
    /// Seconds since the epoch at which the server started.
    pub(crate) started_s: u64,
    decoders: Arc<Semaphore>,
    pub(crate) upload_places: Arc<Semaphore>,
    serial: AtomicU64,
}

impl App {
    pub(crate) fn new(config: ServerConfig, engine: Engine, page: Page, origins: Origins) -> Self {
        Self {
            engine,
            config,
            page,
            origins,
            requests: RequestCounts::default(),
            phase: watch::Sender::new(Phase::Open),
            started_s: now_s(),
            decoders: Arc::new(Semaphore::new(DECODERS)),
            upload_places: Arc::new(Semaphore::new(UPLOADS)),
            serial: AtomicU64::new(0),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub(crate) fn body_limits(&self) -> BodyLimits {
        BodyLimits { bytes: self.config.max_body_bytes, time: self.config.body_timeout }
    }

    /// An id that no other answer of this server, nor of one started in another second, has.
    pub(crate) fn next_id(&self, prefix: &str) -> String {
        format!("{prefix}-{:08x}{:06x}", self.started_s, self.serial.fetch_add(1, Ordering::Relaxed))
    }

    /// Runs work that computes for a while away from the threads that serve connections. The permit goes with the work, so
    /// that a client who hangs up does not make room for more.
    pub(crate) async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let permit = self.decoders.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Fault::Internal("the decoders are closed"))?;
        let engine = self.engine.clone();
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&engine);
            drop(permit);
            result
        });
        done.await.map_err(|error| {
            // Cancelled is what never began: the runtime is being taken down, after the drain.
            if error.is_cancelled() { Refused::Draining.into() } else { Fault::Internal("a decoder panicked") }
        })
    }
}

/// Seconds since the epoch.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
