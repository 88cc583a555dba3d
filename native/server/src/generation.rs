//! From what a client sent to an admitted generation: which fields belong to the endpoint, which model is meant, the
//! engine's own checks, its queue.

use serde_json::Value;
use specula_engine::{RequestError, RequestSpec, Tenant};
use specula_protocol::GenerateRequest;

use crate::app::App;
use crate::decode::decode;
use crate::errors::{Fault, clip};
use crate::json;
use crate::request_id::RequestId;
use crate::running::Running;
use crate::seam::{Engine, Request};
use crate::wire::{self, invalid};

/// Where a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Text,
    /// `/v1/stream`: chat or text.
    Socket,
}

/// How an HTTP client wants its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Whole,
    Streamed { include_usage: bool },
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) delivery: Delivery,
    /// Choices of each prompt.
    pub(crate) per_prompt: usize,
    /// Whether log-probabilities are told.
    pub(crate) logprobs: bool,
}

/// Generations that run or wait for their turn, one for each choice.
pub(crate) struct Admitted {
    pub(crate) running: Vec<Running>,
    pub(crate) form: Form,
}

/// Decodes, checks and admits what an HTTP client sent: all of its choices or none.
pub(crate) async fn admit_text(
    app: &App,
    (id, tenant): (&RequestId, &Tenant),
    endpoint: Endpoint,
    text: String,
) -> Result<Admitted, Fault> {
    let tenant = tenant.clone();
    let prepared = app.off_thread(move |engine| prepare(engine, tenant, endpoint, json::parse(&text)?)).await??;
    submit(app, id, prepared)
}

/// Decodes, checks and admits what stood in a WebSocket frame beside `type` and `id`.
pub(crate) async fn admit_value(
    app: &App,
    (id, tenant): (&RequestId, &Tenant),
    request: Value,
) -> Result<Running, Fault> {
    let tenant = tenant.clone();
    let prepared = app.off_thread(move |engine| prepare(engine, tenant, Endpoint::Socket, request)).await??;
    submit(app, id, prepared)?.running.pop().ok_or(Fault::Internal("a socket's request made no generation"))
}

fn submit(app: &App, id: &RequestId, (requests, form): (Vec<Request>, Form)) -> Result<Admitted, Fault> {
    let streams = app.engine.submit_all(requests)?.into_iter().enumerate();
    Ok(Admitted { running: streams.map(|(choice, events)| Running::new(events, id.clone(), choice)).collect(), form })
}

fn prepare(engine: &Engine, tenant: Tenant, endpoint: Endpoint, value: Value) -> Result<(Vec<Request>, Form), Fault> {
    let request: GenerateRequest = decode(value)?;
    belongs(endpoint, &request)?;
    is_served(engine, request.model.as_ref())?;
    let delivery = match (request.stream, &request.stream_options) {
        (Some(true), options) => {
            Delivery::Streamed { include_usage: options.as_ref().is_some_and(|o| o.include_usage) }
        }
        _ => Delivery::Whole,
    };
    let specs = wire::request_specs(engine, &request)?;
    if endpoint == Endpoint::Socket && specs.len() > 1 {
        let message =
            format!("a WebSocket's generation takes one prompt; send a frame for each. Given: {}", specs.len());
        return Err(invalid("prompt", message).into());
    }
    let logprobs = specs.iter().any(|spec| spec.logprobs.is_some());
    let form = Form { delivery, per_prompt: wire::choices_per_prompt(&request) as usize, logprobs };
    let requests = specs.into_iter().map(|spec| engine.check(RequestSpec { tenant: tenant.clone(), ..spec }));
    let requests = requests.collect::<Result<_, _>>()?;
    Ok((requests, form))
}

/// Whether the model named, if one is, is the one served.
pub(crate) fn is_served(engine: &Engine, asked: Option<&String>) -> Result<(), Fault> {
    let served = &engine.facts().name;
    match asked.filter(|&asked| asked != served) {
        None => Ok(()),
        Some(asked) => Err(Fault::UnknownModel { asked: clip(asked), served: served.clone() }),
    }
}

/// The remedy for what a socket does not have.
const OVER_HTTP: &str = "use /v1/chat/completions or /v1/completions";

