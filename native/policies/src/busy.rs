//! Time that the calling thread was computing. What a plugin may take is counted in it: on a busy machine much time goes by
//! in which a well-behaved guest only waits for its turn.

use std::time::Duration;

/// Since the thread began.
#[cfg(unix)]
pub(crate) fn busy() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes into `time`, which is there for that.
    match unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } {
        // Neither is negative.
        0 => Duration::new(time.tv_sec as u64, time.tv_nsec as u32),
        _ => Duration::ZERO,
    }
}

/// By the clock, where the system is not asked.
#[cfg(not(unix))]
pub(crate) fn busy() -> Duration {
    static BEGIN: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    BEGIN.elapsed()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_with_work_and_stands_in_sleep() {
        let begin = busy();
        std::thread::sleep(Duration::from_millis(50));
        assert!(busy() - begin < Duration::from_millis(25));
        while busy() - begin < Duration::from_millis(30) {
            std::hint::spin_loop();
        }
    }
}
