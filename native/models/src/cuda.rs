//! What runs on NVIDIA's devices beside candle's own operations.

mod attention;
mod outbox;
mod reduce;

pub(crate) use attention::Spans;
pub(crate) use outbox::Outbox;
