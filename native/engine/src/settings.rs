//! Settings of speculation: what a request may say, and what is in force.

use specula_decoding::branches::Allocation;

/// How windows come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// Whichever of the others commits most tokens a second, round by round.
    Auto,
    /// Window 0: the target alone.
    None,
    /// A serial draft model before each pass.
    Sps,
    /// Prompt look-up.
    Lookup,
    /// Token Recycling: a tree of what the target said after the same tokens before.
    Recycling,
    /// Speculative speculative decoding (arXiv:2603.03251): the draft rolls out the outcomes that it expects itself.
    Ssd,
    /// Mirror speculative decoding: the draft rolls branches out during the pass.
    Mirror,
}

impl Method {
    /// All methods, in the order they are listed.
    pub const ALL: [Self; 7] =
        [Self::Auto, Self::None, Self::Sps, Self::Lookup, Self::Recycling, Self::Ssd, Self::Mirror];

    /// Its name on the wire and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::None => "none",
            Self::Sps => "sps",
            Self::Lookup => "lookup",
            Self::Recycling => "recycling",
            Self::Ssd => "ssd",
            Self::Mirror => "mirror",
        }
    }

    /// The method of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name)
    }

    /// Whether it needs a draft model.
    pub fn needs_draft(self) -> bool {
        matches!(self, Self::Sps | Self::Ssd | Self::Mirror)
    }

    /// Whether the draft works during the target's pass.
    pub fn rolls_out(self) -> bool {
        matches!(self, Self::Ssd | Self::Mirror)
    }
}

/// Who guesses the outcomes that are rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roots {
    /// The draft's own rows.
    Draft,
    /// The target's early exit.
    Exit,
    /// Both, in one priority order.
    Both,
}

impl Roots {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Exit => "exit",
            Self::Both => "both",
        }
    }

    /// The setting of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Draft, Self::Exit, Self::Both].into_iter().find(|r| r.name() == name)
    }
}

/// What becomes of a draft's look-ahead, the tokens that its streams guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookAhead {
    /// They stand, unchecked.
    Keep,
    /// They are read again by the main stream, which may cut them off: the window is that of a draft without streams.
    Correct,
}

impl LookAhead {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Correct => "correct",
        }
    }

    /// The setting of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Keep, Self::Correct].into_iter().find(|l| l.name() == name)
    }
}

/// Name of an allocation on the wire.
pub fn allocation_name(allocation: Allocation) -> &'static str {
    match allocation {
        Allocation::Scored => "scored",
        Allocation::PerRow => "per-row",
    }
}

/// The allocation of that name.
pub(crate) fn allocation_from_name(name: &str) -> Option<Allocation> {
    [Allocation::Scored, Allocation::PerRow].into_iter().find(|a| allocation_name(*a) == name)
}

/// Settings in force for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How windows come about.
    pub method: Method,
    /// γ, most draft tokens after each other in a round.
    pub window: usize,
    /// e, the layer after which the early exit looks.
    pub exit_layer: usize,
    /// κ, candidates per row of the exit message.
    pub exit_top: usize,
    /// B, branches rolled out at once; for `recycling`, nodes of the tree.
    pub branch_budget: usize,
    /// Who guesses outcomes.
    pub roots: Roots,
    /// How the budget is spent.
    pub allocation: Allocation,
    /// η, streams that the draft looks ahead by; 0 for none.
    pub streams: usize,
    /// What becomes of the look-ahead.
    pub look_ahead: LookAhead,
    /// Rollouts awaited, their choice independent of timing.
    pub deterministic: bool,
}

/// Largest window, γ.
pub const MAX_WINDOW: usize = 16;

impl Settings {
    /// A method's settings where nothing was measured, for a target of `layers` layers: e = N/2.
    pub(crate) fn of(method: Method, layers: usize) -> Self {
        Self {
            method,
            window: match method {
                Method::None => 0,
                // Of all that it chooses from.
                Method::Auto => MAX_WINDOW,
                _ => 4,
            },
            exit_layer: (layers / 2).max(1),
            exit_top: 4,
            branch_budget: 8,
            roots: if method == Method::Ssd { Roots::Draft } else { Roots::Both },
            allocation: Allocation::Scored,
            streams: 0,
            look_ahead: LookAhead::Correct,
            deterministic: false,
        }
    }
}

/// Settings as a request asks for them; `None` takes the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettingsSpec {
    /// Name of a method.
    pub method: Option<String>,
    /// γ.
    pub window: Option<u64>,
    /// e.
    pub exit_layer: Option<u64>,
    /// κ.
    pub exit_top: Option<u64>,
    /// B.
    pub branch_budget: Option<u64>,
    /// Name of a choice of roots.
    pub roots: Option<String>,
    /// Name of an allocation.
    pub allocation: Option<String>,
    /// η.
    pub streams: Option<u64>,
    /// Name of what becomes of the look-ahead.
    pub look_ahead: Option<String>,
}
