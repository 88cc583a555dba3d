//! From a failed call to a stable code and a line for the plugin's author.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::arithmetic_side_effects)]

use wasmtime::{Error, PoolConcurrencyLimitError, Trap, WasmBacktrace};

use crate::Budget;

/// A rule of the contract that the guest broke; travels through wasmtime as the cause of a trap.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Breach {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

/// Code and message of a call that did not return.
pub(crate) fn explain(error: &Error, budget: Budget) -> (&'static str, String) {
    let (code, message) = cause(error, budget);
    let frame = error.downcast_ref::<WasmBacktrace>().and_then(|trace| trace.frames().first()?.func_name());
    match frame {
        Some(function) => (code, format!("{message}, in {function}")),
        None => (code, message),
    }
}

fn cause(error: &Error, budget: Budget) -> (&'static str, String) {
    if let Some(breach) = error.downcast_ref::<Breach>() {
        return (breach.code, breach.message.clone());
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return ("pool-exhausted", "as many plugins are open as may be; try again".to_owned());
    }
    let Some(trap) = error.downcast_ref::<Trap>() else {
        // Two limits of wasmtime's own that have no type.
        let text = error.root_cause().to_string();
        let code = match &text {
            text if text.contains("hostcalls has been exhausted") => "host-bytes",
            text if text.contains("handle limit exceeded") => "handles",
            _ => "trap",
        };
        return (code, text);
    };
    let code = match trap {
        Trap::OutOfFuel => return ("fuel", format!("used up its {} units of fuel", budget.fuel)),
        Trap::Interrupt => return ("deadline", format!("took longer than {} ms", budget.brake_ms)),
        Trap::StackOverflow => "stack",
        Trap::UnreachableCodeReached => "trap-unreachable",
        Trap::MemoryOutOfBounds | Trap::HeapMisaligned => "trap-memory",
        Trap::TableOutOfBounds => "trap-table",
        Trap::IntegerOverflow | Trap::IntegerDivisionByZero | Trap::BadConversionToInteger => "trap-arithmetic",
        Trap::IndirectCallToNull | Trap::BadSignature | Trap::NullReference => "trap-indirect",
        _ => "trap",
    };
    (code, trap.to_string())
}
