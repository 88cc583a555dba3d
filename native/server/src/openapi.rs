//! `GET /openapi.json`: every route, every field with its bounds, every status that can come. Schemas are derived from the
//! wire's own types; the two generating endpoints share one type, and each has the fields that belong to it.

use serde_json::{Map, Value, json};
use specula_protocol::response::Completion;
use specula_protocol::tokens::{DetokenizeRequest, Detokenized, TokenizeRequest, Tokenized};
use specula_protocol::{ErrorBody, GenerateRequest, ModelCard, ModelList, PluginDeleted, PluginList, ServerFrame};
use utoipa::ToSchema;

const ABOUT: &str = "OpenAI's chat and text completions, with speculative decoding. Whatever speculates, the text is token for \
    token the target model's own, unless the answer's `specula.lossless` says otherwise.\n\nA field that an endpoint does not \
    have is refused with 400, naming it. `user`, `safety_identifier`, `prompt_cache_key`, `metadata`, `store`, `service_tier` \
    and `parallel_tool_calls` are accepted without effect.\n\nAnswers bear `x-request-id`: the request's own, if it is 1 to \
    64 letters, digits, `-`, `_` or `.`, else a new one. Errors have OpenAI's shape. A method that a path does not have is \
    answered with 405 and `Allow`; a path that is not here with 404. What the HTTP layer refuses before it is a request has \
    neither body nor id: 400 for what is not HTTP, 414 for an address of 64 KiB, 431 for more than 64 headers or a head that \
    does not fit the buffer (64 KiB do).";

const SOCKET: &str = "Generates over a WebSocket, several generations at once, each told round by round. A client sends text \
    frames: `{\"type\": \"generate\", \"id\": …}` with the fields of `GenerateRequest` beside them, and `{\"type\": \"cancel\", \
    \"id\": …}`. The server sends `ServerFrame`s: `started`, then `round`s, then `finished` or `error`.";

const KEYS: &str = "Where the operator has given out keys, every path but the page, `/healthz`, `/readyz` and `/openapi.json` \
    needs one, else the answer is 401. A WebSocket's client that can send no header offers the sub-protocols `specula` and \
    `key.KEY`.";

const UPLOAD: &str = "Keeps a component, or a core module with its interface in it, as the name's new version, once it passed the \
    examination. The same file again makes no new version. With `config` it is examined with that configuration. Needs a key or, \
    where there are none, to come from this machine: not from another origin's page.";

/// The document.
pub(crate) fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Specula",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/v1/chat/completions": {"post": generating("createChatCompletion", "Answers a chat.", "ChatRequest")},
            "/v1/completions": {"post": generating("createCompletion", "Continues a text, or several.", "TextRequest")},
            "/v1/stream": {"get": socket()},
            "/v1/models": {"get": reading("listModels", "The served model.", json_of("ModelList"))},
            "/v1/models/{model}": {"get": one_model()},
            "/v1/plugins": {"get": reading("listPlugins", "The plugins that you may use.", json_of("PluginList"))},
            "/v1/plugins/{name}": one_plugin(),
            "/tokenize": {"post": computing("tokenize", "A text or a chat as tokens.", "TokenizeRequest", "Tokenized")},
            "/detokenize": {"post": computing("detokenize", "Tokens as text.", "DetokenizeRequest", "Detokenized")},
            "/healthz": {"get": reading("health", "Whether the process lives.", json_of("Status"))},
            "/readyz": {"get": ready()},
            "/metrics": {"get": reading("metrics", "Counters for Prometheus.", text_of("text/plain"))},
            "/openapi.json": {"get": reading("openapi", "This document.", content("application/json", json!({"type": "object"})))},
            "/": {"get": reading("page", "The playground.", text_of("text/html"))},
        },
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": KEYS}},
        },
        "security": [{}, {"key": []}],
    })
}

fn schemas() -> Map<String, Value> {
    let mut found = Vec::new();
    add::<ErrorBody>(&mut found);
    add::<Completion>(&mut found);
    add::<ModelList>(&mut found);
    add::<ModelCard>(&mut found);
    add::<PluginList>(&mut found);
    add::<PluginDeleted>(&mut found);
    add::<TokenizeRequest>(&mut found);
    add::<Tokenized>(&mut found);
    add::<DetokenizeRequest>(&mut found);
    add::<Detokenized>(&mut found);
    add::<GenerateRequest>(&mut found);
    add::<ServerFrame>(&mut found);
    let mut schemas: Map<String, Value> = found.into_iter().collect();
    // Bounds of inner values, which the derivation has no words for.
    schemas["Stop"]["oneOf"][1]["maxItems"] = json!(16);
    let biases = &mut schemas["GenerateRequest"]["properties"]["logit_bias"]["additionalProperties"];
    (biases["minimum"], biases["maximum"]) = (json!(-100), json!(100));
    let both = schemas["GenerateRequest"].clone();
    schemas.insert(
        "ChatRequest".into(),
        narrowed(&both, "messages", &["prompt", "echo"], json!({"type": ["boolean", "null"]})),
    );
    let top = json!({"type": ["integer", "null"], "minimum": 0, "maximum": 20});
    schemas.insert("TextRequest".into(), narrowed(&both, "prompt", &["messages", "top_logprobs"], top));
    schemas.insert(
        "Status".into(),
        json!({
            "type": "object", "required": ["status"], "additionalProperties": false,
            "properties": {"status": {"type": "string", "enum": ["ok", "ready", "draining"]}},
        }),
    );
    schemas
}

