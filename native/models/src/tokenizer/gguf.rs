//! GGUF's tokenizer metadata (`tokenizer.ggml.*`) as a tokenizer.json, so that there is one way to a tokenizer.
//!
//! Byte-level BPE (`gpt2`) with the splits of GPT-2, SmolLM, Llama 3, Qwen2 and Mistral's Tekken is supported. What else there is (SentencePiece's
//! `llama`, `bert`, `t5`, other splits) is refused by name: a wrong split gives tokens the model was not trained on.

use candle_core::quantized::gguf_file::Value as GgufValue;
use serde_json::{Value as Json, json};
use specula_decoding::TokenId;

use crate::gguf::{Gguf, Value};

/// `tokenizer.ggml.token_type`.
const NORMAL: i64 = 1;
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const UNUSED: i64 = 5;

/// Keys of single tokens that are special whatever their type says.
const SPECIAL_IDS: [&str; 7] = [
    "bos_token_id",
    "eos_token_id",
    "eot_token_id",
    "eom_token_id",
    "unknown_token_id",
    "padding_token_id",
    "seperator_token_id",
];

/// How a text is cut before merging: llama.cpp's names of ways (`tokenizer.ggml.pre`).
struct Split {
    names: &'static [&'static str],
    /// Pieces of their own, one expression after the other.
    regexes: &'static [&'static str],
    /// Whether GPT-2's expression, which the byte-level step brings along, comes last.
    gpt2: bool,
    /// Unicode normal form C first.
    composed: bool,
    /// A piece that is a token as it stands is not merged up from its bytes.
    whole_first: bool,
    /// Whether prompts begin with the begin-of-text token unless `add_bos_token` says otherwise.
    starts: bool,
}

const SPLITS: [Split; 5] = [
    Split { names: &["gpt-2", "gpt2"], regexes: &[], gpt2: true, composed: false, whole_first: false, starts: false },
    Split { names: &["smollm"], regexes: &[r"\p{N}"], gpt2: true, composed: false, whole_first: false, starts: false },
    Split {
        names: &["llama-bpe", "llama3", "llama-v3", "smaug-bpe"],
        regexes: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        gpt2: false,
        composed: false,
        whole_first: true,
        starts: true,
    },
    Split {
        names: &["qwen2", "deepseek-r1-qwen"],
        regexes: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        gpt2: false,
        composed: true,
        whole_first: false,
        starts: false,
    },
    Split {
        names: &["tekken"],
        regexes: &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        gpt2: false,
        composed: false,
        whole_first: true,
        starts: true,
    },
];

/// The other way round: a tokenizer.json as GGUF's metadata. `rows` is the model's vocabulary, `start` stands before every
/// text and `end` ends an answer.
pub(crate) fn gguf_metadata(
    json: &Json,
    rows: usize,
    (start, end): (&[TokenId], TokenId),
) -> Result<Vec<(String, GgufValue)>, String> {
    let splits = pre_tokenizers(&json["pre_tokenizer"]);
    let known = SPLITS.iter().find(|split| pre_tokenizers(&pre_tokenizer(split)) == splits);
    let split = known.ok_or("the tokenizer cuts texts in a way that GGUF has no name for")?;
    let mut tokens: Vec<Option<(String, i64)>> = vec![None; rows];
    let vocab = json["model"]["vocab"].as_object().ok_or("tokenizer.json: `model.vocab` is missing")?;
    let plain = vocab.iter().map(|(token, id)| (id.as_u64(), token.clone(), NORMAL));
    let added = json["added_tokens"].as_array().into_iter().flatten().map(|token| {
        let kind = if token["special"] == true { CONTROL } else { USER_DEFINED };
        (token["id"].as_u64(), token["content"].as_str().unwrap_or_default().to_owned(), kind)
    });
    for (id, token, kind) in plain.chain(added) {
        match id.and_then(|id| tokens.get_mut(id as usize)) {
            Some(place) => *place = Some((token, kind)),
            None => return Err(format!("token `{token}` lies outside the model's {rows} rows")),
        }
    }
    let unused = |id: usize| (format!("[PAD{id}]"), UNUSED);
    let (tokens, kinds): (Vec<_>, Vec<_>) =
        tokens.into_iter().enumerate().map(|(id, token)| token.unwrap_or_else(|| unused(id))).unzip();
    let merges = json["model"]["merges"].as_array().into_iter().flatten().map(|merge| match merge {
        Json::String(pair) => pair.clone(),
        pair => [&pair[0], &pair[1]].map(|part| part.as_str().unwrap_or_default()).join(" "),
    });
    let texts = |texts: Vec<String>| GgufValue::Array(texts.into_iter().map(GgufValue::String).collect());
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let mut metadata = vec![
        (key("model"), GgufValue::String("gpt2".into())),
        (key("pre"), GgufValue::String(split.names[0].into())),
        (key("merges"), texts(merges.collect())),
        (key("tokens"), texts(tokens)),
        (key("token_type"), GgufValue::Array(kinds.into_iter().map(|kind| GgufValue::I32(kind as i32)).collect())),
        (key("eos_token_id"), GgufValue::U32(end)),
        (key("add_bos_token"), GgufValue::Bool(!start.is_empty())),
        (key("ignore_merges"), GgufValue::Bool(json["model"]["ignore_merges"] == true)),
    ];
    match start {
        [] => {}
        [token] => metadata.push((key("bos_token_id"), GgufValue::U32(*token))),
        more => return Err(format!("the tokenizer puts {} tokens before every text; GGUF knows of one", more.len())),
    }
    Ok(metadata)
}

