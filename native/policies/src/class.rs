//! The two sets of limits that an operator can grant: for compiled languages, and for plugins that bring an interpreter.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Budget, Limits};

/// A set of limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Enough for plugins in compiled languages, which need some tens of KiB.
    #[default]
    Standard,
    /// Enough for plugins that bring an interpreter: JavaScript, Python.
    Interpreter,
}

/// What the examination of a plugin may cost; the process that does it is killed beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExamLimits {
    /// Time by the clock. A brake for what processor time does not see: on a busy machine a process of low priority waits.
    pub wall: Duration,
    /// Processor time, seconds.
    pub cpu_s: u64,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Compiled code, bytes.
    pub code_bytes: u64,
}

impl Class {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Standard, Self::Interpreter];

    /// Its name on the wire and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Interpreter => "interpreter",
        }
    }

    /// The class of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }

    /// What a plugin may be and cost.
    pub fn limits(self) -> Limits {
        let standard = Limits::default();
        match self {
            Self::Standard => standard,
            // Seen: QuickJS with 11 core modules in 50 instances and 3 memories, CPython with 38 in 108.
            Self::Interpreter => Limits {
                file_bytes: 32 << 20,
                core_modules: 64,
                core_instances: 160,
                memories: 4,
                tables: 40,
                nesting: 32,
                functions: 60_000,
                data_bytes: 32 << 20,
                memory_bytes: 64 << 20,
                open: Budget { fuel: 1_000_000_000, brake_ms: 10_000 },
                adjust: Budget { fuel: 20_000_000, brake_ms: 500 },
                judge: Budget { fuel: 20_000_000, brake_ms: 500 },
                commit: Budget { fuel: 20_000_000, brake_ms: 500 },
                ..standard
            },
        }
    }

    /// What its examination may cost.
    pub fn exam(self) -> ExamLimits {
        match self {
            Self::Standard => {
                ExamLimits { wall: Duration::from_secs(60), cpu_s: 10, memory_bytes: 1 << 30, code_bytes: 32 << 20 }
            }
            Self::Interpreter => {
                ExamLimits { wall: Duration::from_secs(900), cpu_s: 120, memory_bytes: 4 << 30, code_bytes: 96 << 20 }
            }
        }
    }
}
