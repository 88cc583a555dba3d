//! Lets only texts pass that match a regular expression from beginning to end: forbids every token after which no match is
//! possible any more, and the end before there is one.

mod automaton;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use automaton::{Automaton, StateID};
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
    automaton: Automaton,
    tokens: Vec<Vec<u8>>,
    end_tokens: Vec<Token>,
    /// What was worked out of late: masks by state.
    masks: RefCell<BTreeMap<StateID, Vec<u32>>>,
}

impl Shared {
    /// The state after a token. The end, where it may come, leaves it as it is: a row behind it is drawn from too.
    fn after(&self, state: StateID, token: Token) -> StateID {
        if self.end_tokens.contains(&token) && self.automaton.may_end(state) {
            return state;
        }
        self.automaton.after(state, self.tokens.get(token as usize).map_or(&[][..], |bytes| bytes))
    }

    fn mask(&self, state: StateID) -> Vec<u32> {
        let mut mask = vec![0_u32; self.tokens.len().div_ceil(32)];
        let fits = |token: &usize| self.automaton.lives(self.after(state, *token as Token));
        (0..self.tokens.len()).filter(fits).for_each(|token| mask[token / 32] |= 1 << (token % 32));
        mask
    }
}

impl Sampling for Regex {
    fn open(model: &ModelInfo, config: &mut Config) -> Result<Self, Fault> {
        let pattern = config.text("pattern", "")?;
        let automaton =
            Automaton::new(&pattern).map_err(|why| Fault { code: BAD_CONFIG, message: format!("`pattern`: {why}") })?;
        let ids: Vec<Token> = (0..model.vocab_size).collect();
        let tokens = ids.chunks(4096).flat_map(context::token_bytes).collect();
        let (state, end_tokens) = (automaton.begin, model.end_tokens.clone());
        Ok(Self { shared: Rc::new(Shared { automaton, tokens, end_tokens, masks: RefCell::default() }), state })
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
