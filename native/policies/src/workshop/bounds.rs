//! What a process that examines plugins gives up, for good, before it reads the first byte.

use std::io;

use crate::class::ExamLimits;

/// Facts stand before the compiled code in what is written.
const FACTS_BYTES: u64 = 1 << 20;

/// A tenth of a core's worth of priority, so that generations go on and an author does not wait for ever.
#[cfg(target_os = "linux")]
const NICE: libc::c_int = 10;

/// Low priority; bounded memory, processor time, output; no end after its parent's.
#[cfg(target_os = "linux")]
pub(super) fn accept(exam: &ExamLimits) -> io::Result<()> {
    // SAFETY: these take numbers alone. `nice` may rightly give −1, but not for rising.
    done(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    done(unsafe { libc::nice(NICE) })?;
    // Of memory only what can be written: address space is reserved generously for guests' memories, and costs nothing.
    for (resource, limit) in [
        (libc::RLIMIT_DATA, exam.memory_bytes),
        (libc::RLIMIT_CPU, exam.cpu_s),
        (libc::RLIMIT_FSIZE, exam.code_bytes + FACTS_BYTES),
        (libc::RLIMIT_NOFILE, 16),
        (libc::RLIMIT_CORE, 0),
    ] {
        let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
        // SAFETY: the struct lives for the call.
        done(unsafe { libc::setrlimit(resource, &raw const limit) })?;
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn done(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Elsewhere the clock and the checks bound it.
#[cfg(not(target_os = "linux"))]
pub(super) fn accept(exam: &ExamLimits) -> io::Result<()> {
    let _ = exam.code_bytes + FACTS_BYTES;
    Ok(())
}