/// Whether all fields belong to the endpoint, and the one it cannot do without is there.
fn belongs(endpoint: Endpoint, request: &GenerateRequest) -> Result<(), RequestError> {
    let foreign = |field: &str, remedy: &str| {
        let message = format!("`{field}` does not belong to this endpoint; {remedy}");
        Err(RequestError { field: field.into(), code: "unknown_field", message })
    };
    let missing = |field: &str| {
        Err(RequestError { field: field.into(), code: "missing_field", message: format!("`{field}` is needed") })
    };
    let streamed = request.stream == Some(true);
    match endpoint {
        Endpoint::Chat if request.prompt.is_some() => foreign("prompt", "send `messages`, or use /v1/completions"),
        Endpoint::Chat if request.messages.is_none() => missing("messages"),
        Endpoint::Text if request.messages.is_some() => {
            foreign("messages", "send `prompt`, or use /v1/chat/completions")
        }
        Endpoint::Text if request.prompt.is_none() => missing("prompt"),
        Endpoint::Chat if request.echo.is_some() => {
            foreign("echo", "a chat's prompt cannot be told; use /v1/completions")
        }
        Endpoint::Chat | Endpoint::Text if request.stream_options.is_some() && !streamed => {
            Err(invalid("stream_options", "`stream_options` needs `stream: true`".into()))
        }
        Endpoint::Socket if request.stream_options.is_some() => {
            foreign("stream_options", "a WebSocket's `finished` frame always has `usage`")
        }
        Endpoint::Socket if request.stream == Some(false) => foreign("stream", "a WebSocket always streams"),
        Endpoint::Socket if wire::choices_per_prompt(request) != 1 => foreign("n", "send a frame for each choice"),
        Endpoint::Socket if request.logprobs.is_some() => foreign("logprobs", OVER_HTTP),
        Endpoint::Socket if request.top_logprobs.is_some() => foreign("top_logprobs", OVER_HTTP),
        Endpoint::Socket if request.echo.is_some() => foreign("echo", OVER_HTTP),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use warp::http::StatusCode;

    fn fault(endpoint: Endpoint, request: Value) -> Fault {
        prepare(&Engine::new(), Tenant::default(), endpoint, request).map(|_| ()).expect_err("must be refused")
    }

    #[test]
    fn fields_of_another_endpoint_are_named() {
        let messages = json!([{"role": "user", "content": "x"}]);
        for (endpoint, request, field) in [
            (Endpoint::Chat, json!({"messages": messages, "prompt": "x"}), "prompt"),
            (Endpoint::Chat, json!({}), "messages"),
            (Endpoint::Text, json!({"messages": messages, "prompt": "x"}), "messages"),
            (Endpoint::Text, json!({}), "prompt"),
            (Endpoint::Text, json!({"prompt": "x", "stream_options": {"include_usage": true}}), "stream_options"),
            (Endpoint::Socket, json!({"prompt": "x", "stream_options": {}}), "stream_options"),
            (Endpoint::Socket, json!({"prompt": "x", "stream": false}), "stream"),
            (Endpoint::Socket, json!({}), "messages"),
            (Endpoint::Socket, json!({"messages": messages, "prompt": "x"}), "prompt"),
            (Endpoint::Socket, json!({"prompt": "x", "n": 2}), "n"),
            (Endpoint::Socket, json!({"prompt": ["x", "y"]}), "prompt"),
            (Endpoint::Socket, json!({"prompt": "x", "logprobs": 1}), "logprobs"),
            (Endpoint::Socket, json!({"prompt": "x", "echo": true}), "echo"),
            (Endpoint::Chat, json!({"messages": messages, "echo": true}), "echo"),
            (Endpoint::Text, json!({"prompt": "x", "temperature": 3}), "temperature"),
            (Endpoint::Text, json!({"prompt": "x", "n": 17}), "n"),
            (Endpoint::Text, json!({"prompt": ["x", "y"], "n": 9}), "n"),
            (Endpoint::Text, json!({"prompt": [[7], [999]]}), "prompt"),
            (Endpoint::Text, json!({"prompt": []}), "prompt"),
        ] {
            let fault = fault(endpoint, request);
            assert_eq!(fault.status(), StatusCode::BAD_REQUEST);
            assert_eq!(fault.body().param.as_deref(), Some(field), "{fault}");
        }
    }

    #[test]
    fn another_model_is_not_found() {
        let fault = fault(Endpoint::Text, json!({"prompt": "x", "model": "gpt"}));
        assert_eq!(fault.status(), StatusCode::NOT_FOUND);
        assert_eq!(fault.body().code.as_deref(), Some("model_not_found"));
        assert!(fault.to_string().contains("`gpt`") && fault.to_string().contains("`double`"));
        assert!(
            prepare(&Engine::new(), Tenant::default(), Endpoint::Text, json!({"prompt": "x", "model": "double"}))
                .is_ok()
        );
    }

    #[test]
    fn delivery_is_as_asked() {
        let delivery =
            |request| prepare(&Engine::new(), Tenant::default(), Endpoint::Text, request).expect("valid").1.delivery;
        assert_eq!(delivery(json!({"prompt": "x"})), Delivery::Whole);
        let streamed = json!({"prompt": "x", "stream": true});
        assert_eq!(delivery(streamed), Delivery::Streamed { include_usage: false });
        let counted = json!({"prompt": "x", "stream": true, "stream_options": {"include_usage": true}});
        assert_eq!(delivery(counted), Delivery::Streamed { include_usage: true });
    }
    #[test]
    fn every_prompt_has_its_choices() {
        let asked = json!({"prompt": ["x", "y"], "n": 3, "logprobs": 0});
        let (requests, form) = prepare(&Engine::new(), Tenant::default(), Endpoint::Text, asked).expect("valid");
        assert_eq!((requests.len(), form.per_prompt, form.logprobs), (6, 3, true));
        let socket = prepare(&Engine::new(), Tenant::default(), Endpoint::Socket, json!({"prompt": [7, 8], "n": 1}))
            .expect("valid");
        assert_eq!(socket.0.len(), 1);
    }
}
