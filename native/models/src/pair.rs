//! Whether a draft's tokens mean to it what they mean to the target.

use std::collections::BTreeMap;

use specula_decoding::TokenId;

use crate::load::LoadedModel;
use crate::tokenizer::Tokenizer;

/// Differing tokens, and special tokens of a kind, that a complaint names; the rest are counted.
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
    let Some(first) = differing.first() else { return Ok(()) };
    let specials = special_tokens(target.tokenizer.specials(), tokenizer.specials());
    Err(format!(
        "draft `{name}` does not fit target `{}`: vocabularies of {} and {} tokens, {} of them differ, first token {first}, \
         {} to the target and {} to the draft{}; take a draft that was trained with the target's tokenizer",
        target.name,
        target.tokenizer.vocab_size(),
        tokenizer.vocab_size(),
        differing.len(),
        named(&target.tokenizer, *first),
        named(tokenizer, *first),
        specials.map_or_else(String::new, |specials| format!("; special tokens: {specials}")),
    ))
}

fn differing_tokens(target: &Tokenizer, draft: &Tokenizer) -> Vec<TokenId> {
    let size = target.vocab_size().max(draft.vocab_size()) as TokenId;
    (0..size).filter(|id| target.describe(*id) != draft.describe(*id)).collect()
}

fn named(tokenizer: &Tokenizer, id: TokenId) -> String {
    tokenizer.describe(id).unwrap_or_else(|| "no token".into())
}

/// Which special tokens one of two models has and not the other, and which have other ids; `None` if they are the same.
fn special_tokens(target: &BTreeMap<TokenId, String>, draft: &BTreeMap<TokenId, String>) -> Option<String> {
    let ids = |tokens: &BTreeMap<TokenId, String>| -> BTreeMap<String, TokenId> {
        tokens.iter().map(|(id, token)| (token.clone(), *id)).collect()
    };
    let (target, draft) = (ids(target), ids(draft));
    let only = |some: &BTreeMap<String, TokenId>, others: &BTreeMap<String, TokenId>| -> Vec<String> {
        some.keys().filter(|token| !others.contains_key(*token)).map(|token| format!("`{token}`")).collect()
    };
    let moved = target.iter().filter_map(|(token, id)| {
        let other = draft.get(token).filter(|other| *other != id)?;
        Some(format!("`{token}` is {id} and {other}"))
    });
    let kinds = [
        ("only the target has ", only(&target, &draft)),
        ("only the draft has ", only(&draft, &target)),
        ("", moved.collect()),
    ];
    let told = kinds.into_iter().filter(|(_, tokens)| !tokens.is_empty()).map(|(kind, tokens)| {
        let more = if tokens.len() > NAMED { format!(" and {} more", tokens.len() - NAMED) } else { String::new() };
        format!("{kind}{}{more}", tokens[..tokens.len().min(NAMED)].join(", "))
    });
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| told.join("; "))
}