/// Expressions that a pre-tokenizer cuts by, in order, and whether GPT-2's comes with the byte-level step.
fn pre_tokenizers(json: &Json) -> Vec<String> {
    match json["type"].as_str() {
        Some("Sequence") => json["pretokenizers"].as_array().into_iter().flatten().flat_map(pre_tokenizers).collect(),
        Some("Split") => vec![json["pattern"]["Regex"].as_str().unwrap_or_default().to_owned()],
        Some("ByteLevel") if json["use_regex"] == false => Vec::new(),
        other => vec![other.unwrap_or_default().to_owned()],
    }
}

/// A tokenizer.json.
pub(super) fn json(file: &Gguf<'_>) -> Result<Json, String> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    match file.text(&key("model"))? {
        Some("gpt2") => {}
        other => {
            return Err(format!(
                "`tokenizer.ggml.model` = `{}` is not supported; supported: gpt2 (byte-level BPE)",
                other.unwrap_or("missing")
            ));
        }
    }
    let split = split(file.text(&key("pre"))?)?;
    let tokens = file.texts(&key("tokens"))?.ok_or("metadata key `tokenizer.ggml.tokens` is missing")?;
    let kinds = kinds(file, tokens.len())?;
    let mut vocab = serde_json::Map::with_capacity(tokens.len());
    let mut added = Vec::new();
    for (id, (token, kind)) in tokens.iter().zip(&kinds).enumerate() {
        // Rows of the embedding table that no token was made for.
        if *kind == UNUSED {
            continue;
        }
        if vocab.insert((*token).to_owned(), json!(id)).is_some() {
            return Err(format!("`tokenizer.ggml.tokens` holds `{token}` twice, the second time as token {id}"));
        }
        if [UNKNOWN, CONTROL, USER_DEFINED].contains(kind) {
            added.push(json!({
                "id": id, "content": token, "special": *kind != USER_DEFINED,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            }));
        }
    }
    let merges = file.texts(&key("merges"))?.ok_or("metadata key `tokenizer.ggml.merges` is missing")?;
    let merges: Vec<&str> = merges.to_vec();
    let whole_first = match file.get(&key("ignore_merges")) {
        Some(Value::Bool(b)) => *b,
        _ => split.whole_first,
    };
    Ok(json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": if split.composed { json!({"type": "NFC"}) } else { Json::Null },
        "pre_tokenizer": pre_tokenizer(split),
        "post_processor": start_processor(file, split, tokens)?,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": whole_first},
    }))
}

fn split(name: Option<&str>) -> Result<&'static Split, String> {
    let found = SPLITS.iter().find(|split| name.is_some_and(|n| split.names.contains(&n)));
    found.ok_or_else(|| {
        let names = SPLITS.iter().flat_map(|s| s.names).copied().collect::<Vec<_>>().join(", ");
        match name {
            Some(name) => format!("`tokenizer.ggml.pre` = `{name}` is not supported; supported: {names}"),
            None => {
                format!("metadata key `tokenizer.ggml.pre` is missing; convert the model again; supported: {names}")
            }
        }
    })
}

/// Every token's type.
fn kinds(file: &Gguf<'_>, count: usize) -> Result<Vec<i64>, String> {
    let mut kinds = match file.get("tokenizer.ggml.token_type") {
        None => vec![NORMAL; count],
        Some(Value::Integers(kinds)) if kinds.len() == count => kinds.clone(),
        Some(_) => return Err(format!("metadata key `tokenizer.ggml.token_type` is no list of {count} integers")),
    };
    for name in SPECIAL_IDS {
        if let Some(id) = token_id(file, name, count)? {
            kinds[id] = CONTROL;
        }
    }
    Ok(kinds)
}

fn token_id(file: &Gguf<'_>, name: &str, count: usize) -> Result<Option<usize>, String> {
    let key = format!("tokenizer.ggml.{name}");
    match file.integer(&key)? {
        Some(id) if id >= count => Err(format!("`{key}` = {id} lies outside the vocabulary of {count}")),
        id => Ok(id),
    }
}

fn pre_tokenizer(split: &Split) -> Json {
    let cut = |regex| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let mut steps: Vec<Json> = split.regexes.iter().map(cut).collect();
    steps.push(json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": split.gpt2,
    }));
    json!({"type": "Sequence", "pretokenizers": steps})
}

/// Puts the begin-of-text token before a prompt, if the model was trained so.
fn start_processor(file: &Gguf<'_>, split: &Split, tokens: &[&str]) -> Result<Json, String> {
    let starts = match file.get("tokenizer.ggml.add_bos_token") {
        Some(Value::Bool(b)) => *b,
        _ => split.starts,
    };
    let Some(id) = token_id(file, "bos_token_id", tokens.len())?.filter(|_| starts) else { return Ok(Json::Null) };
    let start = tokens[id];
    Ok(json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": start, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {start: {"id": start, "ids": [id], "tokens": [start]}},
    }))
}

/// Texts of the tokens that templates write by name (`bos_token`, `eos_token`).
pub(crate) fn named_tokens(file: &Gguf<'_>) -> Result<Vec<(&'static str, String)>, String> {
    let tokens = file.texts("tokenizer.ggml.tokens")?.unwrap_or_default();
    let mut named = Vec::new();
    for (name, key) in [("bos_token", "bos_token_id"), ("eos_token", "eos_token_id")] {
        if let Some(id) = token_id(file, key, tokens.len())? {
            named.push((name, tokens[id].to_owned()));
        }
    }
    Ok(named)
}
