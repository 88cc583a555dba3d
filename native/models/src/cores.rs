//! The cores that a model works on, and the threads on them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use specula_kernels::{Isa, Team};

/// Cores of a model, numbered as the system numbers them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cores {
    /// Its own: the thread that owns it is pinned to the first, a helper to every other. Empty: that one thread, left to the
    /// scheduler.
    pub own: Vec<usize>,
    /// Those that it has besides while nobody else works on them ([`Model::spread`](crate::Model::spread)).
    pub lent: Vec<usize>,
}

/// Cores that this process may use: no more than the system grants it time for.
pub fn available_cores() -> Vec<usize> {
    let granted = std::thread::available_parallelism().map_or(1, usize::from);
    match core_affinity::get_core_ids() {
        Some(ids) if !ids.is_empty() => ids.into_iter().map(|core| core.id).take(granted).collect(),
        _ => (0..granted).collect(),
    }
}

/// Keeps the current thread on a core.
pub(crate) fn pin(core: usize) {
    // Best effort: a container may forbid it, and then the scheduler decides.
    core_affinity::set_for_current(core_affinity::CoreId { id: core });
}

/// The threads that compute with whoever owns a model.
pub(crate) struct Crew {
    /// On its own cores.
    own: Team,
    /// On those and the lent ones, if any are.
    all: Option<Spread>,
}

struct Spread {
    team: Team,
    /// Whether lent cores may be used now.
    allowed: AtomicBool,
    /// Of layers, by rows; and of heads.
    paces: Mutex<[[Pace; CLASSES]; 2]>,
}

/// A part of a pass.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    /// So many layers.
    Layers(usize),
    /// Final norm and head.
    Head,
}

/// Passes are alike whose rows have as many binary digits; there are no more than 64 rows.
const CLASSES: usize = 8;

impl Crew {
    /// No helpers.
    pub(crate) fn alone() -> Self {
        Self { own: Team::alone(Isa::best()), all: None }
    }

    /// Helpers on all cores but the first, each pinned. Those of one of the two teams sleep while the other works.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(crate) fn start(cores: &Cores) -> Result<Self, String> {
        let team = |cores: &mut dyn Iterator<Item = &usize>| {
            let births = cores.skip(1).map(|core| pinning(*core)).collect();
            Team::start(Isa::best(), births).map_err(|error| format!("no thread for the kernels: {error}"))
        };
        let own = team(&mut cores.own.iter())?;
        let all = match cores.lent.is_empty() {
            true => None,
            false => Some(Spread {
                team: team(&mut cores.own.iter().chain(&cores.lent))?,
                allowed: AtomicBool::new(false),
                paces: Mutex::default(),
            }),
        };
        Ok(Self { own, all })
    }

    pub(crate) fn isa(&self) -> Isa {
        self.own.isa()
    }

    /// Whether lent cores may be used from now on.
    pub(crate) fn spread(&self, on: bool) {
        if let Some(spread) = &self.all {
            // Only the thread that computes asks; rows are the same with either team.
            spread.allowed.store(on, Ordering::Relaxed);
        }
    }

    /// Computes a part of a pass of so many rows with the team that does it sooner: others may want the lent cores too,
    /// and an operation waits for its slowest thread.
    pub(crate) fn work<T>(&self, rows: usize, part: Part, work: impl FnOnce(&Team) -> T) -> T {
        let Some(spread) = self.all.as_ref().filter(|spread| spread.allowed.load(Ordering::Relaxed)) else {
            return work(&self.own);
        };
        let class = (rows.max(1).ilog2() as usize).min(CLASSES - 1);
        let (kind, count) = match part {
            Part::Layers(count) => (0, count.max(1)),
            Part::Head => (1, 1),
        };
        let paces = || spread.paces.lock().unwrap_or_else(PoisonError::into_inner);
        let both = paces()[kind][class].choose();
        let begin = Instant::now();
        let result = work(if both { &spread.team } else { &self.own });
        paces()[kind][class].learn(both, begin.elapsed().as_secs_f64() / count as f64);
        result
    }
}

/// How long a layer or a head takes, on one's own cores and on all.
#[derive(Debug, Default)]
struct Pace {
    own: Lately,
    all: Lately,
    chosen: u32,
}

#[derive(Debug, Default)]
struct Lately {
    seconds: f64,
    times: u32,
}

impl Pace {
    /// Times before the two are compared.
    const FIRST: u32 = 4;
    /// Choices after which the slower one is tried again.
    const AGAIN: u32 = 128;

    /// Whether to take all cores.
    fn choose(&mut self) -> bool {
        self.chosen = self.chosen.wrapping_add(1);
        if self.all.times < Self::FIRST || self.own.times < Self::FIRST {
            return self.all.times < Self::FIRST;
        }
        (self.all.seconds < self.own.seconds) != self.chosen.is_multiple_of(Self::AGAIN)
    }

    fn learn(&mut self, all: bool, seconds: f64) {
        let lately = if all { &mut self.all } else { &mut self.own };
        lately.times = lately.times.saturating_add(1);
        // The mean of the first, then of some four.
        lately.seconds += (seconds - lately.seconds) / f64::from(lately.times.min(4));
    }
}

fn pinning(core: usize) -> impl FnOnce() + Send + 'static {
    move || pin(core)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quicker_team_is_found_and_found_again() {
        let mut pace = Pace::default();
        let mut passes = |own: f64, all: f64| {
            let mut spread = 0;
            for _ in 0..1280 {
                let both = pace.choose();
                spread += usize::from(both);
                pace.learn(both, if both { all } else { own });
            }
            spread
        };
        assert!(passes(1.0, 0.6) > 1250);
        // Somebody else comes to the lent core; and goes.
        assert!(passes(1.0, 3.0) < 300);
        assert!(passes(1.0, 3.0) < 30);
        assert!(passes(1.0, 0.6) > 300);
        assert!(passes(1.0, 0.6) > 1250);
    }
}
