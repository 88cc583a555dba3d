//! `/tokenize` and `/detokenize`.

use serde_json::Value;
use specula_decoding::ends::Decoder;
use specula_engine::RequestError;
use specula_protocol::tokens::{DetokenizeRequest, Detokenized, TokenizeRequest, Tokenized};

use crate::decode::decode;
use crate::errors::Fault;
use crate::generation::is_served;
use crate::seam::Engine;
use crate::wire;

/// Turns a text or a chat into tokens.
pub(crate) fn tokenize(engine: &Engine, value: Value) -> Result<Tokenized, Fault> {
    let request: TokenizeRequest = decode(value)?;
    is_served(engine, request.model.as_ref())?;
    let tokens = match (&request.messages, &request.prompt) {
        (Some(messages), None) => wire::encode_messages(engine, messages)?,
        (None, Some(prompt)) => engine.encode_text(prompt)?,
        (Some(_), Some(_)) => {
            return Err(wire::invalid("prompt", "`messages` and `prompt` exclude each other".into()).into());
        }
        (None, None) => {
            let message = "one of `messages` and `prompt` is needed".into();
            return Err(RequestError { field: "prompt".into(), code: "missing_field", message }.into());
        }
    };
    let spelled = |id: &u32| String::from_utf8_lossy(engine.token_bytes().get(*id)).into_owned();
    Ok(Tokenized {
        count: tokens.len() as u64,
        max_model_len: engine.facts().context_length as u64,
        token_strs: request.return_token_strs.then(|| tokens.iter().map(spelled).collect()),
        tokens,
    })
}

/// Turns tokens into text.
pub(crate) fn detokenize(engine: &Engine, value: Value) -> Result<Detokenized, Fault> {
    let request: DetokenizeRequest = decode(value)?;
    is_served(engine, request.model.as_ref())?;
    let mut decoder = Decoder::default();
    let tokens = wire::token_ids(engine, "tokens", &request.tokens)?;
    let mut prompt: String = tokens.iter().map(|&id| decoder.push(engine.token_bytes().get(id))).collect();
    prompt += &decoder.finish();
    Ok(Detokenized { prompt })
}
