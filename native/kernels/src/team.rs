//! The threads that work on one operation together. Tasks are handed out as threads come for them, so that a thread that
//! is late, because other work holds its core, delays nobody: the caller does what nobody has begun.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::isa::Isa;

/// A caller and its helpers, and the instructions they use.
pub struct Team {
    isa: Isa,
    helpers: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
    /// Held during an operation: a second caller works alone meanwhile.
    busy: AtomicBool,
}

/// What one operation asks of every thread.
type Work<'a> = dyn Fn(Range<usize>) + Sync + 'a;

struct Job {
    work: *const Work<'static>,
    tasks: usize,
    /// Tasks taken at a time.
    grain: usize,
    next: AtomicUsize,
    panicked: AtomicBool,
}

struct Shared {
    /// Threads inside the current job (low bits), whether one may enter ([`OPEN`]), and the number of the job above.
    state: AtomicU64,
    job: AtomicPtr<Job>,
    sleep: Mutex<()>,
    wake: Condvar,
    sleepers: AtomicUsize,
}

const INSIDE: u64 = 0xffff;
const OPEN: u64 = 1 << 16;
const NUMBER: u64 = 1 << 17;
/// The team ends.
const ENDED: u64 = 1 << 63;
/// How often a helper looks for the next operation before it sleeps: some 20 µs, longer than the gaps inside a pass.
const LOOKS: usize = 4000;

impl Team {
    /// A caller without helpers.
    pub fn alone(isa: Isa) -> Self {
        Self::start(isa, Vec::<fn()>::new()).unwrap_or_else(|_| unreachable!("no thread is started"))
    }

    /// One helper for every entry of `births`, which runs first on the new thread (to pin it, say).
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(isa: Isa, births: Vec<impl FnOnce() + Send + 'static>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            sleepers: AtomicUsize::new(0),
        });
        let mut team = Self { isa, helpers: Vec::new(), shared, busy: AtomicBool::new(false) };
        for birth in births {
            let shared = team.shared.clone();
            let body = move || {
                birth();
                shared.help();
            };
            team.helpers.push(std::thread::Builder::new().name("kernels".into()).spawn(body)?);
        }
        Ok(team)
    }

    /// The instructions in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads at work, the caller included.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Runs `work` over all of `0..tasks`, in pieces of up to `grain`, each piece once; returns when all are done.
    ///
    /// # Panics
    /// If `work` does on any thread.
    pub(crate) fn run(&self, tasks: usize, grain: usize, work: &Work<'_>) {
        if self.helpers.is_empty() || tasks <= grain || self.busy.swap(true, Ordering::Acquire) {
            work(0..tasks);
            return;
        }
        // SAFETY: the lifetime is extended only on paper: `Close` waits, before this function returns or unwinds, until
        // no helper is inside the job, and none can enter afterwards.
        let work: *const Work<'static> = unsafe { std::mem::transmute(std::ptr::from_ref(work)) };
        let job = Job { work, tasks, grain, next: AtomicUsize::new(0), panicked: AtomicBool::new(false) };
        let close = Close { team: self };
        self.shared.open(&job);
        job.take();
        drop(close);
        assert!(!job.panicked.load(Ordering::Relaxed), "a helper thread panicked");
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.state.fetch_or(ENDED, Ordering::SeqCst);
        drop(self.shared.sleep());
        self.shared.wake.notify_all();
        for helper in self.helpers.drain(..) {
            // A helper catches what the work throws.
            let _ = helper.join();
        }
    }
}

/// Ends the current job, also when the caller unwinds.
struct Close<'a> {
    team: &'a Team,
}

impl Drop for Close<'_> {
    fn drop(&mut self) {
        let state = &self.team.shared.state;
        state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut looks = 0;
        while state.load(Ordering::Acquire) & INSIDE != 0 {
            wait_a_little(&mut looks);
        }
        self.team.busy.store(false, Ordering::Release);
    }
}

fn wait_a_little(looks: &mut usize) {
    *looks += 1;
    if *looks < LOOKS {
        std::hint::spin_loop();
    } else {
        // The one waited for may need this very core.
        std::thread::yield_now();
    }
}

