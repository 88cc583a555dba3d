//! The paths and what answers them. Handlers decode, call the core, encode.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;
use serde::Serialize;
use serde_json::Value;
use specula_engine::Tenant;
use specula_protocol::ModelList;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, HeaderValue, StatusCode, header};
use warp::path::{FullPath, Tail};
use warp::reply::{Reply, Response};
use warp::ws::Ws;

use crate::answer::Answer;
use crate::app::{App, Phase};
use crate::body::read_json;
use crate::choices::Choices;
use crate::connections::Slot;
use crate::errors::Fault;
use crate::generation::{Admitted, Delivery, Endpoint, admit_text, is_served};
use crate::request_id::RequestId;
use crate::seam::Engine;
use crate::sse::Frames;
use crate::visitors::{self, Visitor};
use crate::{json, metrics, openapi, plugins, sse, tokens, websocket, whole, wire};

/// Paths besides the page's, with the methods they answer.
pub(crate) const PATHS: [(&str, &str); 13] = [
    ("/healthz", READ),
    ("/readyz", READ),
    ("/metrics", READ),
    ("/openapi.json", READ),
    ("/v1/models", READ),
    (MODEL, READ),
    ("/v1/plugins", READ),
    (PLUGIN, "GET, HEAD, PUT, DELETE"),
    ("/v1/chat/completions", "POST"),
    ("/v1/completions", "POST"),
    ("/v1/stream", "GET"),
    ("/tokenize", "POST"),
    ("/detokenize", "POST"),
];

const READ: &str = "GET, HEAD";

/// The path of one model; the name may have slashes.
const MODEL: &str = "/v1/models/{model}";

/// The path of one plugin.
const PLUGIN: &str = "/v1/plugins/{name}";

/// The entry of a path.
fn known(path: &str) -> Option<(&'static str, &'static str)> {
    let below = |prefix| path.strip_prefix(prefix).filter(|name| !name.is_empty());
    let path = match (below("/v1/models/"), below("/v1/plugins/")) {
        (Some(_), _) => MODEL,
        (_, Some(name)) if !name.contains('/') => PLUGIN,
        _ => path,
    };
    PATHS.into_iter().find(|(known, _)| *known == path)
}

/// What metrics call a path: itself if it is known, so that clients cannot make up labels.
pub(crate) fn label(app: &App, path: &str) -> &'static str {
    match known(path) {
        Some((known, _)) => known,
        None if app.page.has(path) => "page",
        None => "other",
    }
}

/// Whether a path answers everyone alike, keys or not: the page, the description, and whether the server is well.
pub(crate) fn is_for_all(app: &App, path: &str) -> bool {
    app.page.has(path) || matches!(path, "/healthz" | "/readyz" | "/openapi.json")
}

/// All routes; never fails, for faults are answers.
pub(crate) fn routes(
    app: &Arc<App>,
) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + use<> {
    let facts = health(app).or(models(app)).unify().or(tokens(app)).unify().or(plugins::routes(app)).unify();
    let work = generate(app, Endpoint::Chat).or(generate(app, Endpoint::Text)).unify().or(socket(app)).unify();
    let known = facts.or(work).unify().or(page(app)).unify();
    let rest = with(app).and(warp::path::full());
    let rest = rest.map(|app: Arc<App>, path: FullPath| unmatched(&app, path.as_str()).response());
    known.or(rest).unify()
}

pub(crate) fn with(app: &Arc<App>) -> impl Filter<Extract = (Arc<App>,), Error = Infallible> + Clone + use<> {
    let app = app.clone();
    warp::any().map(move || app.clone())
}

fn health(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let healthz = warp::path!("healthz").and(warp::get()).map(|| status("ok", StatusCode::OK));
    let readyz = warp::path!("readyz").and(warp::get()).and(with(app)).map(|app: Arc<App>| match app.phase() {
        Phase::Open => status("ready", StatusCode::OK),
        Phase::Draining | Phase::Closed => status("draining", StatusCode::SERVICE_UNAVAILABLE),
    });
    let metrics = warp::path!("metrics").and(warp::get()).and(with(app)).map(|app: Arc<App>| {
        let text = metrics::text(&app.engine.metrics(), &app.requests);
        warp::reply::with_header(text, header::CONTENT_TYPE, metrics::CONTENT_TYPE).into_response()
    });
    let document = bytes::Bytes::from(openapi::document().to_string());
    let openapi = warp::path!("openapi.json").and(warp::get()).map(move || {
        let json = Response::new(document.clone().into());
        warp::reply::with_header(json, header::CONTENT_TYPE, "application/json").into_response()
    });
    healthz.or(readyz).unify().or(metrics).unify().or(openapi).unify().boxed()
}

fn status(word: &str, code: StatusCode) -> Response {
    let body = warp::reply::json(&serde_json::json!({"status": word}));
    warp::reply::with_status(body, code).into_response()
}

