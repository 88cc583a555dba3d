//! Whether a draft's tokens mean to it what they mean to the target.

use specula_decoding::TokenId;

use crate::load::LoadedModel;
use crate::tokenizer::Tokenizer;

/// Differing tokens that a complaint names; the rest are counted.
const NAMED: usize = 3;

/// Checks that target and draft share one vocabulary: rows, texts and special tokens.
///
/// # Errors
/// What differs, with the tokens concerned, and what to do.
pub fn check_pair(target: &LoadedModel, draft: &LoadedModel) -> Result<(), String> {
    let rows = [target, draft].map(|model| model.transformer.config().vocab_size);
    let differing = differing_tokens(&target.tokenizer, &draft.tokenizer);
    let why = match (differing.len(), rows) {
        (0, [a, b]) if a == b => return Ok(()),
        (0, [a, b]) => format!("their tokens agree, but the target's rows have {a} entries and the draft's {b}"),
        (count, [a, b]) => {
            let named: Vec<String> = differing
                .iter()
                .take(NAMED)
                .map(|id| {
                    format!("token {id} is {} and {}", named(&target.tokenizer, *id), named(&draft.tokenizer, *id))
                })
                .collect();
            let sizes = if a == b { String::new() } else { format!(", rows have {a} and {b} entries") };
            let more = if count > NAMED { "; …" } else { "" };
            format!("{count} tokens differ between target and draft{sizes}: {}{more}", named.join("; "))
        }
    };
    Err(format!(
        "draft `{}` does not fit target `{}`: {why}; take a draft that was trained with the target's tokenizer",
        draft.name, target.name
    ))
}

fn differing_tokens(target: &Tokenizer, draft: &Tokenizer) -> Vec<TokenId> {
    let size = target.vocab_size().max(draft.vocab_size()) as TokenId;
    (0..size).filter(|id| target.describe(*id) != draft.describe(*id)).collect()
}

fn named(tokenizer: &Tokenizer, id: TokenId) -> String {
    tokenizer.describe(id).unwrap_or_else(|| "no token".into())
}
