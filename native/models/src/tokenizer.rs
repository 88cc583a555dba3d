//! Text to tokens and back. Special tokens written by users stay text.

use candle_core::quantized::gguf_file::Content;
use candle_core::quantized::tokenizer::TokenizerFromGguf;
use specula_decoding::{TokenBytes, TokenId};
use std::collections::HashMap;
use std::sync::Arc;

/// A byte-level BPE tokenizer.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    specials: Arc<[String]>,
    bytes: Arc<TokenBytes>,
}

impl Tokenizer {
    pub(crate) fn from_gguf(content: &Content) -> Result<Self, String> {
        Self::new(tokenizers::Tokenizer::from_gguf(content).map_err(|e| e.to_string())?)
    }

    pub(crate) fn from_json(json: &[u8]) -> Result<Self, String> {
        Self::new(tokenizers::Tokenizer::from_bytes(json).map_err(|e| e.to_string())?)
    }

    fn new(inner: tokenizers::Tokenizer) -> Result<Self, String> {
        let added = inner.get_added_tokens_decoder();
        let specials = added.values().filter(|t| t.special).map(|t| t.content.clone()).collect();
        let bytes = token_bytes(&inner)?;
        Ok(Self { inner: Arc::new(inner), specials, bytes: Arc::new(bytes) })
    }

    /// V.
    pub fn vocab_size(&self) -> usize {
        self.bytes.0.len()
    }

    /// What each token stands for; special tokens for nothing.
    pub fn bytes(&self) -> &Arc<TokenBytes> {
        &self.bytes
    }

    /// Tokens of a text in which special tokens count as text.
    ///
    /// # Errors
    /// The tokenizer's own failure.
    pub fn encode_text(&self, text: &str) -> Result<Vec<TokenId>, String> {
        let mark = free_mark(&[text])?;
        self.encode_marked(&self.disarm(text, mark), mark)
    }

    /// Puts `mark` inside every special token written in a text, so that none is left whole.
    pub(crate) fn disarm(&self, text: &str, mark: char) -> String {
        let mut at: Vec<usize> = self
            .specials
            .iter()
            .flat_map(|special| {
                let first = special.chars().next().map_or(0, char::len_utf8);
                text.match_indices(special.as_str()).map(move |(i, _)| i + first)
            })
            .collect();
        at.sort_unstable();
        at.dedup();
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        for cut in at {
            out.push_str(&text[from..cut]);
            out.push(mark);
            from = cut;
        }
        out.push_str(&text[from..]);
        out
    }

    /// Tokens of a text cut at `mark`, special tokens recognised.
    pub(crate) fn encode_marked(&self, text: &str, mark: char) -> Result<Vec<TokenId>, String> {
        let mut tokens = Vec::new();
        for piece in text.split(mark) {
            let encoding = self.inner.encode_fast(piece, false).map_err(|e| e.to_string())?;
            tokens.extend_from_slice(encoding.get_ids());
        }
        Ok(tokens)
    }
}

/// A character that none of the texts contains, from Unicode's noncharacters, which no text should contain.
pub(crate) fn free_mark(texts: &[&str]) -> Result<char, String> {
    ('\u{FDD0}'..='\u{FDEF}')
        .find(|mark| !texts.iter().any(|t| t.contains(*mark)))
        .ok_or_else(|| "the text uses all of Unicode's noncharacters U+FDD0..U+FDEF; remove one".into())
}

fn token_bytes(tokenizer: &tokenizers::Tokenizer) -> Result<TokenBytes, String> {
    let byte_of = byte_alphabet();
    let added = tokenizer.get_added_tokens_decoder();
    let size = tokenizer.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1);
    let mut bytes: Vec<Box<[u8]>> = Vec::with_capacity(size);
    for id in 0..size as TokenId {
        let spelled = match (added.get(&id), tokenizer.id_to_token(id)) {
            (Some(token), _) if token.special => Some(Vec::new()),
            (Some(token), _) => Some(token.content.as_bytes().to_vec()),
            // A hole in the vocabulary stands for nothing.
            (None, None) => Some(Vec::new()),
            (None, Some(token)) => token.chars().map(|c| byte_of.get(&c).copied()).collect(),
        };
        let spelled = spelled.ok_or_else(|| {
            format!(
                "token {id} is not spelled in the byte-level alphabet; only byte-level BPE tokenizers are supported"
            )
        })?;
        bytes.push(spelled.into_boxed_slice());
    }
    Ok(TokenBytes(bytes))
}

/// GPT-2's alphabet: printable bytes stand for themselves, the others for characters from U+0100 on.
fn byte_alphabet() -> HashMap<char, u8> {
    let printable = |b: &u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let (plain, shifted): (Vec<u8>, Vec<u8>) = (0..=255).partition(printable);
    let plain = plain.into_iter().map(|b| (char::from(b), b));
    let shifted = shifted.into_iter().enumerate().filter_map(|(i, b)| Some((char::from_u32(0x100 + i as u32)?, b)));
    plain.chain(shifted).collect()
}
