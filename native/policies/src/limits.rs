//! What a plugin may cost. Each bound is named in the error that it causes. Fuel lasts about a nanosecond a unit, so every
//! brake lies at tens of times its fuel: a verdict must not depend on how busy the machine is, and a busy one was seen to
//! keep a thread waiting for more than 25 ms in the middle of a call.

/// Bounds on plugins, at upload and while they run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest file, bytes.
    pub file_bytes: usize,
    /// Core modules in a component, nested ones included.
    pub core_modules: usize,
    /// Core instances in a running component.
    pub core_instances: usize,
    /// Linear memories defined in a component.
    pub memories: usize,
    /// Tables defined in a component.
    pub tables: usize,
    /// Components within components.
    pub nesting: usize,
    /// Functions defined in a component.
    pub functions: usize,
    /// Data segments of a component in sum, bytes.
    pub data_bytes: usize,
    /// Size to which a linear memory may grow, bytes.
    pub memory_bytes: usize,
    /// Entries to which a table may grow.
    pub table_elements: usize,
    /// Stack of compiled code, bytes.
    pub stack_bytes: usize,
    /// Budget of instantiation, `open` and the making of a session together.
    pub open: Budget,
    /// Budget of `adjust`.
    pub adjust: Budget,
    /// Budget of `judge`.
    pub judge: Budget,
    /// Budget of `commit` (of each piece of a long text) and of `observe`.
    pub commit: Budget,
    /// Tokens in one `commit`; longer texts come in pieces.
    pub commit_tokens: usize,
    /// Bytes that one call may hand from guest to host.
    pub transfer_bytes: usize,
    /// Live handles of resources.
    pub handles: usize,
    /// Calls into the host during one call of the guest.
    pub host_calls: u32,
    /// Tokens that one call may name in `bias` and `forbid` together.
    pub edits: usize,
    /// Tokens that one `top` or `token-bytes` may ask for.
    pub asked_tokens: usize,
    /// A message, reason or log line, bytes.
    pub line_bytes: usize,
    /// Log lines of a session in sum, bytes.
    pub log_bytes: usize,
    /// How long the calls of an opened plugin may compute in one go, beside the brake of each, milliseconds. Other
    /// generations wait for so long at worst, where there is a processor for it.
    pub burst_ms: u64,
    /// How much of that every call gives back, microseconds: what calls may take on average.
    pub pace_us: u64,
    /// Plugins that may be open at once, over all requests.
    pub live_instances: u32,
    /// Bytes of a memory, and of a table, that stay mapped when an instance goes and the next one takes its slot.
    pub resident_bytes: usize,
    /// Failures after which an acceptance policy is off for the rest of the request.
    pub strikes: u32,
}

/// What one call may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Fuel, about one unit an instruction. The limit that counts: the same verdict on an idle and on a busy machine.
    pub fuel: u64,
    /// Wall clock in milliseconds. A brake for what fuel does not see.
    pub brake_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 4 << 20,
            core_modules: 8,
            core_instances: 16,
            memories: 1,
            tables: 4,
            nesting: 4,
            functions: 20_000,
            data_bytes: 16 << 20,
            memory_bytes: 16 << 20,
            table_elements: 20_000,
            stack_bytes: 256 << 10,
            open: Budget { fuel: 50_000_000, brake_ms: 1000 },
            adjust: Budget { fuel: 5_000_000, brake_ms: 250 },
            judge: Budget { fuel: 1_000_000, brake_ms: 250 },
            commit: Budget { fuel: 2_000_000, brake_ms: 250 },
            commit_tokens: 512,
            transfer_bytes: 4 << 20,
            handles: 256,
            host_calls: 256,
            edits: 4096,
            asked_tokens: 4096,
            line_bytes: 512,
            log_bytes: 16 << 10,
            burst_ms: 250,
            pace_us: 2000,
            live_instances: 512,
            resident_bytes: 64 << 10,
            strikes: 3,
        }
    }
}
