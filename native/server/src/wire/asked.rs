//! From the wire's request to the engine's. Checks only what the engine cannot see.

use serde_json::Value;
use specula_engine::{PluginSpec, RequestError, RequestSpec, SettingsSpec};
use specula_protocol as protocol;
use specula_protocol::GenerateRequest;

use crate::errors;
use crate::seam::Engine;

/// What is asked, with its prompt in tokens. Checks only what the engine cannot see: fields that exclude each other, and
/// forms that only the wire has.
///
/// # Errors
/// Names field, bound, value and remedy.
pub fn request_spec(engine: &Engine, request: &GenerateRequest) -> Result<RequestSpec, RequestError> {
    let mut spec = spec_without_prompt(request)?;
    spec.prompt = match (&request.messages, &request.prompt) {
        (Some(messages), None) => {
            let messages: Vec<_> = messages.iter().map(|m| (m.role.clone(), m.content.clone())).collect();
            engine.encode_chat(&messages)?
        }
        (None, Some(prompt)) => engine.encode_text(prompt)?,
        (None, None) => return Err(invalid("messages", "one of `messages` and `prompt` is needed".into())),
        (Some(_), Some(_)) => return Err(invalid("prompt", "`messages` and `prompt` exclude each other".into())),
    };
    Ok(spec)
}

/// All of a request but its prompt.
///
/// # Errors
/// As [`request_spec`].
pub fn spec_without_prompt(request: &GenerateRequest) -> Result<RequestSpec, RequestError> {
    if let Some(n) = request.n.filter(|&n| n != 1) {
        return Err(invalid("n", format!("`n` must be 1: one choice per request. Given: {n}")));
    }
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
    }
}

fn plugin_specs(request: &GenerateRequest) -> Result<Vec<PluginSpec>, RequestError> {
    let plugins = request.plugins.iter().flatten().enumerate();
    plugins
        .map(|(i, plugin)| match &plugin.config {
            None => Ok(PluginSpec { name: plugin.name.clone(), config: Value::Object(serde_json::Map::new()) }),
            Some(config @ Value::Object(_)) => Ok(PluginSpec { name: plugin.name.clone(), config: config.clone() }),
            Some(_) => {
                let field = format!("plugins[{i}].config");
                Err(invalid(&field, format!("`{field}` must be an object")))
            }
        })
        .collect()
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
            "speculation": {"method": "mirror", "window": 5, "exit_layer": 2, "exit_top": 8, "branch_budget": 6,
                            "roots": "both", "allocation": "scored"},
            "plugins": [{"name": "typical"}]
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
                roots: Some("both".into()),
                allocation: Some("scored".into()),
            },
            deterministic: true,
            plugins: vec![PluginSpec { name: "typical".into(), config: serde_json::json!({}) }],
        };
        assert_eq!(spec, want);
    }

    #[test]
    fn what_only_the_wire_can_see_is_refused_by_name() {
        for (json, field) in [
            (serde_json::json!({"n": 2}), "n"),
            (serde_json::json!({"max_tokens": 1, "max_completion_tokens": 1}), "max_completion_tokens"),
            (serde_json::json!({"logit_bias": {"-1": 0.0}}), "logit_bias"),
            (serde_json::json!({"plugins": [{"name": "a"}, {"name": "b", "config": 3}]}), "plugins[1].config"),
        ] {
            let error = spec_without_prompt(&asked(json)).expect_err(field);
            assert_eq!(error.field, field);
            assert!(error.message.contains(field), "{}", error.message);
        }
    }
}
