//! Lets only texts pass that match a regular expression from beginning to end: forbids every token after which no match is
//! possible any more, and the end before there is one.

mod living;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use regex_automata::dfa::{Automaton, dense};
use regex_automata::util::primitives::StateID;
use regex_automata::util::{start, syntax};
use regex_automata::{Anchored, MatchKind};
use specula_policy_sdk::{
    BAD_CONFIG, Config, Fault, ModelInfo, Sampling, Token, context, export_sampling, export_schema, rows,
};

/// Most masks kept; of a vocabulary of 150,000 they take 1.2 MB.
const MASKS: usize = 64;

#[derive(Clone)]
struct Regex {
    shared: Rc<Shared>,
    /// After the committed output.
    state: StateID,
}

struct Shared {
    dfa: dense::DFA<Vec<u32>>,
    tokens: Vec<Vec<u8>>,
    end_tokens: Vec<Token>,
    living: living::Living,
    /// What was worked out of late: masks by state.
    masks: RefCell<BTreeMap<StateID, Vec<u32>>>,
}

impl Shared {
    /// The state after a token. The end, where it may come, leaves it as it is: a row behind it is drawn from too.
    fn after(&self, state: StateID, token: Token) -> StateID {
        if self.end_tokens.contains(&token) && self.dfa.is_match_state(self.dfa.next_eoi_state(state)) {
            return state;
        }
        let bytes = self.tokens.get(token as usize).map_or(&[][..], |bytes| bytes);
        let begin = if bytes.is_empty() { StateID::ZERO } else { state };
        bytes.iter().fold(begin, |state, byte| self.dfa.next_state(state, *byte))
    }

    fn mask(&self, state: StateID) -> Vec<u32> {
        let mut mask = vec![0_u32; self.tokens.len().div_ceil(32)];
        let fits = |token: &usize| self.living.has(self.after(state, *token as Token));
        (0..self.tokens.len()).filter(fits).for_each(|token| mask[token / 32] |= 1 << (token % 32));
        mask
    }
}

/// What is at the bottom of an error: the pattern's fault.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), cause)
}

impl Sampling for Regex {
    fn open(model: &ModelInfo, config: &mut Config) -> Result<Self, Fault> {
        let pattern = config.text("pattern", "")?;
        let fault = |message: String| Fault { code: BAD_CONFIG, message: format!("`pattern`: {message}") };
        let limits = dense::Config::new().match_kind(MatchKind::All).dfa_size_limit(Some(1 << 20));
        let syntax = syntax::Config::new().unicode(false).utf8(false);
        let dfa = dense::Builder::new().configure(limits).syntax(syntax).build(&pattern);
        let dfa = dfa.map_err(|error| fault(cause(&error)))?;
        let state = dfa.start_state(&start::Config::new().anchored(Anchored::Yes));
        let state = state.map_err(|error| fault(error.to_string()))?;
        let ids: Vec<Token> = (0..model.vocab_size).collect();
        let tokens = ids.chunks(4096).flat_map(context::token_bytes).collect();
        let (end_tokens, living) = (model.end_tokens.clone(), living::living(&dfa, state));
        Ok(Self { shared: Rc::new(Shared { dfa, tokens, end_tokens, living, masks: RefCell::default() }), state })
    }

    fn adjust(&self, draft: &[Token], first: u32) -> Result<(), Fault> {
        let mut state = draft[..first as usize].iter().fold(self.state, |s, token| self.shared.after(s, *token));
        for row in first as usize..=draft.len() {
            let mut masks = self.shared.masks.borrow_mut();
            if masks.len() == MASKS {
                masks.clear();
            }
            rows::allow(row as u32, masks.entry(state).or_insert_with(|| self.shared.mask(state)));
            state = draft.get(row).map_or(state, |token| self.shared.after(state, *token));
        }
        Ok(())
    }

    fn commit(&mut self, tokens: &[Token]) -> Result<(), Fault> {
        let prompt = context::prompt_length().saturating_sub(context::length()) as usize;
        let output = tokens.iter().skip(prompt);
        self.state = output.fold(self.state, |state, token| self.shared.after(state, *token));
        Ok(())
    }
}

export_sampling!(Regex);
export_schema!(
    r#"{"type": "object", "additionalProperties": false, "required": ["pattern"], "properties": {
        "pattern": {"type": "string", "minLength": 1, "maxLength": 1024}},
        "examples": [{"pattern": "([0-9]+|[a-z ]+)(, ([0-9]+|[a-z ]+))*"}]}"#
);
