//! Makes a byte-level BPE tokenizer from the texts that a model will be trained on.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, TokenizerBuilder, TokenizerImpl};

use crate::files;
use crate::recipe;

/// `specula train tokenizer`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    /// As `data.files` of the other recipes.
    files: Vec<PathBuf>,
    /// Tokens, special ones included.
    vocab_size: usize,
    /// Special tokens, which get the first ids in this order.
    special: Vec<String>,
    /// The special token that ends an answer.
    end: String,
    /// Jinja, as in Hugging Face's tokenizer_config.json.
    chat_template: String,
}

/// How Qwen2's tokenizers cut texts before merging; GGUF knows it as `qwen2`.
const SPLIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Writes `tokenizer.json` and `tokenizer_config.json` as a recipe says.
///
/// # Errors
/// The recipe's and the data's, with what to mend.
pub fn train_tokenizer(recipe: &Path, folder: &Path) -> Result<()> {
    let home = recipe::home(recipe);
    let recipe: Recipe = recipe::read(recipe)?;
    recipe::at_least("vocab_size", recipe.vocab_size, 256 + recipe.special.len())?;
    if !recipe.special.contains(&recipe.end) {
        bail!("`end` = {:?} is none of `special`; add it there", recipe.end);
    }
    let mut texts = Vec::new();
    for file in &recipe.files {
        texts.append(&mut contents(&home.join(file))?);
    }
    let split = Split::new(SplitPattern::Regex(SPLIT.into()), SplitDelimiterBehavior::Isolated, false);
    let bytes = ByteLevel::new(false, false, false);
    let tokenizer = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(Some(NFC))
        .with_pre_tokenizer(Some(Sequence::new(vec![split.map_err(|e| anyhow!(e))?.into(), bytes.into()])))
        .with_post_processor(Some(bytes))
        .with_decoder(Some(bytes))
        .build();
    let mut tokenizer: TokenizerImpl<BPE, NFC, Sequence, ByteLevel, ByteLevel> = tokenizer.map_err(|e| anyhow!(e))?;
    let mut trainer = BpeTrainer::builder()
        .vocab_size(recipe.vocab_size)
        .special_tokens(recipe.special.iter().map(|token| AddedToken::from(token.as_str(), true)).collect())
        // Every byte is a token, so that any text can be spelled.
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .show_progress(true)
        .build();
    tokenizer.train(&mut trainer, texts.iter().map(String::as_str)).map_err(|e| anyhow!(e))?;
    let made = tokenizer.to_string(true).map_err(|e| anyhow!(e))?;
    files::replace(&folder.join("tokenizer.json"), made.as_bytes())?;
    let config = json!({"chat_template": recipe.chat_template, "eos_token": recipe.end, "bos_token": Value::Null});
    files::replace(&folder.join("tokenizer_config.json"), &serde_json::to_vec_pretty(&config)?)?;
    Ok(())
}

/// Texts of a file: contents of messages, or the lines of plain text.
fn contents(path: &Path) -> Result<Vec<String>> {
    let conversations = path.extension().is_some_and(|end| end == "jsonl");
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let mut texts = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(|| path.display().to_string())?;
        if !conversations {
            texts.push(line + "\n");
            continue;
        }
        let parsed: Value =
            serde_json::from_str(&line).with_context(|| format!("{}, line {}", path.display(), number + 1))?;
        for message in parsed["messages"].as_array().into_iter().flatten() {
            texts.extend(message["content"].as_str().map(str::to_owned));
        }
    }
    Ok(texts)
}
