//! JSON schemas become a decoding rule: only texts come that are JSON of that schema. The only room that knows llguidance.
//!
//! The rule is like any other: it masks each row of a window as the draft tokens before it demand, and forgets them again;
//! only what is committed moves it. End tokens are let through where the value may end, and nothing else once it has.

mod rule;

use std::sync::Arc;

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory, earley::SlicedBiasComputer};
use serde_json::{Value, json};
use specula_decoding::{Rule, TokenBytes, TokenId};

use crate::rule::GrammarRule;

/// Bytes by which llguidance knows tokens that are no text.
const NO_TEXT: u8 = 0xFF;
/// Bounds on one row's mask, which the target's thread works out while others wait: some 8 ms, at 14,000 units of lexing and
/// 20,000 items a millisecond. Schemas of ordinary services stay far below.
const MASK_FUEL: u64 = 100_000;
const MASK_ITEMS: usize = 25_000;
const MESSAGE_BYTES: usize = 512;
/// Where llguidance takes options from a schema.
const OPTIONS: &str = "x-guidance";
/// Blanks between the parts of a value: one, or a new line and its indentation. JSON itself has no bound, and a model that
/// would rather say nothing fills its tokens with them.
const BLANKS: &str = r"[\x20\x09]|\x0D?\x0A[\x20\x09]{0,32}";

/// Why a schema does not become a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GrammarError(String);

/// Makes rules for one model; made once.
pub struct Grammars {
    factory: ParserFactory,
    end_tokens: Arc<[TokenId]>,
    vocab_size: usize,
}

impl Grammars {
    /// For a model with this vocabulary.
    ///
    /// # Errors
    /// A model without end tokens, for which a text could not end with its value.
    pub fn new(bytes: &TokenBytes, vocab_size: usize, end_tokens: &[TokenId]) -> Result<Self, GrammarError> {
        let Some(&end) = end_tokens.first() else {
            return Err(GrammarError("the model has no end token to end a value with".to_owned()));
        };
        let word = |id: usize| Some(bytes.get(id as TokenId)).filter(|word| word.first() != Some(&NO_TEXT));
        let words: Vec<Vec<u8>> = (0..vocab_size).map(|id| word(id).unwrap_or_default().to_vec()).collect();
        let trie = TokTrie::from(&TokRxInfo::new(vocab_size as u32, end), &words);
        let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = SlicedBiasComputer::json_slices();
        let mut factory = ParserFactory::new(&tokens, InferenceCapabilities::default(), &slices).map_err(refused)?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            step_lexer_fuel: MASK_FUEL,
            step_max_items: MASK_ITEMS,
            verbose_errors: false,
            ..ParserLimits::default()
        };
        Ok(Self { factory, end_tokens: end_tokens.into(), vocab_size })
    }

    /// A rule that lets JSON of this schema through, before the first token. Between the parts of a value it lets a blank
    /// through, or a new line with at most 32 blanks after it.
    ///
    /// # Errors
    /// A schema that is none, that has keywords which cannot be enforced, or that is too large.
    pub fn json_schema(&self, schema: &Value) -> Result<Box<dyn Rule>, GrammarError> {
        let Value::Object(mut schema) = schema.clone() else {
            return Err(GrammarError("a schema must be an object".to_owned()));
        };
        if schema.insert(OPTIONS.to_owned(), json!({"whitespace_pattern": BLANKS})).is_some() {
            return Err(GrammarError(format!("`{OPTIONS}` is no keyword of JSON schemas; leave it out")));
        }
        let parser = self.factory.create_parser(TopLevelGrammar::from_json_schema(schema.into())).map_err(refused)?;
        let mut matcher = Matcher::new(Ok(parser));
        // Worked out once here, so that a schema that no row could be masked with is refused at once.
        matcher.compute_mask_or_eos().map_err(refused)?;
        Ok(Box::new(GrammarRule::new(matcher, self.end_tokens.clone(), self.vocab_size)))
    }

    /// A rule that lets any JSON object through.
    ///
    /// # Errors
    /// As [`Grammars::json_schema`], never in fact.
    pub fn json_object(&self) -> Result<Box<dyn Rule>, GrammarError> {
        self.json_schema(&json!({"type": "object"}))
    }
}

fn refused(error: impl std::fmt::Display) -> GrammarError {
    let mut message = error.to_string();
    let end = (0..=MESSAGE_BYTES.min(message.len())).rev().find(|at| message.is_char_boundary(*at));
    message.truncate(end.unwrap_or(0));
    GrammarError(message)
}
