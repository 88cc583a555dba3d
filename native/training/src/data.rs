//! Texts to learn from: conversations through the chat template, or plain text.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use specula_decoding::TokenId;
use specula_models::{ChatMessage, ChatTemplate, Tokenizer};

use crate::order::Shuffle;
use crate::recipe::{BadLines, Data, Learn};

/// A text as tokens, with what of it is learnt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) tokens: Vec<TokenId>,
    /// Whether token i is learnt, that is predicted by row i − 1; the first never is.
    pub(crate) learnt: Vec<bool>,
}

/// Turns texts to tokens.
pub(crate) struct Reader<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) template: Option<&'a ChatTemplate>,
    /// The token that ends an answer.
    pub(crate) end: TokenId,
    pub(crate) learn: Learn,
}

#[derive(Deserialize)]
struct Line {
    messages: Vec<Message>,
    /// `length`: the last answer was cut, so its end is not learnt. As `specula generate --batch` writes it.
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: String,
}

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    pub(crate) texts: Vec<Text>,
    /// Texts that fill a sequence, most of them because they were cut.
    pub(crate) cut: usize,
    /// Complaints about lines that were skipped.
    pub(crate) bad: Vec<String>,
}

impl Texts {
    /// Tells people what was read and what was not.
    pub(crate) fn tell(&self, length: usize) {
        self.bad.iter().for_each(|why| eprintln!("skipped: {why}"));
        eprintln!("{} texts, {} of them cut at {length} tokens", self.texts.len(), self.cut);
    }
}

impl Reader<'_> {
    /// Reads the training files of a recipe.
    pub(crate) fn all(&self, data: &Data, home: &Path, seed: u64) -> Result<Texts> {
        let mut all = Texts::default();
        for file in &data.files {
            let mut read = self.file(&home.join(file), data.length, data.bad_lines)?;
            let cut = |text: &&Text| text.tokens.len() == data.length;
            if data.texts_per_file > 0 && data.texts_per_file < read.texts.len() {
                Shuffle::new(seed, 0).apply(&mut read.texts);
                read.texts.truncate(data.texts_per_file);
            }
            all.cut += read.texts.iter().filter(cut).count();
            all.texts.append(&mut read.texts);
            all.bad.append(&mut read.bad);
        }
        if all.texts.is_empty() {
            bail!("the files of `data.files` hold no text");
        }
        Ok(all)
    }

    /// Reads a file; texts are cut at `length` tokens.
    pub(crate) fn file(&self, path: &Path, length: usize, bad_lines: BadLines) -> Result<Texts> {
        let mut texts = Texts::default();
        let open = || File::open(path).with_context(|| path.display().to_string());
        let mut add = |mut text: Text| {
            text.tokens.truncate(length);
            text.learnt.truncate(length);
            if text.learnt.contains(&true) {
                texts.texts.push(text);
            }
        };
        if path.extension().is_none_or(|end| end != "jsonl") {
            let plain = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            let tokens = self.tokenizer.encode_prompt(&plain).map_err(|why| anyhow!(why))?;
            // A long text becomes many, each of which predicts all of its tokens but the first.
            for part in tokens.chunks(length) {
                let learnt = (0..part.len()).map(|i| i > 0).collect();
                add(Text { tokens: part.to_vec(), learnt });
            }
            return Ok(texts);
        }
        let mut bad = Vec::new();
        for (number, line) in BufReader::new(open()?).lines().enumerate() {
            let line = line.with_context(|| path.display().to_string())?;
            match self.conversation(&line) {
                Ok(conversation) => conversation.into_iter().for_each(&mut add),
                Err(why) => bad.push(format!("{}, line {}: {why:#}", path.display(), number + 1)),
            }
            if let (BadLines::Refuse, Some(why)) = (bad_lines, bad.first()) {
                bail!("{why}; mend it, or set `data.bad_lines = \"skip\"`");
            }
        }
        texts.bad = bad;
        Ok(texts)
    }

    /// Prompts of a file's conversations: all before the last answer.
    pub(crate) fn prompts(&self, path: &Path) -> Result<Vec<Vec<TokenId>>> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let prompt = |(number, line): (usize, std::io::Result<String>)| {
            let encode = || {
                let (mut messages, _) = parse(&line?)?;
                messages.pop_if(|last| last.role == "assistant");
                self.encode(&messages)
            };
            encode().with_context(|| format!("{}, line {}", path.display(), number + 1))
        };
        BufReader::new(file).lines().enumerate().map(prompt).collect()
    }

    /// A conversation is one text where the template goes on as it began; a template that rewrites what went before
    /// (some drop old reasoning) makes one text a turn.
    fn conversation(&self, line: &str) -> Result<Vec<Text>> {
        let (messages, cut) = parse(line)?;
        let mut texts: Vec<Text> = Vec::new();
        for (i, message) in messages.iter().enumerate().filter(|(_, m)| m.role == "assistant") {
            let prompt = self.encode(&messages[..i])?;
            let continues = texts.last().is_some_and(|last| prompt.starts_with(&last.tokens));
            if !continues {
                texts.push(Text { tokens: Vec::new(), learnt: Vec::new() });
            }
            let Some(text) = texts.last_mut() else { continue };
            let all = self.learn == Learn::All;
            text.learnt.resize(prompt.len(), all);
            text.tokens = prompt;
            text.tokens.extend(self.tokenizer.encode_text(&message.content).map_err(|why| anyhow!(why))?);
            if !(cut && i + 1 == messages.len()) {
                text.tokens.push(self.end);
            }
            text.learnt.resize(text.tokens.len(), true);
            text.learnt[0] = false;
        }
        if texts.is_empty() {
            bail!("no message has the role `assistant`");
        }
        Ok(texts)
    }

    fn encode(&self, messages: &[ChatMessage]) -> Result<Vec<TokenId>> {
        let template = self.template.context("the model has no chat template; use plain text files")?;
        Ok(template.encode(self.tokenizer, messages)?)
    }
}

fn parse(line: &str) -> Result<(Vec<ChatMessage>, bool)> {
    let line: Line = serde_json::from_str(line)?;
    let messages = line.messages.into_iter().map(|m| ChatMessage { role: m.role, content: m.content }).collect();
    Ok((messages, line.finish_reason.as_deref() == Some("length")))
}
