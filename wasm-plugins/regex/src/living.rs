//! Which states of a DFA a match can still be reached from.

use std::collections::BTreeMap;

use regex_automata::dfa::{Automaton, dense};
use regex_automata::util::primitives::StateID;

/// By a state's number, whether a match can still come.
pub(crate) struct Living {
    states: Vec<bool>,
    /// Numbers are identifiers shifted right by this.
    shift: usize,
}

impl Living {
    pub(crate) fn has(&self, state: StateID) -> bool {
        self.states.get(state.as_usize() >> self.shift).copied().unwrap_or(false)
    }
}

/// States reached from `start` that some text leads on to a match from. Not being dead is not enough: a DFA shows a match a
/// byte late, so that a state behind which there is nothing may be there to say that there was one.
pub(crate) fn living(dfa: &dense::DFA<Vec<u32>>, start: StateID) -> Living {
    let mut reached = vec![start];
    let mut before: BTreeMap<StateID, Vec<StateID>> = BTreeMap::from([(start, Vec::new())]);
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
    let shift = dfa.stride2();
    let mut living = Living { states: Vec::new(), shift };
    while let Some(state) = open.pop() {
        let number = state.as_usize() >> shift;
        if !living.has(state) {
            living.states.resize(living.states.len().max(number + 1), false);
            living.states[number] = true;
            open.extend(&before[&state]);
        }
    }
    living
}
