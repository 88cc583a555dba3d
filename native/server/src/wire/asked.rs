//! From the wire's request to the engine's. Checks only what the engine cannot see.

use serde_json::Value;
use specula_decoding::TokenId;
use specula_engine::{
    LogProbsSpec, OnFailure, OutputFormat, PluginSpec, RequestError, RequestSpec, SettingsSpec, Tenant,
};
use specula_protocol as protocol;
use specula_protocol::{GenerateRequest, LogProbsAsked, Prompt};

use crate::errors;
use crate::seam::Engine;

/// Most choices of a request, over all its prompts.
const MAX_CHOICES: u64 = 16;

/// What is asked, prompts in tokens: `n` generations for each prompt, in OpenAI's order of choices. Checks only what the
/// engine cannot see: fields that exclude each other, and forms that only the wire has.
///
/// # Errors
/// Names field, bound, value and remedy.
pub fn request_specs(engine: &Engine, request: &GenerateRequest) -> Result<Vec<RequestSpec>, RequestError> {
    let mut spec = spec_without_prompt(request)?;
    let prompts = match (&request.messages, &request.prompt) {
        (Some(messages), None) => vec![encode_messages(engine, messages)?],
        (None, Some(prompt)) => encode_prompts(engine, prompt)?,
        (None, None) => return Err(invalid("messages", "one of `messages` and `prompt` is needed".into())),
        (Some(_), Some(_)) => return Err(invalid("prompt", "`messages` and `prompt` exclude each other".into())),
    };
    let n = choices_per_prompt(request);
    if n == 0 || n.saturating_mul(prompts.len() as u64) > MAX_CHOICES {
        let message = format!(
            "`n` must be at least 1 and, times the number of prompts, at most {MAX_CHOICES}. Given: {n} for each of {}",
            prompts.len()
        );
        return Err(invalid("n", message));
    }
    // All choices share one seed, whoever picks it.
    spec.seed = Some(request.seed.unwrap_or_else(|| engine.pick_seed()));
    let choices = |prompt: Vec<TokenId>| {
        let spec = &spec;
        (0..n as u32).map(move |choice| RequestSpec { prompt: prompt.clone(), choice, ..spec.clone() })
    };
    Ok(prompts.into_iter().flat_map(choices).collect())
}

/// `n`.
pub(crate) fn choices_per_prompt(request: &GenerateRequest) -> u64 {
    request.n.unwrap_or(1)
}

/// A chat in the model's template.
pub(crate) fn encode_messages(engine: &Engine, messages: &[protocol::Message]) -> Result<Vec<TokenId>, RequestError> {
    // OpenAI's newer name of the same role.
    let role = |role: &str| if role == "developer" { "system" } else { role }.to_owned();
    let messages: Vec<_> = messages.iter().map(|m| (role(&m.role), m.content.clone())).collect();
    engine.encode_chat(&messages)
}

/// Ids that are the model's own.
pub(crate) fn token_ids(engine: &Engine, field: &str, tokens: &[u64]) -> Result<Vec<TokenId>, RequestError> {
    let vocab_size = engine.facts().vocab_size as u64;
    match tokens.iter().find(|&&token| token >= vocab_size) {
        Some(bad) => Err(invalid(field, format!("`{field}` must hold token ids below {vocab_size}. Given: {bad}"))),
        None => Ok(tokens.iter().map(|&token| token as TokenId).collect()),
    }
}

fn encode_prompts(engine: &Engine, prompt: &Prompt) -> Result<Vec<Vec<TokenId>>, RequestError> {
    let ids = |tokens: &Vec<u64>| token_ids(engine, "prompt", tokens);
    let prompts: Vec<_> = match prompt {
        Prompt::Text(text) => vec![engine.encode_text(text)?],
        Prompt::Texts(texts) => texts.iter().map(|text| engine.encode_text(text)).collect::<Result<_, _>>()?,
        Prompt::Tokens(tokens) => vec![ids(tokens)?],
        Prompt::TokenLists(lists) => lists.iter().map(ids).collect::<Result<_, _>>()?,
    };
    if prompts.is_empty() {
        return Err(invalid("prompt", "`prompt` must hold at least 1 text or token. Given: an empty array".into()));
    }
    Ok(prompts)
}

