//! What this machine allows one thread.

use specula_kernels::{Isa, Team, limits};

pub(super) struct Limits {
    pub(super) isa: &'static str,
    /// Bytes a second from memory far larger than the caches.
    pub(super) read: f64,
    /// Operations a second; two for a product that is added.
    pub(super) int8: Option<f64>,
    pub(super) f32: f64,
}

/// Bytes a second when so many are read again and again: from the cache that holds them, if one does.
pub(super) fn read_again(bytes: usize) -> f64 {
    limits::read_bytes_per_second(&Team::alone(Isa::best()), bytes)
}

/// Larger than any cache that one thread has to itself.
const FAR: usize = 512 << 20;

pub(super) fn measure() -> Limits {
    let isa = Isa::best();
    Limits {
        isa: isa.name(),
        read: limits::read_bytes_per_second(&Team::alone(isa), FAR),
        int8: limits::int8_operations_per_second(isa),
        f32: limits::float_operations_per_second(isa),
    }
}
