//! How long a device may take before it counts as hung.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::admission::Trial;

/// So many times what its trial's slowest step took…
const TIMES: u32 = 20;
/// …but not less: the machine may be busy.
const LEAST: Duration = Duration::from_secs(2);
/// Rows of the largest step that a trial times.
const ROWS: usize = 8;

/// What a device may take.
#[derive(Debug, Clone)]
pub struct Patience {
    /// For every 8 rows begun.
    pub step: Duration,
    /// For a graph that is compiled on the way, beside that.
    pub compiling: Duration,
    /// Whether one is being compiled ([`Graphs::compiling`](crate::Graphs::compiling)).
    pub compiles: Arc<AtomicBool>,
}

impl Patience {
    /// With a device that passed its trial.
    pub fn after(trial: &Trial, compiling: Duration, compiles: Arc<AtomicBool>) -> Self {
        let slowest = trial.steps.iter().map(|(_, device, _)| *device).fold(0.0, f64::max);
        Self { step: LEAST.max(Duration::from_secs_f64(slowest / 1e6) * TIMES), compiling, compiles }
    }

    /// What so many rows may take, nothing being compiled.
    pub(crate) fn with(&self, rows: usize) -> Duration {
        self.step.saturating_mul(rows.div_ceil(ROWS).max(1) as u32)
    }

    /// Whether a device that has been at something for so long may have more time.
    pub(crate) fn has_more(&self, since: Duration) -> bool {
        self.compiles.load(Ordering::Relaxed) && since < self.compiling
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_devices_have_more_time_and_so_have_many_rows() {
        let after = |us| {
            let trial = Trial { steps: vec![(1, us / 2.0, 1.0), (8, us, 1.0)], ..Trial::default() };
            Patience::after(&trial, Duration::from_secs(60), Arc::default())
        };
        assert_eq!(after(100.0).with(1), LEAST);
        assert_eq!(after(1e6).with(8), Duration::from_secs(20));
        assert_eq!(after(1e6).with(64), Duration::from_secs(160));
    }

    #[test]
    fn only_what_is_compiled_has_that_time() {
        let compiles = Arc::new(AtomicBool::new(false));
        let patience = Patience::after(&Trial::default(), Duration::from_secs(60), compiles.clone());
        assert!(!patience.has_more(LEAST));
        compiles.store(true, Ordering::Relaxed);
        assert!(patience.has_more(LEAST) && !patience.has_more(Duration::from_secs(60)));
    }
}
