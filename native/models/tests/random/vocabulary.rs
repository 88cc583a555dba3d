//! Small byte-level vocabularies that are built as the families' own: 256 bytes, a few merges, special tokens.

use std::path::Path;

use serde_json::{Value as Json, json};
use specula_decoding::TokenId;

#[derive(Clone)]
pub(crate) struct Vocabulary {
    pub(crate) specials: &'static [&'static str],
    /// Added tokens that are text all the same.
    pub(crate) defined: &'static [&'static str],
    pub(crate) start: &'static str,
    pub(crate) end: &'static str,
    pub(crate) template: &'static str,
    /// As `tokenizer.ggml.pre` names it.
    pub(crate) split: &'static str,
    pre_tokenizers: fn() -> Vec<Json>,
    composed: bool,
    /// Whether tokens are SentencePiece's: pieces with U+2581 for a space, and bytes for what is no piece.
    sentence_piece: bool,
    /// Whether every text begins with the start token.
    pub(crate) starts: bool,
}

/// Pieces of one letter, in vocabularies that have pieces; all else is bytes.
const LETTERS: [&str; 15] = ["\u{2581}", "h", "e", "l", "o", "w", "r", "1", "2", "i", "n", "t", "u", "s", "é"];

const MERGES: [(&str, &str); 13] = [
    ("h", "e"),
    ("l", "l"),
    ("he", "ll"),
    ("hell", "o"),
    ("Ġ", "w"),
    ("o", "r"),
    ("Ġw", "or"),
    ("1", "2"),
    ("i", "n"),
    ("Ġ", "t"),
    ("e", "r"),
    ("u", "s"),
    ("us", "er"),
];

