//! A pattern's DFA, and from which of its states a match can still be reached.

use std::collections::BTreeMap;

use regex_automata::dfa::{Automaton as _, dense};
pub(crate) use regex_automata::util::primitives::StateID;
use regex_automata::util::{start, syntax};
use regex_automata::{Anchored, MatchKind};

pub(crate) struct Automaton {
    dfa: dense::DFA<Vec<u32>>,
    /// Before the first byte.
    pub(crate) begin: StateID,
    /// By a state's number, whether a match can still come.
    living: Vec<bool>,
}

impl Automaton {
    /// For matches from beginning to end. What is wrong with the pattern, if it has no automaton of a MiB.
    pub(crate) fn new(pattern: &str) -> Result<Self, String> {
        let limits = dense::Config::new().match_kind(MatchKind::All).dfa_size_limit(Some(1 << 20));
        let syntax = syntax::Config::new().unicode(false).utf8(false);
        let dfa = dense::Builder::new().configure(limits).syntax(syntax).build(pattern).map_err(|e| cause(&e))?;
        let begin = dfa.start_state(&start::Config::new().anchored(Anchored::Yes)).map_err(|e| e.to_string())?;
        let living = living(&dfa, begin);
        Ok(Self { dfa, begin, living })
    }

    /// The state after some bytes; no bytes at all lead nowhere.
    pub(crate) fn after(&self, state: StateID, bytes: &[u8]) -> StateID {
        let begin = if bytes.is_empty() { StateID::ZERO } else { state };
        bytes.iter().fold(begin, |state, byte| self.dfa.next_state(state, *byte))
    }

    /// Whether the text may end here.
    pub(crate) fn may_end(&self, state: StateID) -> bool {
        self.dfa.is_match_state(self.dfa.next_eoi_state(state))
    }

    /// Whether some text leads on to a match. Not being dead is not enough: a DFA shows a match a byte late, so that a state
    /// behind which there is nothing may be there to say that there was one.
    pub(crate) fn lives(&self, state: StateID) -> bool {
        self.living.get(state.as_usize() >> self.dfa.stride2()).copied().unwrap_or(false)
    }
}

/// What is at the bottom of an error: the pattern's fault.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), cause)
}

/// States reached from `begin` that some text leads on to a match from.
fn living(dfa: &dense::DFA<Vec<u32>>, begin: StateID) -> Vec<bool> {
    let mut reached = vec![begin];
    let mut before: BTreeMap<StateID, Vec<StateID>> = BTreeMap::from([(begin, Vec::new())]);
    let mut next = 0;
    while let Some(&state) = reached.get(next) {
        next += 1;
        let mut last = None;
        for byte in 0..=255 {
            let to = dfa.next_state(state, byte);
            // Bytes of a class lead to one state, and most classes are runs.
            if last.replace(to) != Some(to) {
                let from = before.entry(to).or_insert_with(|| {
                    reached.push(to);
                    Vec::new()
                });
                from.push(state);
            }
        }
    }
    let matches = |state: &StateID| dfa.is_match_state(dfa.next_eoi_state(*state));
    let mut open: Vec<StateID> = reached.into_iter().filter(matches).collect();
    let mut living = Vec::new();
    while let Some(state) = open.pop() {
        let number = state.as_usize() >> dfa.stride2();
        living.resize(living.len().max(number + 1), false);
        if !std::mem::replace(&mut living[number], true) {
            open.extend(&before[&state]);
        }
    }
    living
}