fn models(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let models = warp::path!("v1" / "models").and(warp::get()).and(with(app)).map(|app: Arc<App>| {
        let data = vec![wire::model_card(app.engine.facts(), app.started_s)];
        warp::reply::json(&ModelList { object: "list".into(), data }).into_response()
    });
    let model = warp::path!("v1" / "models" / ..).and(warp::path::tail()).and(warp::get()).and(with(app));
    let model = model.and_then(|name: Tail, app: Arc<App>| async move {
        match name.as_str() {
            "" => Err(warp::reject::not_found()),
            name => Ok(one_model(&app, name).unwrap_or_else(|fault| fault.response())),
        }
    });
    models.or(model).unify().boxed()
}

fn one_model(app: &App, name: &str) -> Result<Response, Fault> {
    let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned();
    is_served(&app.engine, Some(&name))?;
    Ok(warp::reply::json(&wire::model_card(app.engine.facts(), app.started_s)).into_response())
}

/// The endpoints that turn texts into tokens and back.
fn tokens(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let tokenize = warp::path!("tokenize").and(posted(app, tokens::tokenize));
    let detokenize = warp::path!("detokenize").and(posted(app, tokens::detokenize));
    tokenize.or(detokenize).unify().boxed()
}

/// A JSON body, and the answer that `work` computes from it.
fn posted<T: Serialize + Send + 'static>(
    app: &Arc<App>,
    work: fn(&Engine, Value) -> Result<T, Fault>,
) -> BoxedFilter<(Response,)> {
    let parts = warp::post().and(with(app)).and(warp::header::headers_cloned()).and(warp::body::stream());
    let handler = move |app: Arc<App>, headers: HeaderMap, body| async move {
        let answered = async {
            let text = read_json(&headers, body, app.body_limits()).await?;
            let done = app.off_thread(move |engine| work(engine, json::parse(&text)?)).await??;
            Ok::<_, Fault>(warp::reply::json(&done).into_response())
        };
        answered.await.unwrap_or_else(|fault| fault.response())
    };
    parts.then(handler).boxed()
}

fn generate(app: &Arc<App>, endpoint: Endpoint) -> BoxedFilter<(Response,)> {
    let path = match endpoint {
        Endpoint::Chat => warp::path!("v1" / "chat" / "completions").boxed(),
        Endpoint::Text | Endpoint::Socket => warp::path!("v1" / "completions").boxed(),
    };
    let asker = warp::ext::get::<RequestId>().and(warp::ext::get::<Visitor>());
    let parts = path.and(warp::post()).and(with(app)).and(asker);
    let parts = parts.and(warp::header::headers_cloned()).and(warp::body::stream());
    let handler = move |app: Arc<App>, id: RequestId, visitor: Visitor, headers: HeaderMap, body| async move {
        completions(&app, (&id, &visitor.tenant, endpoint), &headers, body)
            .await
            .unwrap_or_else(|fault| fault.response())
    };
    parts.then(handler).boxed()
}

async fn completions<B: Buf + Send + 'static>(
    app: &App,
    (id, tenant, endpoint): (&RequestId, &Tenant, Endpoint),
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, warp::Error>> + Send + 'static,
) -> Result<Response, Fault> {
    let text = read_json(headers, body, app.body_limits()).await?;
    let Admitted { running, form } = admit_text(app, (id, tenant), endpoint, text).await?;
    let answer = Answer::new(app, endpoint, &form, running.len());
    let choices = Choices::new(running);
    Ok(match form.delivery {
        Delivery::Whole => warp::reply::json(&whole::answer(answer, choices).await?).into_response(),
        Delivery::Streamed { include_usage } => sse::answer(Frames::new(answer, include_usage), choices),
    })
}

fn socket(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let path = warp::path!("v1" / "stream").and(warp::get());
    let slot = warp::ext::optional::<Slot>();
    let asker = warp::ext::get::<RequestId>().and(warp::ext::get::<Visitor>());
    let parts = path.and(warp::ws()).and(with(app)).and(asker).and(warp::header::headers_cloned()).and(slot);
    let upgrade = parts.map(|ws: Ws, app: Arc<App>, id, visitor: Visitor, headers: HeaderMap, slot| {
        let limit = app.config.max_body_bytes;
        let ws = ws.max_message_size(limit).max_frame_size(limit);
        let serve = move |socket| websocket::serve(app, (id, visitor.tenant), socket, slot);
        let mut upgraded = ws.on_upgrade(serve).into_response();
        // A browser that offers sub-protocols wants one taken.
        if visitors::offered(&headers).any(|protocol| protocol == visitors::PROTOCOL) {
            let taken = HeaderValue::from_static(visitors::PROTOCOL);
            upgraded.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, taken);
        }
        upgraded
    });
    let plain = path.map(|| Fault::NotAnUpgrade.response());
    upgrade.or(plain).unify().boxed()
}

fn page(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let parts = warp::get().and(warp::path::full()).and(warp::header::headers_cloned()).and(with(app));
    let found = parts.and_then(|path: FullPath, headers: HeaderMap, app: Arc<App>| async move {
        app.page.answer(path.as_str(), &headers).ok_or_else(warp::reject::not_found)
    });
    found.boxed()
}

fn unmatched(app: &App, path: &str) -> Fault {
    match known(path) {
        Some((_, allow)) => Fault::Method { allow },
        None if app.page.has(path) => Fault::Method { allow: READ },
        None => Fault::NoRoute,
    }
}
