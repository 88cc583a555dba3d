//! Why a file did not become a plugin.

/// Each names the bound, the value and the remedy where there are any; [`LoadError::code`] is the stable part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Longer than allowed.
    #[error("the file has {bytes} bytes, allowed are {limit}; strip debug information or raise the limit")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// Limit.
        limit: usize,
    },
    /// WebAssembly as text.
    #[error("the file is WebAssembly text; convert it to a binary component first (`wasm-tools parse`)")]
    TextFormat,
    /// Not WebAssembly, or malformed, or a core module without a policy's interface in it.
    #[error("not a WebAssembly component: {0}")]
    NotAComponent(String),
    /// Valid, but uses a proposal that is switched off here.
    #[error("uses a WebAssembly feature that is off here: {0}")]
    FeatureNotAllowed(String),
    /// Too many parts.
    #[error("{value} {what}, allowed are {limit}; make the plugin simpler or raise the limit")]
    StructureLimit {
        /// Which part, plural.
        what: &'static str,
        /// How many there are; counting stops at the first beyond the limit.
        value: usize,
        /// Limit.
        limit: usize,
    },
    /// Imports something that is not offered.
    #[error(
        "imports that are not offered here: {0}; offered are specula:policy types, rows and context at 0.1, no WASI"
    )]
    ImportNotAllowed(String),
    /// Uses a version of the interface that is not spoken here.
    #[error("made for {0}; this host speaks specula:policy@0.1")]
    VersionUnknown(String),
    /// Exports none of the interfaces.
    #[error("exports none of specula:policy/acceptance@0.1, sampling@0.1 and stopping@0.1, but {0}")]
    ExportMissing(String),
    /// An interface of ours with functions or types that are not ours.
    #[error("an interface does not have the types of specula:policy@0.1: {0}")]
    InterfaceMismatch(String),
    /// The compiler refused it.
    #[error("compilation failed: {0}")]
    CompileFailed(String),
    /// Compiles to more than allowed.
    #[error("compiles to {bytes} bytes of code, allowed are {limit}; make the plugin simpler or ask for larger limits")]
    CodeTooLarge {
        /// Size of the code.
        bytes: u64,
        /// Limit.
        limit: u64,
    },
    /// The schema that it exports cannot be read, or is none.
    #[error("its configuration's schema: {0}")]
    SchemaRefused(String),
    /// It broke a law in the checks of the laws, or failed in them or on recorded windows.
    #[error("self-test of {kind}, {check}: {found}")]
    SelfTestFailed {
        /// Kind that was tested.
        kind: &'static str,
        /// `open`, `pure`, `causal`, `chunk-invariant` or `fork`; a function; `reference set`.
        check: &'static str,
        /// What was found.
        found: String,
    },
    /// Not a name for a plugin.
    #[error("`{0}` is no name for a plugin; use 1 to 64 of a-z, 0-9 and -")]
    BadName(String),
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// The sandbox cannot be set up on this machine.
    #[error("the sandbox cannot be set up: {0}")]
    Sandbox(String),
}

impl LoadError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too-large",
            Self::TextFormat => "text-format",
            Self::NotAComponent(_) => "not-a-component",
            Self::FeatureNotAllowed(_) => "feature-not-allowed",
            Self::StructureLimit { .. } => "structure-limit",
            Self::ImportNotAllowed(_) => "import-not-allowed",
            Self::VersionUnknown(_) => "version-unknown",
            Self::ExportMissing(_) => "export-missing",
            Self::InterfaceMismatch(_) => "interface-mismatch",
            Self::CompileFailed(_) | Self::CodeTooLarge { .. } => "compile-failed",
            Self::SchemaRefused(_) => "schema-refused",
            Self::SelfTestFailed { .. } => "self-test-failed",
            Self::BadName(_) => "bad-name",
            Self::Unreadable(_) => "unreadable",
            Self::Sandbox(_) => "sandbox",
        }
    }
}