impl Vocabulary {
    pub(crate) fn llama() -> Self {
        Self {
            specials: &["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
            defined: &["<tool>"],
            start: "<|begin_of_text|>",
            end: "<|eot_id|>",
            // The form of Llama 3's own, with its date (which no clock fills here) and its trimming.
            template: "{{- bos_token }}\n{%- if not date_string is defined %}\n    {%- if strftime_now is defined %}\n        \
                       {%- set date_string = strftime_now(\"%d %b %Y\") %}\n    {%- else %}\n        {%- set date_string = \
                       \"26 Jul 2024\" %}\n    {%- endif %}\n{%- endif %}\n{%- if messages[0]['role'] == 'system' %}\n    \
                       {%- set system_message = messages[0]['content'] | trim %}\n    {%- set messages = messages[1:] %}\n\
                       {%- else %}\n    {%- set system_message = \"\" %}\n{%- endif %}\n\
                       {{- \"<|start_header_id|>system<|end_header_id|>\\n\\n\" }}\n\
                       {{- \"Today Date: \" + date_string + \"\\n\\n\" }}\n{{- system_message }}\n{{- \"<|eot_id|>\" }}\n\
                       {%- for message in messages %}\n    {{- '<|start_header_id|>' + message['role'] + \
                       '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}\n{%- endfor %}\n\
                       {%- if add_generation_prompt %}\n    \
                       {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{%- endif %}\n",
            split: "llama-bpe",
            pre_tokenizers: || {
                expression(
                    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
                )
            },
            composed: false,
            sentence_piece: false,
            starts: true,
        }
    }

    /// Mistral 7B's and Phi-3's: SentencePiece, a space before every text.
    pub(crate) fn mistral() -> Self {
        Self { sentence_piece: true, ..Self::tekken() }
    }

    pub(crate) fn qwen() -> Self {
        Self {
            specials: &["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            defined: &["<think>", "</think>"],
            start: "<|endoftext|>",
            end: "<|im_end|>",
            template: "{%- if messages[0].role == 'system' %}\n    {{- '<|im_start|>system\\n' + messages[0].content + \
                       '<|im_end|>\\n' }}\n{%- else %}\n    {{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}\n\
                       {%- endif %}\n{%- for message in messages %}\n    {%- if message.role == 'user' or message.role == \
                       'assistant' %}\n        {{- '<|im_start|>' + message.role + '\\n' + \
                       message.content.split('</think>')[-1].lstrip('\\n') + '<|im_end|>\\n' }}\n    {%- elif message.role \
                       != 'system' or not loop.first %}\n        {{- raise_exception('no role ' + message.role) }}\n    \
                       {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    \
                       {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n",
            split: "qwen2",
            pre_tokenizers: || {
                expression(
                    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
                )
            },
            composed: true,
            sentence_piece: false,
            starts: false,
        }
    }

    /// Mistral Nemo's, which cuts words where small letters turn large.
    pub(crate) fn tekken() -> Self {
        Self {
            specials: &["<unk>", "<s>", "</s>", "[INST]", "[/INST]"],
            start: "<s>",
            end: "</s>",
            template: "{{- bos_token }}{%- for message in messages %}{%- if message.role == 'user' %}\
                       {{- '[INST]' + message.content + '[/INST]' }}{%- elif message.role == 'assistant' %}\
                       {{- message.content + eos_token }}{%- else %}{{- message.content }}{%- endif %}{%- endfor %}",
            split: "tekken",
            pre_tokenizers: || {
                expression(
                    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
                )
            },
            ..Self::llama()
        }
    }

    /// SmolLM's, which cuts digits apart and then as GPT-2 does.
    pub(crate) fn smollm() -> Self {
        let digits = || vec![json!({"type": "Digits", "individual_digits": true}), byte_level(true)];
        Self { split: "smollm", pre_tokenizers: digits, composed: false, ..Self::qwen() }
    }

    /// GPT-2's own.
    pub(crate) fn gpt2() -> Self {
        Self { split: "gpt-2", pre_tokenizers: || vec![byte_level(true)], composed: false, ..Self::qwen() }
    }

    /// Spellings by id.
    pub(crate) fn tokens(&self) -> Vec<String> {
        let bytes: Vec<String> = match self.sentence_piece {
            true => (0..=255_u8).map(|b| format!("<0x{b:02X}>")).chain(LETTERS.map(str::to_owned)).collect(),
            false => (0..=255).map(|b| byte_spelling(b).to_string()).collect(),
        };
        let merged = self.merges().into_iter().map(|merge| merge.replacen(' ', "", 1)).collect::<Vec<_>>();
        let added = self.specials.iter().chain(self.defined).map(|s| (*s).to_owned());
        bytes.into_iter().chain(merged).chain(added).collect()
    }

    pub(crate) fn merges(&self) -> Vec<String> {
        let space = if self.sentence_piece { "\u{2581}" } else { "Ġ" };
        MERGES.iter().map(|(a, b)| format!("{a} {b}").replace('Ġ', space)).collect()
    }

    pub(crate) fn id(&self, token: &str) -> TokenId {
        self.tokens().iter().position(|t| t == token).expect("a token") as TokenId
    }

    /// tokenizer.json, as the families' own are.
    pub(crate) fn tokenizer_json(&self) -> Json {
        let tokens = self.tokens();
        let plain = tokens.len() - self.specials.len() - self.defined.len();
        let vocab: serde_json::Map<String, Json> =
            tokens[..plain].iter().enumerate().map(|(id, t)| (t.clone(), json!(id))).collect();
        let added: Vec<Json> = (plain..tokens.len())
            .map(|id| {
                json!({
                    "id": id, "content": tokens[id], "special": self.specials.contains(&tokens[id].as_str()),
                    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                })
            })
            .collect();
        let byte_level = byte_level(false);
        let space = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
        let normalizer = match (self.sentence_piece, self.composed) {
            (true, _) => {
                json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u{2581}"}, space]})
            }
            (false, true) => json!({"type": "NFC"}),
            (false, false) => Json::Null,
        };
        let pre_tokenizer = match self.sentence_piece {
            true => Json::Null,
            false => json!({"type": "Sequence", "pretokenizers": (self.pre_tokenizers)()}),
        };
        let start = json!({"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": self.start, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {self.start: {"id": self.start, "ids": [self.id(self.start)], "tokens": [self.start]}}});
        json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": added,
            "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": if self.starts { start } else { byte_level.clone() },
            "decoder": if self.sentence_piece { json!({"type": "ByteFallback"}) } else { byte_level },
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": self.sentence_piece, "byte_fallback": self.sentence_piece,
                "ignore_merges": self.starts && !self.sentence_piece,
                "vocab": vocab, "merges": self.merges()},
        })
    }

    /// Writes a folder's files of it.
    pub(crate) fn write(&self, folder: &Path) {
        let write = |name: &str, text: String| std::fs::write(folder.join(name), text).expect("written");
        write("tokenizer.json", self.tokenizer_json().to_string());
        write("tokenizer_config.json", self.tokenizer_config().to_string());
        write("chat_template.jinja", self.template.to_owned());
    }

    pub(crate) fn tokenizer_config(&self) -> Json {
        json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.start,
            "eos_token": {"content": self.end, "special": true, "__type": "AddedToken"},
        })
    }
}

fn expression(regex: &str) -> Vec<Json> {
    let split = json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    vec![split, byte_level(false)]
}

fn byte_level(gpt2: bool) -> Json {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": gpt2})
}

/// GPT-2's alphabet, written out once more: it is what the loader's own is checked against.
fn byte_spelling(byte: u8) -> char {
    let shown = |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || (174..=255).contains(&b);
    let code = u32::from(byte);
    let code = if shown(code) { code } else { 256 + (0..code).filter(|b| !shown(*b)).count() as u32 };
    char::from_u32(code).expect("a character")
}
