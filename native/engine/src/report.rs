//! What speculation did, in counts and microseconds that add up over rounds and requests.

use std::ops::AddAssign;

use specula_decoding::TokenTree;
use specula_decoding::branches::Source;

use crate::settings::{Method, Settings};

/// Sums over rounds. All times in microseconds of wall clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Target passes after prefill.
    pub rounds: u64,
    /// Tokens committed.
    pub committed: u64,
    /// Passes of the draft model, without the prompt's.
    pub draft_steps: u64,
    /// Draft tokens verified.
    pub drafted: u64,
    /// Draft tokens accepted.
    pub accepted: u64,
    /// Accepted tokens that differed from the target's own draw.
    pub deviations: u64,
    /// Element i: rounds whose draft was more than i tokens deep, and those of them that accepted a token there.
    pub by_position: Vec<Offered>,
    /// Rounds that began with a window rolled out in time.
    pub hits: u64,
    /// Rounds whose outcome had not been rolled out.
    pub misses: u64,
    /// Hits whose branch the draft's own rows had guessed.
    pub hits_from_draft: u64,
    /// Hits whose branch the early exit had guessed.
    pub hits_from_exit: u64,
    /// Element d: hits whose window was d tokens long.
    pub hits_by_depth: Vec<u64>,
    /// Of those, the hits whose branch the early exit had guessed.
    pub hits_from_exit_by_depth: Vec<u64>,
    /// Rounds with an exit message.
    pub exits: u64,
    /// Of those, rounds whose next token was among the message's candidates for that row.
    pub covered: u64,
    /// Branches begun.
    pub branches_expanded: u64,
    /// Branches that became the next window.
    pub branches_used: u64,
    /// Target waiting for draft tokens.
    pub exposed_draft_us: u64,
    /// Draft working while the target worked.
    pub hidden_draft_us: u64,
    /// Draft idle while the target worked (methods that roll out).
    pub bubble_us: u64,
    /// Handing messages over, without the draft's work.
    pub rendezvous_us: u64,
    /// Target, layers 1…e.
    pub target_prefix_us: u64,
    /// Early exit's head and ranking.
    pub exit_us: u64,
    /// Target, layers e+1…N and head; all layers for methods without an exit.
    pub target_suffix_us: u64,
    /// Rules, draws, acceptance, commit.
    pub accept_us: u64,
}

/// How often a position was offered and taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offered {
    /// Rounds whose window had this position.
    pub rounds: u64,
    /// Rounds that accepted it.
    pub accepted: u64,
}

impl Totals {
    /// Tokens committed per target pass, 1 + accepted / rounds: plain decoding is 1. `None` before the first round.
    pub fn acceptance_length(&self) -> Option<f64> {
        (self.rounds > 0).then(|| 1.0 + self.accepted as f64 / self.rounds as f64)
    }

    /// Share of rounds that began with a rolled-out window, of those that could have: hits / (hits + misses).
    pub fn hit_rate(&self) -> Option<f64> {
        let tried = self.hits + self.misses;
        (tried > 0).then(|| self.hits as f64 / tried as f64)
    }

    /// covered / exits.
    pub fn coverage(&self) -> Option<f64> {
        (self.exits > 0).then(|| self.covered as f64 / self.exits as f64)
    }

    /// Counts a hit whose window was `depth` tokens long.
    pub(crate) fn count_hit(&mut self, source: Source, depth: usize) {
        self.hits += 1;
        self.branches_used += 1;
        let len = self.hits_by_depth.len().max(depth + 1);
        self.hits_by_depth.resize(len, 0);
        self.hits_from_exit_by_depth.resize(len, 0);
        self.hits_by_depth[depth] += 1;
        match source {
            Source::Draft => self.hits_from_draft += 1,
            Source::Exit => {
                self.hits_from_exit += 1;
                self.hits_from_exit_by_depth[depth] += 1;
            }
        }
    }