fn add<T: ToSchema>(to: &mut Vec<(String, Value)>) {
    let mut schemas = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut schemas);
    let as_json =
        |schema| serde_json::to_value(schema).expect("schemas have string keys and serialise without failing");
    to.extend(schemas.into_iter().map(|(name, schema)| (name, as_json(schema))));
}

/// The request type as one endpoint takes it.
fn narrowed(both: &Value, required: &str, without: &[&str], logprobs: Value) -> Value {
    let mut schema = both.clone();
    let fields = schema["properties"].as_object_mut().expect("a request is an object");
    for field in without {
        fields.remove(*field);
    }
    let about = fields["logprobs"]["oneOf"][0]["description"].take();
    fields["logprobs"] = logprobs;
    fields["logprobs"]["description"] = about;
    not_null(&mut fields[required]);
    schema["required"] = json!([required]);
    schema
}

/// Takes `null` from what a field may be.
fn not_null(field: &mut Value) {
    for alternatives in ["type", "oneOf"] {
        if let Some(kinds) = field.get_mut(alternatives).and_then(Value::as_array_mut) {
            kinds.retain(|kind| kind != "null" && kind.get("type") != Some(&json!("null")));
        }
    }
}

fn content(kind: &str, schema: Value) -> Value {
    json!({kind: {"schema": schema}})
}

fn json_of(schema: &str) -> Value {
    content("application/json", json!({"$ref": format!("#/components/schemas/{schema}")}))
}

fn text_of(kind: &str) -> Value {
    content(kind, json!({"type": "string"}))
}

fn operation(id: &str, about: &str, success: Value, faults: &[(u16, &str)]) -> Value {
    let header =
        json!({"x-request-id": {"description": "The request's id.", "required": true, "schema": {"type": "string"}}});
    let mut responses = Map::new();
    responses.insert("200".into(), json!({"description": "As asked.", "content": success, "headers": header}));
    let foreign = (403, "A page of another origin, or another host's name, that the operator has not allowed.");
    let keyless = (401, "There are keys, and this is none.");
    for (status, about) in faults.iter().chain([&foreign, &keyless]) {
        let mut fault = json!({"description": about, "content": json_of("ErrorBody"), "headers": header});
        if matches!(status, 429 | 503) {
            fault["headers"]["retry-after"] = json!({"description": "Seconds.", "schema": {"type": "integer"}});
        }
        responses.insert(status.to_string(), fault);
    }
    json!({"operationId": id, "description": about, "responses": responses})
}

fn reading(id: &str, about: &str, success: Value) -> Value {
    operation(id, about, success, &[])
}

fn ready() -> Value {
    let mut ready = reading("ready", "Whether requests are taken.", json_of("Status"));
    let header = ready["responses"]["200"]["headers"].clone();
    ready["responses"]["503"] = json!({"description": "Draining.", "content": json_of("Status"), "headers": header});
    ready
}

