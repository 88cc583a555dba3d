//! Waiting with an end. The bound is there to turn a hang into a failure, never to judge speed.

use std::time::Duration;

/// Far above what anything here takes, on two busy cores too.
pub const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(10);

/// What a future gives, or a failure naming what was awaited.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// Returns once a condition holds.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let held = async {
        while !condition().await {
            tokio::time::sleep(PAUSE).await;
        }
    };
    in_time(what, held).await;
}
