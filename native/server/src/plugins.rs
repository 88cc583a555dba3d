//! `/v1/plugins`: the plugins that a visitor may use, and those that he brings.

use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;
use serde_json::Value;
use specula_policies::{Upload, UploadError, Visibility};
use specula_protocol::{PluginDeleted, PluginList};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, StatusCode, header};
use warp::reply::{Reply, Response};

use crate::app::App;
use crate::body::{BodyLimits, read_wasm};
use crate::errors::{Fault, clip};
use crate::routes::with;
use crate::visitors::Visitor;
use crate::wire::{self, invalid};

const WASM: &str = "application/wasm";

/// `GET /v1/plugins`, and `GET`, `PUT` and `DELETE` of `/v1/plugins/{name}`.
pub(crate) fn routes(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let visitor = || with(app).and(warp::ext::get::<Visitor>());
    let list = warp::path!("v1" / "plugins").and(warp::get()).and(visitor()).map(|app: Arc<App>, visitor: Visitor| {
        let data = app.engine.registry().list(&visitor.tenant.owner).into_iter().map(wire::plugin_card).collect();
        warp::reply::json(&PluginList { object: "list".into(), data }).into_response()
    });
    let one = || warp::path!("v1" / "plugins" / String);
    let get = one().and(warp::get()).and(visitor()).and(warp::header::headers_cloned());
    let get = get.then(|name: String, app: Arc<App>, visitor: Visitor, headers: HeaderMap| async move {
        shown(&app, &visitor, decoded(&name), &headers).await.unwrap_or_else(|fault| fault.response())
    });
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let put = one().and(warp::put()).and(visitor()).and(query);
    let put = put.and(warp::header::headers_cloned()).and(warp::body::stream());
    let put =
        put.then(|name: String, app: Arc<App>, visitor: Visitor, query: String, headers: HeaderMap, body| async move {
            let stored = stored(&app, &visitor, (decoded(&name), &query), &headers, body).await;
            stored.unwrap_or_else(|fault| fault.response())
        });
    let delete = one().and(warp::delete()).and(visitor());
    let delete = delete.then(|name: String, app: Arc<App>, visitor: Visitor| async move {
        deleted(&app, &visitor, decoded(&name)).await.unwrap_or_else(|fault| fault.response())
    });
    list.or(get).unify().or(put).unify().or(delete).unify().boxed()
}

fn decoded(name: &str) -> String {
    percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned()
}

async fn shown(app: &App, visitor: &Visitor, name: String, headers: &HeaderMap) -> Result<Response, Fault> {
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let unknown = Fault::UnknownPlugin(clip(&name));
    let owner = visitor.tenant.owner.clone();
    if accepts.split(',').any(|kind| kind.split(';').next().map(str::trim) == Some(WASM)) {
        let file = app.off_thread(move |engine| engine.registry().file(&owner, &name)).await??.ok_or(unknown)?;
        return Ok(warp::reply::with_header(file, header::CONTENT_TYPE, WASM).into_response());
    }
    let card = app.engine.registry().card(&owner, &name).map_err(UploadError::from)?.ok_or(unknown)?;
    Ok(warp::reply::json(&wire::plugin_card(card)).into_response())
}

async fn stored<B: Buf + Send + 'static>(
    app: &App,
    visitor: &Visitor,
    (name, query): (String, &str),
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, warp::Error>> + Send + 'static,
) -> Result<Response, Fault> {
    may_upload(visitor)?;
    let (visibility, config) = asked(query)?;
    // Of those examined at once; taken before the body, of which each may be large.
    let place = app.upload_places.clone().try_acquire_owned().map_err(|_| Fault::BusyUploads)?;
    let limits = BodyLimits { bytes: visitor.class.limits().file_bytes, time: app.config.body_timeout };
    let bytes = read_wasm(headers, body, limits).await?;
    let (owner, class, registry) = (visitor.tenant.owner.clone(), visitor.class, app.engine.registry().clone());
    let done = tokio::task::spawn_blocking(move || {
        let upload = Upload { owner: &owner, name: &name, visibility, class, config, bytes: &bytes };
        let done = registry.put(&upload);
        drop(place);
        done
    });
    let (card, new) = done.await.map_err(|_| Fault::Internal("an upload panicked"))??;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(warp::reply::with_status(warp::reply::json(&wire::plugin_card(card)), status).into_response())
}

async fn deleted(app: &App, visitor: &Visitor, name: String) -> Result<Response, Fault> {
    may_upload(visitor)?;
    let (owner, id) = (visitor.tenant.owner.clone(), name.clone());
    app.off_thread(move |engine| engine.registry().delete(&owner, &name)).await??;
    let gone = PluginDeleted { id, object: "plugin.deleted".into(), deleted: true };
    Ok(warp::reply::json(&gone).into_response())
}

fn may_upload(visitor: &Visitor) -> Result<(), Fault> {
    if visitor.may_upload { Ok(()) } else { Err(Fault::UploadsNeedKeys) }
}

/// `?visibility=private|shared&config={…}`.
fn asked(query: &str) -> Result<(Visibility, Value), Fault> {
    let (mut visibility, mut config) = (Visibility::Private, Value::Object(serde_json::Map::new()));
    for field in query.split('&').filter(|field| !field.is_empty()) {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        let value = decoded(&value.replace('+', " "));
        match name {
            "visibility" => {
                let wrong = || format!("`visibility` must be `private` or `shared`. Given: `{}`", clip(&value));
                visibility = Visibility::from_name(&value).ok_or_else(|| invalid("visibility", wrong()))?;
            }
            "config" => {
                let wrong = || invalid("config", format!("`config` must be a JSON object. Given: `{}`", clip(&value)));
                config = serde_json::from_str(&value).map_err(|_| wrong())?;
                if !config.is_object() {
                    return Err(wrong().into());
                }
            }
            other => {
                let other = clip(other);
                let message = format!("`{other}` is not known here; known are `visibility` and `config`");
                return Err(Fault::Invalid(specula_engine::RequestError {
                    field: other,
                    code: "unknown_field",
                    message,
                }));
            }
        }
    }
    Ok((visibility, config))
}

/// The status of an upload that failed.
pub(crate) fn status(error: &UploadError) -> StatusCode {
    match (error, error.code()) {
        (_, "too-large") => StatusCode::PAYLOAD_TOO_LARGE,
        (_, "bad-name") => StatusCode::BAD_REQUEST,
        (_, "workshop" | "sandbox" | "store") => StatusCode::INTERNAL_SERVER_ERROR,
        (_, "unknown-plugin") => StatusCode::NOT_FOUND,
        (UploadError::Refused(_), _) => StatusCode::UNPROCESSABLE_ENTITY,
        (UploadError::NameTaken(_), _) => StatusCode::CONFLICT,
        _ => StatusCode::FORBIDDEN,
    }
}