    /// Counts draft tokens of which `accepted`, one after the other, were accepted.
    pub(crate) fn count_draft(&mut self, tree: &TokenTree, accepted: usize) {
        let levels = tree.depth();
        self.drafted += tree.len() as u64;
        self.accepted += accepted as u64;
        if self.by_position.len() < levels {
            self.by_position.resize(levels, Offered::default());
        }
        for (i, offered) in self.by_position.iter_mut().take(levels).enumerate() {
            offered.rounds += 1;
            offered.accepted += u64::from(i < accepted);
        }
    }
}

impl AddAssign<&Totals> for Totals {
    fn add_assign(&mut self, other: &Totals) {
        if self.by_position.len() < other.by_position.len() {
            self.by_position.resize(other.by_position.len(), Offered::default());
        }
        for (mine, theirs) in self.by_position.iter_mut().zip(&other.by_position) {
            mine.rounds += theirs.rounds;
            mine.accepted += theirs.accepted;
        }
        add_each(&mut self.hits_by_depth, &other.hits_by_depth);
        add_each(&mut self.hits_from_exit_by_depth, &other.hits_from_exit_by_depth);
        self.rounds += other.rounds;
        self.committed += other.committed;
        self.draft_steps += other.draft_steps;
        self.drafted += other.drafted;
        self.accepted += other.accepted;
        self.deviations += other.deviations;
        self.hits += other.hits;
        self.misses += other.misses;
        self.hits_from_draft += other.hits_from_draft;
        self.hits_from_exit += other.hits_from_exit;
        self.exits += other.exits;
        self.covered += other.covered;
        self.branches_expanded += other.branches_expanded;
        self.branches_used += other.branches_used;
        self.exposed_draft_us += other.exposed_draft_us;
        self.hidden_draft_us += other.hidden_draft_us;
        self.bubble_us += other.bubble_us;
        self.rendezvous_us += other.rendezvous_us;
        self.target_prefix_us += other.target_prefix_us;
        self.exit_us += other.exit_us;
        self.target_suffix_us += other.target_suffix_us;
        self.accept_us += other.accept_us;
    }
}

/// Adds element by element; what is missing counts as 0.
fn add_each(mine: &mut Vec<u64>, theirs: &[u64]) {
    mine.resize(mine.len().max(theirs.len()), 0);
    mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
}

/// What one generation did.
#[derive(Debug, Clone)]
pub struct Report {
    /// Sums over its rounds.
    pub totals: Totals,
    /// Settings in force.
    pub settings: Settings,
    /// With `auto`: rounds of each method that it chose.
    pub chosen: Vec<(Method, u64)>,
    /// Seed in force.
    pub seed: u64,
    /// Whether the target gives a row the same bits whatever is computed with it.
    pub row_invariant: bool,
    /// Prefill of the prompt, microseconds.
    pub prefill_us: u64,
    /// From admission to the first token, microseconds.
    pub first_token_us: u64,
    /// From admission to the end, microseconds.
    pub total_us: u64,
    /// What each plugin cost.
    pub plugins: Vec<PluginCost>,
    /// Failures that the request survived.
    pub warnings: Vec<Warning>,
}

impl Report {
    /// Whether no accepted token differed from the target's own draw in its pass.
    pub fn lossless(&self) -> bool {
        self.totals.deviations == 0
    }
}

/// What a plugin cost in one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginCost {
    /// Its name.
    pub name: String,
    /// `acceptance`, `sampling` or `stopping`; a plugin that is several has an entry for each.
    pub kind: &'static str,
    /// Calls made.
    pub calls: u64,
    /// Fuel used.
    pub fuel: u64,
    /// Wall clock in its calls, microseconds, rounded to 10.
    pub micros: u64,
    /// Calls that ended in an error.
    pub failures: u64,
}

/// A failure that the request survived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The plugin that failed.
    pub plugin: String,
    /// Stable code.
    pub code: String,
    /// For a person.
    pub message: String,
    /// How often it happened.
    pub count: u64,
}
