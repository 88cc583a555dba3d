//! The way in and out of every request: who asks, what is counted, which headers every answer bears.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::service::Service;
use warp::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use warp::reply::{Reply, Response};

use crate::app::App;
use crate::connections::Handler;
use crate::errors::{Fault, Note};
use crate::origin::Caller;
use crate::request_id::{self, RequestId};
use crate::routes;
use crate::visitors::Visitor;

/// The gate with the routes behind it.
#[derive(Clone)]
pub(crate) struct Gate<R> {
    pub(crate) app: Arc<App>,
    pub(crate) routes: R,
}

impl<R> Handler for Gate<R>
where
    R: Service<Request<Incoming>, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    R::Future: Send,
{
    async fn answer(&self, mut request: Request<Incoming>) -> Response {
        let begin = Instant::now();
        let label = routes::label(&self.app, request.uri().path());
        let (method, id) = (request.method().clone(), RequestId::of(request.headers(), &self.app));
        request.extensions_mut().insert(id.clone());
        let caller = self.app.origins.judge(request.headers());
        let mut response = match &caller {
            Err(fault) => fault.response(),
            Ok(Caller::Configured(_)) if is_preflight(&request) => preflight(),
            Ok(caller) => match self.visitor(&request, caller) {
                Err(fault) => fault.response(),
                Ok(visitor) => {
                    if let Some(visitor) = visitor {
                        request.extensions_mut().insert(visitor);
                    }
                    self.call(request).await
                }
            },
        };
        dress(response.headers_mut(), caller.ok());
        response.headers_mut().insert(request_id::HEADER, id.header());
        self.app.requests.count(label, response.status());
        log(&method, label, &id, &response, begin);
        response
    }
}

impl<R> Gate<R>
where
    R: Service<Request<Incoming>, Response = Response, Error = Infallible>,
{
    /// Who asks, at a path where that matters.
    fn visitor(&self, request: &Request<Incoming>, caller: &Caller) -> Result<Option<Visitor>, Fault> {
        if routes::is_for_all(&self.app, request.uri().path()) {
            return Ok(None);
        }
        let (visitors, loopback) = (&self.app.config.visitors, self.app.origins.loopback());
        visitors.judge(request.headers(), caller, loopback).map(Some)
    }

    async fn call(&self, mut request: Request<Incoming>) -> Response {
        // The connection leaves out the body of an answer to HEAD; the routes need not know that method.
        if request.method() == Method::HEAD {
            *request.method_mut() = Method::GET;
        }
        self.routes.call(request).await.unwrap_or_else(|never| match never {})
    }
}

/// Methods that a log may name.
const STANDARD: [Method; 6] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS];

/// A line for each answer; the time is to its head. Never the path or anything else that a client wrote.
fn log(method: &Method, route: &str, request: &RequestId, response: &Response, begin: Instant) {
    let status = response.status().as_u16();
    let ms = begin.elapsed().as_secs_f64() * 1e3;
    let note = response.extensions().get::<Note>();
    // Methods are open-ended: one that is not of the standard is what a client wrote.
    let method = if STANDARD.contains(method) { method.as_str() } else { "other" };
    match note {
        None => tracing::info!(%request, method, route, status, ms, "answered"),
        Some(Note { code, message: None }) => tracing::info!(%request, method, route, status, code, ms, "refused"),
        Some(Note { code, message: Some(error) }) => {
            tracing::error!(%request, method, route, status, code, error, ms, "failed");
        }
    }
}

fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT, DELETE"));
    let allowed = HeaderValue::from_static("authorization, content-type, x-request-id");
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    response
}

fn dress(headers: &mut HeaderMap, caller: Option<Caller>) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-request-id"));
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(Caller::Configured(origin)) = caller {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
}
