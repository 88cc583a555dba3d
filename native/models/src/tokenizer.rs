//! Text to tokens and back. Special tokens written by users stay text.

mod gguf;
mod spelling;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use serde_json::Value as Json;
use specula_decoding::{TokenBytes, TokenId};

pub(crate) use gguf::{gguf_metadata, named_tokens};

use crate::gguf::Gguf;

/// A BPE tokenizer, byte-level or SentencePiece's with byte fallback.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    /// For what does not begin a text, where a text's beginning gets a space.
    within: Option<Arc<tokenizers::Tokenizer>>,
    specials: Arc<BTreeMap<TokenId, String>>,
    /// Finds `specials`.
    finder: Arc<AhoCorasick>,
    first_characters: Arc<HashSet<char>>,
    last_characters: Arc<HashSet<char>>,
    bytes: Arc<TokenBytes>,
    start: Arc<[TokenId]>,
}

impl Tokenizer {
    /// `rows` is the model's vocabulary, which no token may exceed.
    pub(crate) fn from_gguf(file: &Gguf<'_>, rows: usize) -> Result<Self, String> {
        Self::new(gguf::json(file)?, rows).map_err(|why| format!("`tokenizer.ggml.*`: {why}"))
    }

    /// Reads a tokenizer.json.
    pub(crate) fn from_json(json: &[u8], rows: usize) -> Result<Self, String> {
        Self::new(serde_json::from_slice(json).map_err(|e| e.to_string())?, rows)
    }