impl Job {
    fn take(&self) {
        // SAFETY: the caller of `run` holds the work until nobody is inside the job.
        let work = unsafe { &*self.work };
        loop {
            let from = self.next.fetch_add(self.grain, Ordering::Relaxed);
            if from >= self.tasks {
                return;
            }
            work(from..(from + self.grain).min(self.tasks));
        }
    }
}

impl Shared {
    fn sleep(&self) -> MutexGuard<'_, ()> {
        self.sleep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, job: &Job) {
        self.job.store(std::ptr::from_ref(job).cast_mut(), Ordering::Relaxed);
        let state = self.state.load(Ordering::Relaxed);
        // Sequentially consistent with the look of a helper that falls asleep: one of the two sees the other.
        self.state.store(((state & !INSIDE) + NUMBER) | OPEN, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(self.sleep());
            self.wake.notify_all();
        }
    }

    /// A helper's life.
    fn help(&self) {
        let mut done = 0;
        while let Some(state) = self.next_job(done) {
            done = state / NUMBER;
            if state & OPEN == 0 || !self.enter(state) {
                continue;
            }
            // SAFETY: published before the job was opened; having entered, this thread keeps it alive.
            let job = unsafe { &*self.job.load(Ordering::Relaxed) };
            if catch_unwind(AssertUnwindSafe(|| job.take())).is_err() {
                job.panicked.store(true, Ordering::Relaxed);
            }
            self.state.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Enters the job that `state` shows; false if it closed.
    fn enter(&self, state: u64) -> bool {
        let same = |now: u64| (now / NUMBER == state / NUMBER && now & OPEN != 0).then_some(now + 1);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, same).is_ok()
    }

    /// Waits for a job later than number `done`; `None` at the end of the team.
    fn next_job(&self, done: u64) -> Option<u64> {
        for _ in 0..LOOKS {
            let state = self.state.load(Ordering::Acquire);
            if state / NUMBER != done {
                return (state & ENDED == 0).then_some(state);
            }
            std::hint::spin_loop();
        }
        let mut sleep = self.sleep();
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let mut state = self.state.load(Ordering::SeqCst);
        while state / NUMBER == done {
            sleep = self.wake.wait(sleep).unwrap_or_else(PoisonError::into_inner);
            state = self.state.load(Ordering::SeqCst);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        (state & ENDED == 0).then_some(state)
    }
}

/// A slice that several threads write, each its own part.
#[derive(Clone, Copy)]
pub(crate) struct Parts<T> {
    start: *mut T,
    len: usize,
}

// SAFETY: `part` demands that parts do not overlap.
unsafe impl<T: Send> Send for Parts<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Parts<T> {}

impl<T> Parts<T> {
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len() }
    }

    /// The part at `range`.
    ///
    /// # Safety
    /// The slice outlives the part, and no other part that overlaps it is in use.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part {range:?} of {}", self.len);
        // SAFETY: inside the slice; the caller keeps parts apart.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn team(helpers: usize) -> Team {
        Team::start(Isa::PORTABLE, (0..helpers).map(|_| || {}).collect()).expect("threads")
    }

    #[test]
    fn every_task_runs_once() {
        for helpers in [0, 1, 3] {
            let team = team(helpers);
            for round in 0..300 {
                let tasks = round % 37;
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                team.run(tasks, 1 + round % 4, &|range| {
                    for i in range {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                    }
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{helpers} helpers, {tasks} tasks");
            }
        }
    }

    #[test]
    fn callers_share_a_team() {
        let team = team(1);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let sum = AtomicUsize::new(0);
                        team.run(50, 3, &|range| {
                            sum.fetch_add(range.sum::<usize>(), Ordering::Relaxed);
                        });
                        assert_eq!(sum.into_inner(), 1225);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_lives_on() {
        let team = team(2);
        let thrown = catch_unwind(AssertUnwindSafe(|| team.run(64, 1, &|range| assert!(!range.contains(&40)))));
        assert!(thrown.is_err());
        let sum = AtomicUsize::new(0);
        team.run(64, 1, &|range| {
            sum.fetch_add(range.len(), Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 64);
    }
}
