//! Costs measured before the first request, and what follows from them: which settings each method begins with, which
//! `auto` tries, and whether the draft pays at all.

mod measure;
mod plan;

pub(crate) use measure::{TargetCosts, draft_costs, target_costs};
pub(crate) use plan::ROUND_US;
pub use plan::{Coverage, Plan, Reckoned};

use crate::by_rows::ByRows;

/// What was measured.
#[derive(Debug, Clone, Default)]
pub struct Costs {
    /// A pass of the target by rows, microseconds, on all cores that it may use.
    pub alone: ByRows,
    /// One that leaves the draft its cores.
    pub beside: ByRows,
    /// One of those with an early exit.
    pub with_exit: ByRows,
    /// A step of the draft by rows; empty without one.
    pub step: ByRows,
    /// Handing a message over and getting an answer, microseconds.
    pub rendezvous_us: f64,
}