    fn new(mut json: Json, rows: usize) -> Result<Self, String> {
        prepare(&mut json)?;
        let read = |json: &Json| -> Result<tokenizers::Tokenizer, String> {
            json.to_string().parse().map_err(|e: tokenizers::Error| e.to_string())
        };
        let inner = read(&json)?;
        let within = without_prefix(&json).map(|json| read(&json).map(Arc::new)).transpose()?;
        let size = inner.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1);
        // A padded vocabulary (rows without a token) is usual; a token without a row is not.
        if size > rows {
            return Err(format!("the tokenizer's last token is {}, but the model has {rows} rows", size - 1));
        }
        let added = inner.get_added_tokens_decoder();
        for token in json["added_tokens"].as_array().into_iter().flatten() {
            let (id, content) = (&token["id"], token["content"].as_str().unwrap_or_default());
            if inner.token_to_id(content).map(u64::from) != id.as_u64() {
                return Err(format!("added token `{content}` cannot have the id {id}: ids must follow one another"));
            }
        }
        let specials: BTreeMap<TokenId, String> =
            added.iter().filter(|(_, t)| t.special).map(|(i, t)| (*i, t.content.clone())).collect();
        Ok(Self {
            start: start_tokens(&inner)?.into(),
            finder: Arc::new(AhoCorasick::new(specials.values()).map_err(|e| e.to_string())?),
            first_characters: Arc::new(specials.values().filter_map(|s| s.chars().next()).collect()),
            last_characters: Arc::new(specials.values().filter_map(|s| s.chars().next_back()).collect()),
            specials: Arc::new(specials),
            bytes: Arc::new(spelling::token_bytes(&inner, json["model"]["byte_fallback"] == true, size)?),
            inner: Arc::new(inner),
            within,
        })
    }

    /// V.
    pub fn vocab_size(&self) -> usize {
        self.bytes.0.len()
    }

    /// What each token stands for; special tokens for nothing.
    pub fn bytes(&self) -> &Arc<TokenBytes> {
        &self.bytes
    }

    /// Special tokens by id.
    pub(crate) fn specials(&self) -> &BTreeMap<TokenId, String> {
        &self.specials
    }

    /// Tokens put before every text.
    pub(crate) fn start(&self) -> &[TokenId] {
        &self.start
    }

    /// What a token is, in words for people; `None` where the vocabulary has a hole.
    pub(crate) fn describe(&self, id: TokenId) -> Option<String> {
        let bytes = self.bytes.0.get(id as usize)?;
        match self.specials.get(&id) {
            Some(special) => Some(format!("the special token `{special}`")),
            None if bytes.is_empty() => None,
            None => Some(format!("`{}`", String::from_utf8_lossy(bytes).escape_debug())),
        }
    }

    /// Tokens of a prompt that is not a chat: those the model was trained to see first, then the text's.
    ///
    /// # Errors
    /// The tokenizer's own failure.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<TokenId>, String> {
        let mut tokens = self.start.to_vec();
        tokens.extend(self.encode_text(text)?);
        Ok(tokens)
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
        // Occurrences may overlap; every one is cut after its first character.
        let found = self.finder.find_overlapping_iter(text).map(|m| m.start());
        let mut cuts: Vec<usize> = found.map(|at| at + text[at..].chars().next().map_or(0, char::len_utf8)).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let mut out = String::with_capacity(text.len() + cuts.len() * mark.len_utf8());
        let mut from = 0;
        for cut in cuts {
            out.push_str(&text[from..cut]);
            out.push(mark);
            from = cut;
        }
        out.push_str(&text[from..]);
        out
    }

    /// Puts `mark` after every character that begins a special token and before every one that ends one: no part of the
    /// text can become one, whatever is cut out of it and joined.
    pub(crate) fn guard(&self, text: &str, mark: char) -> String {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            if self.last_characters.contains(&c) {
                out.push(mark);
            }
            out.push(c);
            if self.first_characters.contains(&c) {
                out.push(mark);
            }
        }
        out
    }

    /// Special tokens in a text.
    pub(crate) fn count_specials(&self, text: &str) -> usize {
        self.finder.find_overlapping_iter(text).count()
    }

    /// Tokens of a text cut at `mark`, special tokens recognised.
    pub(crate) fn encode_marked(&self, text: &str, mark: char) -> Result<Vec<TokenId>, String> {
        let mut tokens = Vec::new();
        let mut encode = |tokenizer: &tokenizers::Tokenizer, text: &str| {
            let encoding = tokenizer.encode_fast(text, false).map_err(|e| e.to_string())?;
            tokens.extend_from_slice(encoding.get_ids());
            Ok::<_, String>(())
        };
        for (i, piece) in text.split(mark).enumerate() {
            match &self.within {
                Some(within) if i > 0 => {
                    let special = self.finder.find_overlapping_iter(piece).map(|m| m.start()).min();
                    let (rest, new) = piece.split_at(special.unwrap_or(piece.len()));
                    encode(within, rest)?;
                    encode(&self.inner, new)?;
                }
                _ => encode(&self.inner, piece)?,
            }
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

/// Makes a tokenizer.json safe to serve texts of strangers: special tokens are found as they are written and in no other
/// way, and nothing is cut, filled up or drawn by chance.
fn prepare(json: &mut Json) -> Result<(), String> {
    let model = &json["model"];
    // Old files do not name the type of their model; only BPE has merges.
    if !(model["type"] == "BPE" || model["type"].is_null() && model["merges"].is_array()) {
        return Err(format!("a tokenizer of type {} is not supported; supported: \"BPE\"", model["type"]));
    }
    if model["dropout"].as_f64().is_some_and(|p| p != 0.0) {
        return Err(format!("`model.dropout` = {} is not supported: it draws tokens by chance", model["dropout"]));
    }
    (json["truncation"], json["padding"]) = (Json::Null, Json::Null);
    let mut specials = HashSet::new();
    for token in json["added_tokens"].as_array_mut().into_iter().flatten().filter(|t| t["special"] == true) {
        // Else a text could be normalised into one after it was searched for them.
        token["normalized"] = Json::Bool(false);
        let content = token["content"].as_str().unwrap_or_default();
        if content.chars().count() < 2 {
            return Err(format!(
                "the special token `{content}` is too short to be told from text; two characters are due"
            ));
        }
        specials.insert(content.to_owned());
    }
    let merged = |merge: &Json| match merge {
        Json::String(pair) => pair.replacen(' ', "", 1),
        pair => [&pair[0], &pair[1]].map(|part| part.as_str().unwrap_or_default()).concat(),
    };
    match json["model"]["merges"].as_array().into_iter().flatten().map(merged).find(|token| specials.contains(token)) {
        Some(special) => Err(format!("the special token `{special}` can be merged from ordinary text")),
        None => Ok(()),
    }
}

/// The tokens put before every text: all that stands before a text's own tokens.
fn start_tokens(tokenizer: &tokenizers::Tokenizer) -> Result<Vec<TokenId>, String> {
    let encode = |add: bool| tokenizer.encode_fast("a", add).map_err(|e| e.to_string());
    let (with, without) = (encode(true)?, encode(false)?);
    let (with, without) = (with.get_ids(), without.get_ids());
    let at = with.windows(without.len().max(1)).position(|window| window == without).unwrap_or(0);
    Ok(with[..at].to_vec())
}

/// The tokenizer that puts no space before a text, if this one does.
fn without_prefix(json: &Json) -> Option<Json> {
    let mut bare = json.clone();
    for part in ["normalizer", "pre_tokenizer"] {
        remove_prefix(&mut bare[part]);
    }
    (bare != *json).then_some(bare)
}

fn remove_prefix(step: &mut Json) {
    let list = ["normalizers", "pretokenizers"].into_iter().find(|list| step[list].is_array());
    if let Some(steps) = list.and_then(|list| step[list].as_array_mut()) {
        steps.iter_mut().for_each(remove_prefix);
        steps.retain(|step| !step.is_null());
    }
    match step["type"].as_str() {
        Some("Prepend") => *step = Json::Null,
        Some("Metaspace") => {
            let add = step.as_object_mut().and_then(|step| step.remove("add_prefix_space"));
            if add != Some(Json::Bool(false)) {
                step["prepend_scheme"] = Json::from("never");
            }
        }
        _ => {}
    }
}
