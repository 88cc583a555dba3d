//! From what a client sent to an admitted generation: which fields belong to the endpoint, which model is meant, the
//! engine's own checks, its queue.

use serde_json::Value;
use specula_engine::RequestError;
use specula_protocol::GenerateRequest;

use crate::app::App;
use crate::decode::decode;
use crate::errors::{Fault, clip};
use crate::json;
use crate::seam::{Engine, EventStream, Request};
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

/// A generation that runs or waits for its turn; dropping its events cancels it.
pub(crate) struct Admitted {
    pub(crate) events: EventStream,
    pub(crate) delivery: Delivery,
}

/// Decodes, checks and admits what an HTTP client sent.
pub(crate) async fn admit_text(app: &App, endpoint: Endpoint, text: String) -> Result<Admitted, Fault> {
    let prepared = app.off_thread(move |engine| prepare(engine, endpoint, json::parse(&text)?)).await??;
    submit(app, prepared)
}

/// Decodes, checks and admits what stood in a WebSocket frame beside `type` and `id`.
pub(crate) async fn admit_value(app: &App, request: Value) -> Result<EventStream, Fault> {
    let prepared = app.off_thread(move |engine| prepare(engine, Endpoint::Socket, request)).await??;
    Ok(submit(app, prepared)?.events)
}

fn submit(app: &App, (request, delivery): (Request, Delivery)) -> Result<Admitted, Fault> {
    Ok(Admitted { events: app.engine.submit(request)?, delivery })
}

fn prepare(engine: &Engine, endpoint: Endpoint, value: Value) -> Result<(Request, Delivery), Fault> {
    let request: GenerateRequest = decode(value)?;
    belongs(endpoint, &request)?;
    let served = &engine.facts().name;
    if let Some(asked) = request.model.as_ref().filter(|&asked| asked != served) {
        return Err(Fault::UnknownModel { asked: clip(asked), served: served.clone() });
    }
    let delivery = match (request.stream, &request.stream_options) {
        (Some(true), options) => {
            Delivery::Streamed { include_usage: options.as_ref().is_some_and(|o| o.include_usage) }
        }
        _ => Delivery::Whole,
    };
    let spec = wire::request_spec(engine, &request)?;
    Ok((engine.check(spec)?, delivery))
}

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
        Endpoint::Chat | Endpoint::Text if request.stream_options.is_some() && !streamed => {
            Err(invalid("stream_options", "`stream_options` needs `stream: true`".into()))
        }
        Endpoint::Socket if request.stream_options.is_some() => {
            foreign("stream_options", "a WebSocket's `finished` frame always has `usage`")
        }
        Endpoint::Socket if request.stream == Some(false) => foreign("stream", "a WebSocket always streams"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use warp::http::StatusCode;

    fn fault(endpoint: Endpoint, request: Value) -> Fault {
        prepare(&Engine::new(), endpoint, request).map(|_| ()).expect_err("must be refused")
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
            (Endpoint::Text, json!({"prompt": "x", "temperature": 3}), "temperature"),
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
        assert!(prepare(&Engine::new(), Endpoint::Text, json!({"prompt": "x", "model": "double"})).is_ok());
    }

    #[test]
    fn delivery_is_as_asked() {
        let delivery = |request| prepare(&Engine::new(), Endpoint::Text, request).expect("valid").1;
        assert_eq!(delivery(json!({"prompt": "x"})), Delivery::Whole);
        let streamed = json!({"prompt": "x", "stream": true});
        assert_eq!(delivery(streamed), Delivery::Streamed { include_usage: false });
        let counted = json!({"prompt": "x", "stream": true, "stream_options": {"include_usage": true}});
        assert_eq!(delivery(counted), Delivery::Streamed { include_usage: true });
    }
}
