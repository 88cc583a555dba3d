//! The way in and out of every request: who asks, what is counted, which headers every answer bears.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::service::Service;
use warp::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use warp::reply::{Reply, Response};

use crate::app::App;
use crate::connections::Handler;
use crate::origin::Caller;
use crate::routes;

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
        let label = routes::label(&self.app, request.uri().path());
        let caller = self.app.origins.judge(request.headers());
        let mut response = match &caller {
            Err(fault) => fault.response(),
            Ok(Caller::Configured(_)) if is_preflight(&request) => preflight(),
            Ok(_) => {
                // The connection leaves out the body of an answer to HEAD; the routes need not know that method.
                if request.method() == Method::HEAD {
                    *request.method_mut() = Method::GET;
                }
                self.routes.call(request).await.unwrap_or_else(|never| match never {})
            }
        };
        dress(response.headers_mut(), caller.ok());
        self.app.requests.count(label, response.status());
        tracing::debug!(route = label, status = response.status().as_u16(), "answered");
        response
    }
}

fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"));
    response
}

fn dress(headers: &mut HeaderMap, caller: Option<Caller>) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(Caller::Configured(origin)) = caller {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
}
