//! Whether a draft's tokens mean to it what they mean to the target.

use specula_decoding::TokenId;

use crate::load::LoadedModel;
use crate::tokenizer::Tokenizer;

/// Differing tokens that a complaint names; the rest are counted.
const NAMED: usize = 3;

/// Checks that target and draft share one vocabulary: the same texts and special tokens under the same ids. Rows that no
/// token was made for may differ in number; [`Resized`](crate::Resized) bridges that.
///
/// # Errors
/// What differs, with the tokens concerned, and what to do.
pub fn check_pair(target: &LoadedModel, draft: &LoadedModel) -> Result<(), String> {
    check_pair_of(target, (&draft.name, &draft.tokenizer))
}

/// [`check_pair`] for a draft that is not there yet: its name and tokenizer.
///
/// # Errors
/// As there.
pub fn check_pair_of(target: &LoadedModel, (name, tokenizer): (&str, &Tokenizer)) -> Result<(), String> {
    let differing = differing_tokens(&target.tokenizer, tokenizer);
    if differing.is_empty() {
        return Ok(());
    }
    let examples: Vec<String> = differing
        .iter()
        .take(NAMED)
        .map(|id| format!("token {id} is {} and {}", named(&target.tokenizer, *id), named(tokenizer, *id)))
        .collect();
    Err(format!(
        "draft `{}` does not fit target `{}`: of vocabularies of {} and {} tokens {} differ: {}{}; take a draft that was \
         trained with the target's tokenizer",
        name,
        target.name,
        target.tokenizer.vocab_size(),
        tokenizer.vocab_size(),
        differing.len(),
        examples.join("; "),
        if differing.len() > NAMED { "; …" } else { "" }
    ))
}

fn differing_tokens(target: &Tokenizer, draft: &Tokenizer) -> Vec<TokenId> {
    let size = target.vocab_size().max(draft.vocab_size()) as TokenId;
    (0..size).filter(|id| target.describe(*id) != draft.describe(*id)).collect()
}

fn named(tokenizer: &Tokenizer, id: TokenId) -> String {
    tokenizer.describe(id).unwrap_or_else(|| "no token".into())
}
