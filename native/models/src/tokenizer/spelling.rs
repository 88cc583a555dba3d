//! Which bytes a token stands for.

use std::collections::HashMap;

use specula_decoding::{TokenBytes, TokenId};

/// The bytes of tokens 0..`size`; `falls_back` tells SentencePiece's spelling from the byte-level one.
pub(super) fn token_bytes(
    tokenizer: &tokenizers::Tokenizer,
    falls_back: bool,
    size: usize,
) -> Result<TokenBytes, String> {
    let byte_of = byte_alphabet();
    let added = tokenizer.get_added_tokens_decoder();
    let mut bytes: Vec<Box<[u8]>> = Vec::with_capacity(size);
    for id in 0..size as TokenId {
        let spelled = match (added.get(&id), tokenizer.id_to_token(id)) {
            (Some(token), _) if token.special => Some(Vec::new()),
            (Some(token), _) => Some(token.content.as_bytes().to_vec()),
            // A hole in the vocabulary stands for nothing.
            (None, None) => Some(Vec::new()),
            (None, Some(token)) if falls_back => Some(piece(&token)),
            (None, Some(token)) => token.chars().map(|c| byte_of.get(&c).copied()).collect(),
        };
        let spelled = spelled.ok_or_else(|| {
            format!(
                "token {id} is not spelled in the byte-level alphabet; supported: byte-level BPE, and BPE with \
                 `byte_fallback`"
            )
        })?;
        bytes.push(spelled.into_boxed_slice());
    }
    Ok(TokenBytes(bytes))
}

/// A SentencePiece token: `<0x0A>` is a byte, U+2581 a space.
fn piece(token: &str) -> Vec<u8> {
    let byte = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).filter(|hex| hex.len() == 2);
    match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        Some(byte) => vec![byte],
        None => token.replace('\u{2581}', " ").into_bytes(),
    }
}

/// GPT-2's alphabet: printable bytes stand for themselves, the others for characters from U+0100 on.
fn byte_alphabet() -> HashMap<char, u8> {
    let printable = |b: &u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let (plain, shifted): (Vec<u8>, Vec<u8>) = (0..=255).partition(printable);
    let plain = plain.into_iter().map(|b| (char::from(b), b));
    let shifted = shifted.into_iter().enumerate().filter_map(|(i, b)| Some((char::from_u32(0x100 + i as u32)?, b)));
    plain.chain(shifted).collect()
}