fn one_model() -> Value {
    let mut one = operation("retrieveModel", "One model.", json_of("ModelCard"), &[(404, "Another is served.")]);
    let name = json!({"name": "model", "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}});
    one["parameters"] = json!([name]);
    one
}

fn one_plugin() -> Value {
    let name = "1 to 64 of a-z, 0-9 and -; alone, or with `@` and a version's number or `sha256:…` digest.";
    let schema = json!({"type": "string", "pattern": "^[a-z0-9-]{1,64}(@([0-9]+|sha256:[0-9a-f]{64}))?$"});
    let name = json!({"name": "name", "in": "path", "required": true, "description": name, "schema": schema});
    let unknown = (404, "There is no such plugin that you may use.");
    let bad = (400, "Not a name, or an unknown parameter.");
    let mut card = json_of("PluginCard");
    card["application/wasm"] = json!({"schema": {"type": "string", "format": "binary"}});
    let get = operation("retrievePlugin", "What is known of a plugin, or its file.", card, &[bad, unknown, FAULT]);
    let mut put = operation(
        "uploadPlugin",
        UPLOAD,
        json_of("PluginCard"),
        &[
            bad,
            (408, "The body did not arrive in time."),
            (409, "The name is another's."),
            (413, "The file is too large."),
            (415, "The body is not `application/wasm`."),
            (422, "A check failed: `code` says which."),
            (429, "Too many are being examined."),
            FAULT,
        ],
    );
    let mut created = put["responses"]["200"].clone();
    created["description"] = json!("A new version.");
    put["responses"]["200"]["description"] = json!("It is there already.");
    put["responses"]["201"] = created;
    put["responses"]["403"]["description"] = json!("Not allowed from here, or no room is left.");
    put["requestBody"] = json!({"required": true, "content": {"application/wasm": {"schema": {}}}});
    put["parameters"] = json!([
        {"name": "visibility", "in": "query", "schema": {"type": "string", "enum": ["private", "shared"]}},
        {"name": "config", "in": "query", "content": {"application/json": {"schema": {"type": "object"}}}},
    ]);
    let delete = operation(
        "deletePlugin",
        "Forgets a plugin of yours, or the version named. Requests that run keep it.",
        json_of("PluginDeleted"),
        &[bad, unknown, (409, "It is the operator's."), FAULT],
    );
    json!({"parameters": [name], "get": get, "put": put, "delete": delete})
}

const FAULT: (u16, &str) = (500, "A fault of the server.");

const OF_BODIES: [(u16, &str); 6] = [
    (400, "Not JSON, or a field is unknown, missing, of the wrong type or out of its bounds: `param` names it."),
    (404, "Another model is served."),
    (408, "The body did not arrive in time, or the answer was not read in time."),
    (413, "The body is too large."),
    (415, "The body is not `application/json`."),
    FAULT,
];

fn computing(id: &str, about: &str, request: &str, success: &str) -> Value {
    let mut computing = operation(id, about, json_of(success), &OF_BODIES);
    computing["requestBody"] = json!({"required": true, "content": json_of(request)});
    computing
}

fn generating(id: &str, about: &str, request: &str) -> Value {
    let data = "A `Completion` with one choice, an `ErrorBody` or, at the end, `[DONE]`.";
    let mut success = json_of("Completion");
    success["text/event-stream"] = json!({"schema": {
        "description": "Each of the server-sent events, if `stream` is set.",
        "type": "object", "required": ["data"], "properties": {"data": {"type": "string", "description": data}},
    }});
    let mut faults = OF_BODIES.to_vec();
    faults.push((429, "No place is free."));
    faults.push((503, "The server is shutting down."));
    let mut generating = operation(id, about, success, &faults);
    generating["requestBody"] = json!({"required": true, "content": json_of(request)});
    generating
}

fn socket() -> Value {
    let mut socket = operation("stream", SOCKET, json!({}), &[(426, "Not a WebSocket handshake of version 13.")]);
    let mut responses = socket["responses"].take();
    if let Some(mut upgraded) = responses.as_object_mut().and_then(|responses| responses.remove("200")) {
        upgraded["description"] = json!("The socket is open.");
        responses["101"] = upgraded;
    }
    socket["responses"] = responses;
    socket
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_has_its_schema() {
        fn walk(value: &Value, schemas: &Value) {
            match value {
                Value::Object(fields) => {
                    if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                        let name = target.strip_prefix("#/components/schemas/").expect(target);
                        assert!(schemas.get(name).is_some(), "{name}");
                    }
                    fields.values().for_each(|value| walk(value, schemas));
                }
                Value::Array(values) => values.iter().for_each(|value| walk(value, schemas)),
                _ => {}
            }
        }
        let document = document();
        walk(&document, &document["components"]["schemas"]);
    }

    #[test]
    fn every_route_is_described() {
        let document = document();
        let described = document["paths"].as_object().expect("paths");
        for (path, allow) in crate::routes::PATHS {
            let item = described.get(path).unwrap_or_else(|| panic!("{path}"));
            for method in allow.split(", ").filter(|method| *method != "HEAD") {
                assert!(item.get(method.to_lowercase()).is_some(), "{method} {path}");
            }
        }
        // One more: the page.
        assert_eq!(described.len(), crate::routes::PATHS.len() + 1);
    }

    #[test]
    fn each_endpoint_has_the_fields_that_belong_to_it() {
        let schemas = schemas();
        assert!(!document().to_string().contains(":null"), "no keyword is null");
        let has = |schema: &str, field: &str| schemas[schema]["properties"].get(field).is_some();
        assert!(has("ChatRequest", "messages") && has("ChatRequest", "top_logprobs") && !has("ChatRequest", "prompt"));
        assert!(has("TextRequest", "prompt") && has("TextRequest", "echo") && !has("TextRequest", "messages"));
        for request in ["ChatRequest", "TextRequest", "TokenizeRequest", "DetokenizeRequest"] {
            assert_eq!(schemas[request]["additionalProperties"], false, "{request}");
        }
        assert_eq!(schemas["Stop"]["oneOf"][1]["type"], "array");
        assert_eq!(schemas["ChatRequest"]["properties"]["logit_bias"]["additionalProperties"]["type"], "number");
        assert_eq!(schemas["TextRequest"]["required"], json!(["prompt"]));
        assert_eq!(schemas["ChatRequest"]["properties"]["temperature"]["maximum"], 2);
    }
}
