//! Waiting for a message that comes soon. The system takes tens of microseconds to wake a thread, and whoever sends to one
//! that sleeps some ten to have it woken: a round has four messages.

use std::sync::mpsc::{Receiver, RecvError, TryRecvError};
use std::time::{Duration, Instant};

/// How long a message is waited for awake. After a longer wait, waking up is a small part of it.
const AWAKE: Duration = Duration::from_millis(3);
/// Looks for a message between two offers of the core to others.
const LOOKS: usize = 64;
/// Whoever took the core for so long has work to do there: it is left to them, and the system wakes whom a message comes for.
const CROWDED: Duration = Duration::from_micros(100);

/// The next message; with `awake` it is waited for awake at first.
pub(crate) fn receive<T>(messages: &Receiver<T>, awake: bool) -> Result<T, RecvError> {
    let mut now = Instant::now();
    let until = now + AWAKE;
    while awake && now < until {
        for _ in 0..LOOKS {
            match messages.try_recv() {
                Ok(message) => return Ok(message),
                Err(TryRecvError::Disconnected) => return Err(RecvError),
                Err(TryRecvError::Empty) => std::hint::spin_loop(),
            }
        }
        let offered = Instant::now();
        std::thread::yield_now();
        now = Instant::now();
        if now - offered > CROWDED {
            break;
        }
    }
    messages.recv()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_message_is_received_however_long_it_takes() {
        for (awake, wait) in [(true, 0), (true, 1), (true, 20), (false, 1)] {
            let (sender, receiver) = channel();
            let sends = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(wait));
                sender.send(wait)
            });
            assert_eq!(receive(&receiver, awake), Ok(wait));
            assert!(sends.join().is_ok_and(|sent| sent.is_ok()));
            assert_eq!(receive(&receiver, awake), Err(RecvError), "nobody is left to send");
        }
    }
}