fn logprobs(request: &GenerateRequest) -> Result<Option<LogProbsSpec>, RequestError> {
    let processed = match request.logprobs_mode.as_deref() {
        None | Some("raw") => false,
        Some("processed") => true,
        Some(other) => {
            let message = format!("`logprobs_mode` must be `raw` or `processed`. Given: `{}`", errors::clip(other));
            return Err(invalid("logprobs_mode", message));
        }
    };
    let chat = request.messages.is_some();
    let top = match (request.logprobs, request.top_logprobs) {
        (None | Some(LogProbsAsked::Flag(false)), None) => return Ok(None),
        (Some(LogProbsAsked::Flag(true)), top) if chat => top.unwrap_or(0),
        (Some(LogProbsAsked::Top(_)), _) if chat => {
            return Err(invalid(
                "logprobs",
                "`logprobs` of a chat is true or false; `top_logprobs` says how many".into(),
            ));
        }
        (Some(LogProbsAsked::Flag(true)), _) => {
            return Err(invalid("logprobs", "`logprobs` of a completion is a number: how many to tell".into()));
        }
        (Some(LogProbsAsked::Top(top)), None) => top,
        (_, Some(_)) => {
            let message = "`top_logprobs` needs a chat with `logprobs: true`; a completion's `logprobs` is the number";
            return Err(invalid("top_logprobs", message.into()));
        }
    };
    Ok(Some(LogProbsSpec { top, processed }))
}

/// What is not offered but may be named to say so.
fn without_effect(request: &GenerateRequest) -> Result<(), RequestError> {
    match &request.tools {
        Some(tools) if !tools.is_empty() => {
            Err(invalid("tools", format!("`tools` must be empty: there is no tool calling. Given: {}", tools.len())))
        }
        _ => Ok(()),
    }
}

/// What the text must be.
fn output_format(request: &GenerateRequest) -> Result<Option<OutputFormat>, RequestError> {
    let Some(format) = &request.response_format else { return Ok(None) };
    match (format.r#type.as_str(), &format.json_schema) {
        ("text", None) => Ok(None),
        ("json_object", None) => Ok(Some(OutputFormat::JsonObject)),
        ("json_schema", Some(asked)) => Ok(Some(OutputFormat::JsonSchema(asked.schema.clone()))),
        ("json_schema", None) => Err(invalid(
            "response_format.json_schema",
            "`response_format.json_schema` is needed, with `name` and `schema`".into(),
        )),
        ("text" | "json_object", Some(_)) => Err(invalid(
            "response_format.json_schema",
            "`response_format.json_schema` needs `response_format.type` to be `json_schema`".into(),
        )),
        (other, _) => {
            let known = "`response_format.type` must be one of text, json_object, json_schema";
            Err(invalid("response_format.type", format!("{known}. Given: `{}`", errors::clip(other))))
        }
    }
}

/// All of a request but its prompt.
///
/// # Errors
/// As [`request_specs`].
pub fn spec_without_prompt(request: &GenerateRequest) -> Result<RequestSpec, RequestError> {
    without_effect(request)?;
    if request.max_tokens.is_some() && request.max_completion_tokens.is_some() {
        let message = "`max_tokens` and `max_completion_tokens` are two names of one limit; send one of them".into();
        return Err(invalid("max_completion_tokens", message));
    }
    Ok(RequestSpec {
        prompt: Vec::new(),
        max_tokens: request.max_tokens.or(request.max_completion_tokens),
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        min_p: request.min_p,
        seed: request.seed,
        choice: 0,
        min_tokens: request.min_tokens,
        ignore_eos: request.ignore_eos.unwrap_or(false),
        logprobs: logprobs(request)?,
        echo: request.echo.unwrap_or(false),
        stop: match &request.stop {
            None => Vec::new(),
            Some(protocol::Stop::One(stop)) => vec![stop.clone()],
            Some(protocol::Stop::Many(stops)) => stops.clone(),
        },
        logit_bias: logit_bias(request)?,
        repetition_penalty: request.repetition_penalty,
        presence_penalty: request.presence_penalty,
        frequency_penalty: request.frequency_penalty,
        speculation: request.speculation.as_ref().map(settings_spec).unwrap_or_default(),
        deterministic: request.deterministic.unwrap_or(false),
        plugins: plugin_specs(request)?,
        format: output_format(request)?,
        exact_only: false,
        // Whoever knows says so.
        tenant: Tenant::default(),
    })
}

fn logit_bias(request: &GenerateRequest) -> Result<Vec<(u64, f64)>, RequestError> {
    let entries = request.logit_bias.iter().flatten();
    entries
        .map(|(token, &bias)| match token.parse() {
            Ok(token) => Ok((token, bias)),
            Err(_) => {
                let token = errors::clip(token);
                let message = format!("keys of `logit_bias` must be token ids, whole numbers ≥ 0. Given: `{token}`");
                Err(invalid("logit_bias", message))
            }
        })
        .collect()
}

fn settings_spec(asked: &protocol::Speculation) -> SettingsSpec {
    SettingsSpec {
        method: asked.method.clone(),
        window: asked.window,
        exit_layer: asked.exit_layer,
        exit_top: asked.exit_top,
        branch_budget: asked.branch_budget,
        roots: asked.roots.clone(),
        allocation: asked.allocation.clone(),
        streams: asked.streams,
        look_ahead: asked.look_ahead.clone(),
    }
}

