//! The thread that calls a device. A call that never returns cannot be ended; here nobody waits for it but a thread that has
//! nothing else to do. It stays, with what the call holds, until the process ends, which waits for it neither.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Instant;

use specula_decoding::ModelError;

use crate::patience::Patience;

type Job = Box<dyn FnOnce() + Send>;

/// Calls made one after the other. Whoever asks for one waits for it, so few are ever queued.
pub(crate) struct Caller {
    jobs: Sender<Job>,
    patience: Patience,
}

impl Caller {
    /// On the cores of the thread that asks for it.
    pub(crate) fn new(patience: Patience) -> io::Result<Self> {
        let (jobs, queue): (_, Receiver<Job>) = channel();
        let call = move || queue.iter().for_each(|job| job());
        thread::Builder::new().name("draft-device".into()).spawn(call)?;
        Ok(Self { jobs, patience })
    }

    /// What a call for so many rows gives.
    ///
    /// # Errors
    /// If it has not come back in time, or has brought its thread down.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        rows: usize,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ModelError> {
        let begin = Instant::now();
        let (answer, answered) = channel();
        // Who does not wait any more does not listen either; of a thread that is gone the channel tells.
        let _ = self.jobs.send(Box::new(move || drop(answer.send(call()))));
        loop {
            match answered.recv_timeout(self.patience.with(rows)) {
                Ok(done) => return Ok(done),
                Err(RecvTimeoutError::Timeout) if self.patience.has_more(begin.elapsed()) => {}
                Err(RecvTimeoutError::Timeout) => {
                    let waited = begin.elapsed().as_secs_f64();
                    return Err(ModelError(format!("it hangs: {rows} rows are not done after {waited:.1} s")));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(ModelError("it brought its thread down".into())),
            }
        }
    }
}
