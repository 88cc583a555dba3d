//! The paths and what answers them. Handlers decode, call the core, encode.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;
use serde::Serialize;
use serde_json::Value;
use specula_protocol::{ModelList, PluginList};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, StatusCode, header};
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
use crate::{json, metrics, openapi, sse, tokens, websocket, whole, wire};

/// Paths besides the page's, with the methods they answer.
pub(crate) const PATHS: [(&str, &str); 12] = [
    ("/healthz", READ),
    ("/readyz", READ),
    ("/metrics", READ),
    ("/openapi.json", READ),
    ("/v1/models", READ),
    (MODEL, READ),
    ("/v1/plugins", READ),
    ("/v1/chat/completions", "POST"),
    ("/v1/completions", "POST"),
    ("/v1/stream", "GET"),
    ("/tokenize", "POST"),
    ("/detokenize", "POST"),
];

const READ: &str = "GET, HEAD";

/// The path of one model; the name may have slashes.
const MODEL: &str = "/v1/models/{model}";

/// The entry of a path.
fn known(path: &str) -> Option<(&'static str, &'static str)> {
    let one_model = path.strip_prefix("/v1/models/").is_some_and(|name| !name.is_empty());
    let path = if one_model { MODEL } else { path };
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

/// All routes; never fails, for faults are answers.
pub(crate) fn routes(
    app: &Arc<App>,
) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + use<> {
    let facts = health(app).or(models(app)).unify().or(tokens(app)).unify();
    let work = generate(app, Endpoint::Chat).or(generate(app, Endpoint::Text)).unify().or(socket(app)).unify();
    let known = facts.or(work).unify().or(page(app)).unify();
    let rest = with(app).and(warp::path::full());
    let rest = rest.map(|app: Arc<App>, path: FullPath| unmatched(&app, path.as_str()).response());
    known.or(rest).unify()
}

fn with(app: &Arc<App>) -> impl Filter<Extract = (Arc<App>,), Error = Infallible> + Clone + use<> {
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
    let plugins = warp::path!("v1" / "plugins").and(warp::get()).and(with(app)).map(|app: Arc<App>| {
        let data = app.engine.plugins().iter().map(wire::plugin_card).collect();
        warp::reply::json(&PluginList { object: "list".into(), data }).into_response()
    });
    let model = warp::path!("v1" / "models" / ..).and(warp::path::tail()).and(warp::get()).and(with(app));
    let model = model.and_then(|name: Tail, app: Arc<App>| async move {
        match name.as_str() {
            "" => Err(warp::reject::not_found()),
            name => Ok(one_model(&app, name).unwrap_or_else(|fault| fault.response())),
        }
    });
    models.or(plugins).unify().or(model).unify().boxed()
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
    let parts = path.and(warp::post()).and(with(app)).and(warp::ext::get::<RequestId>());
    let parts = parts.and(warp::header::headers_cloned()).and(warp::body::stream());
    let handler = move |app: Arc<App>, id: RequestId, headers: HeaderMap, body| async move {
        completions(&app, (&id, endpoint), &headers, body).await.unwrap_or_else(|fault| fault.response())
    };
    parts.then(handler).boxed()
}

async fn completions<B: Buf + Send + 'static>(
    app: &App,
    (id, endpoint): (&RequestId, Endpoint),
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, warp::Error>> + Send + 'static,
) -> Result<Response, Fault> {
    let text = read_json(headers, body, app.body_limits()).await?;
    let Admitted { running, form } = admit_text(app, id, endpoint, text).await?;
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
    let parts = path.and(warp::ws()).and(with(app)).and(warp::ext::get::<RequestId>()).and(slot);
    let upgrade = parts.map(|ws: Ws, app: Arc<App>, id: RequestId, slot| {
        let limit = app.config.max_body_bytes;
        let ws = ws.max_message_size(limit).max_frame_size(limit);
        ws.on_upgrade(move |socket| websocket::serve(app, id, socket, slot)).into_response()
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