fn plugin_specs(request: &GenerateRequest) -> Result<Vec<PluginSpec>, RequestError> {
    let plugins = request.plugins.iter().flatten().enumerate();
    plugins
        .map(|(i, plugin)| {
            let config = match &plugin.config {
                None => Value::Object(serde_json::Map::new()),
                Some(config @ Value::Object(_)) => config.clone(),
                Some(_) => {
                    let field = format!("plugins[{i}].config");
                    return Err(invalid(&field, format!("`{field}` must be an object")));
                }
            };
            let on_failure = plugin.on_failure.as_deref().map(|name| on_failure(i, name)).transpose()?;
            Ok(PluginSpec { name: plugin.name.clone(), config, on_failure })
        })
        .collect()
}

fn on_failure(i: usize, name: &str) -> Result<OnFailure, RequestError> {
    OnFailure::from_name(name).ok_or_else(|| {
        let field = format!("plugins[{i}].on_failure");
        let known = OnFailure::ALL.map(OnFailure::name).join(", ");
        invalid(&field, format!("`{field}` must be one of {known}. Given: `{}`", errors::clip(name)))
    })
}

pub(crate) fn invalid(field: &str, message: String) -> RequestError {
    RequestError { field: field.to_owned(), code: "invalid_value", message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(json: serde_json::Value) -> GenerateRequest {
        serde_json::from_value(json).expect("a request")
    }

    #[test]
    fn every_sampling_field_reaches_the_engine() {
        let request = asked(serde_json::json!({
            "max_completion_tokens": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "seed": 3,
            "stop": "x", "logit_bias": {"12": -100.0}, "repetition_penalty": 1.1, "presence_penalty": 0.2,
            "frequency_penalty": 0.3, "deterministic": true, "n": 1,
            "min_tokens": 2, "ignore_eos": true, "logprobs": 3, "logprobs_mode": "processed", "echo": true,
            "speculation": {"method": "mirror", "window": 5, "exit_layer": 2, "exit_top": 8, "branch_budget": 6, "streams": 1, "look_ahead": "keep",
                            "roots": "both", "allocation": "scored"},
            "plugins": [{"name": "typical", "on_failure": "stop"}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "array"}}}
        }));
        let spec = spec_without_prompt(&request).expect("valid");
        let want = RequestSpec {
            prompt: Vec::new(),
            max_tokens: Some(7),
            temperature: Some(0.5),
            top_p: Some(0.9),
            top_k: Some(40),
            min_p: Some(0.1),
            seed: Some(3),
            choice: 0,
            min_tokens: Some(2),
            ignore_eos: true,
            logprobs: Some(LogProbsSpec { top: 3, processed: true }),
            echo: true,
            stop: vec!["x".into()],
            logit_bias: vec![(12, -100.0)],
            repetition_penalty: Some(1.1),
            presence_penalty: Some(0.2),
            frequency_penalty: Some(0.3),
            speculation: SettingsSpec {
                method: Some("mirror".into()),
                window: Some(5),
                exit_layer: Some(2),
                exit_top: Some(8),
                branch_budget: Some(6),
                streams: Some(1),
                look_ahead: Some("keep".into()),
                roots: Some("both".into()),
                allocation: Some("scored".into()),
            },
            deterministic: true,
            plugins: vec![PluginSpec {
                name: "typical".into(),
                config: serde_json::json!({}),
                on_failure: Some(OnFailure::Stop),
            }],
            format: Some(OutputFormat::JsonSchema(serde_json::json!({"type": "array"}))),
            exact_only: false,
            tenant: Tenant::default(),
        };
        assert_eq!(spec, want);
    }

    #[test]
    fn what_only_the_wire_can_see_is_refused_by_name() {
        for (json, field) in [
            (serde_json::json!({"logprobs": true}), "logprobs"),
            (serde_json::json!({"messages": [], "logprobs": 2}), "logprobs"),
            (serde_json::json!({"messages": [], "top_logprobs": 2}), "top_logprobs"),
            (serde_json::json!({"logprobs_mode": "cooked"}), "logprobs_mode"),
            (serde_json::json!({"response_format": {"type": "xml"}}), "response_format.type"),
            (serde_json::json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema"),
            (
                serde_json::json!({"response_format": {"type": "text", "json_schema": {"name": "a", "schema": {}}}}),
                "response_format.json_schema",
            ),
            (serde_json::json!({"tools": [{}]}), "tools"),
            (serde_json::json!({"max_tokens": 1, "max_completion_tokens": 1}), "max_completion_tokens"),
            (serde_json::json!({"logit_bias": {"-1": 0.0}}), "logit_bias"),
            (serde_json::json!({"plugins": [{"name": "a"}, {"name": "b", "config": 3}]}), "plugins[1].config"),
            (serde_json::json!({"plugins": [{"name": "a", "on_failure": "retry"}]}), "plugins[0].on_failure"),
        ] {
            let error = spec_without_prompt(&asked(json)).expect_err(field);
            assert_eq!(error.field, field);
            assert!(error.message.contains(field), "{}", error.message);
        }
    }
}
