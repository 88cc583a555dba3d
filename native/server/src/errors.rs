//! Everything that can be wrong with a request, and the one translation of it to an HTTP answer in OpenAI's shape.

use std::time::Duration;

use specula_engine::{Failure, Refused, RequestError};
use specula_policies::UploadError;
use specula_protocol::{ApiError, ErrorBody};
use warp::http::{HeaderValue, StatusCode, header};
use warp::reply::{Reply, Response};

use crate::plugins;

/// What a client in a hurry waits before it tries a server that is shutting down again: its successor needs about that.
const RETRY_AFTER_DRAINING_S: u64 = 10;
/// An examination takes about so long.
const RETRY_AFTER_UPLOADS_S: u64 = 2;

/// Why a request is not answered as it wished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}")]
    Invalid(#[from] RequestError),
    #[error("the body is not valid UTF-8: byte {at} begins no character")]
    NotUtf8 { at: usize },
    #[error("the body is not valid JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    #[error("the body broke off")]
    BodyBroken,
    #[error("the body did not arrive within {} s", limit.as_secs())]
    BodyTimeout { limit: Duration },
    #[error("the body is larger than {limit_bytes} bytes")]
    BodyTooLarge { limit_bytes: usize },
    #[error("the content type must be `{wanted}`; given: {given}")]
    ContentType { wanted: &'static str, given: String },
    #[error("the model `{asked}` is not served here; this server serves `{served}`")]
    UnknownModel { asked: String, served: String },
    #[error(
        "there is nothing at this path; texts are generated at /v1/chat/completions, /v1/completions and /v1/stream"
    )]
    NoRoute,
    #[error("this path answers only {allow}")]
    Method { allow: &'static str },
    #[error("requests from the origin `{0}` are refused; an operator may allow it with `allowed_origins`")]
    ForeignOrigin(String),
    #[error("requests for the host `{0}` are refused: this server listens on the loopback interface")]
    ForeignHost(String),
    #[error("a key is needed: `Authorization: Bearer KEY`, or on a WebSocket the sub-protocols `specula, key.KEY`")]
    NoKey,
    #[error("this key is not known here")]
    WrongKey,
    #[error("plugins are taken from this machine and its own page alone, or from who has a key; this server has none")]
    UploadsNeedKeys,
    #[error("there is no plugin `{0}` that you may use")]
    UnknownPlugin(String),
    #[error("{0}")]
    Upload(UploadError),
    #[error("too many plugins are being examined; try again in {RETRY_AFTER_UPLOADS_S} s")]
    BusyUploads,
    #[error("this path takes WebSocket handshakes (version 13) only")]
    NotAnUpgrade,
    #[error("{0}")]
    Refused(#[from] Refused),
    #[error("{0}")]
    Failed(#[from] Failure),
    #[error("internal failure: {0}")]
    Internal(&'static str),
}

impl From<UploadError> for Fault {
    /// Of our own failures a client is told no more than that there was one.
    fn from(error: UploadError) -> Self {
        if plugins::status(&error).is_server_error() {
            tracing::error!(%error, "the store of plugins");
            return Self::Internal("the store of plugins failed");
        }
        Self::Upload(error)
    }
}

impl Fault {
    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) | Self::NotUtf8 { .. } | Self::NotJson(_) | Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::BodyTimeout { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ContentType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::UnknownModel { .. } | Self::UnknownPlugin(_) | Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NoKey | Self::WrongKey => StatusCode::UNAUTHORIZED,
            Self::Upload(error) => plugins::status(error),
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::ForeignOrigin(_) | Self::ForeignHost(_) | Self::UploadsNeedKeys => StatusCode::FORBIDDEN,
            Self::NotAnUpgrade => StatusCode::UPGRADE_REQUIRED,
            Self::Refused(Refused::Full { .. }) | Self::BusyUploads => StatusCode::TOO_MANY_REQUESTS,
            Self::Refused(Refused::Draining) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed(Failure::Request { .. }) => StatusCode::BAD_REQUEST,
            Self::Failed(Failure::SlowReader { .. }) => StatusCode::REQUEST_TIMEOUT,
            Self::Failed(Failure::Engine(_)) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The stable code.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Invalid(error) => error.code,
            Self::NotUtf8 { .. } => "invalid_utf8",
            Self::NotJson(_) => "invalid_json",
            Self::BodyBroken => "body_broken",
            Self::BodyTimeout { .. } => "body_timeout",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::ContentType { .. } => "unsupported_content_type",
            Self::UnknownModel { .. } => "model_not_found",
            Self::NoRoute => "not_found",
            Self::Method { .. } => "method_not_allowed",
            Self::ForeignOrigin(_) => "foreign_origin",
            Self::ForeignHost(_) => "foreign_host",
            Self::NoKey => "missing_api_key",
            Self::WrongKey => "invalid_api_key",
            Self::UploadsNeedKeys => "uploads_need_keys",
            Self::UnknownPlugin(_) => "unknown_plugin",
            Self::Upload(error) => error.code(),
            Self::BusyUploads => "uploads_busy",
            Self::NotAnUpgrade => "upgrade_required",
            Self::Refused(Refused::Full { .. }) => "queue_full",
            Self::Refused(Refused::Draining) => "draining",
            Self::Failed(Failure::Request { code, .. }) => code,
            Self::Failed(Failure::SlowReader { .. }) => "slow_reader",
            Self::Failed(Failure::Engine(_)) | Self::Internal(_) => "internal",
        }
    }

    /// The error in OpenAI's shape.
    pub(crate) fn body(&self) -> ApiError {
        let kind = match self.status() {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let param = match self {
            Self::Invalid(error) => Some(error.field.clone()).filter(|field| !field.is_empty()),
            Self::UnknownModel { .. } => Some("model".to_owned()),
            _ => None,
        };
        ApiError { message: self.to_string(), r#type: kind.into(), param, code: Some(self.code().into()) }
    }

    /// The whole answer.
    pub(crate) fn response(&self) -> Response {
        let status = self.status();
        let reply = warp::reply::json(&ErrorBody { error: self.body() });
        let mut response = warp::reply::with_status(reply, status).into_response();
        response.extensions_mut().insert(Note::of(self));
        let headers = response.headers_mut();
        match self {
            Self::Refused(Refused::Full { retry_after_s, .. }) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(*retry_after_s));
            }
            Self::Refused(Refused::Draining) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_DRAINING_S));
            }
            Self::NoKey | Self::WrongKey => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::BusyUploads => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_UPLOADS_S));
            }
            Self::Method { allow } => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allow));
            }
            Self::NotAnUpgrade => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            }
            _ => {}
        }
        response
    }
}

/// What the log may know of a fault: nothing that a client wrote.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) code: String,
    /// Of our own failures only.
    pub(crate) message: Option<String>,
}

impl Note {
    fn of(fault: &Fault) -> Self {
        let own = fault.status() == StatusCode::INTERNAL_SERVER_ERROR;
        Self { code: fault.code().to_owned(), message: own.then(|| fault.to_string()) }
    }
}

/// At most 64 characters of what a client sent, for a message.
pub(crate) fn clip(text: &str) -> String {
    const LONGEST: usize = 64;
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_openai_s_shape() {
        let fault = Fault::Invalid(RequestError {
            field: "temperature".into(),
            code: "invalid_value",
            message: "`temperature` must be within 0..=2. Given: 3".into(),
        });
        let json = serde_json::to_value(ErrorBody { error: fault.body() }).expect("serialises");
        let want = serde_json::json!({"error": {
            "message": "`temperature` must be within 0..=2. Given: 3", "type": "invalid_request_error",
            "param": "temperature", "code": "invalid_value"}});
        assert_eq!(json, want);
        assert_eq!(fault.status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn refusals_say_when_to_come_back() {
        let full = Fault::Refused(Refused::Full { places: 4, retry_after_s: 3 });
        assert_eq!(full.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(full.response().headers()[header::RETRY_AFTER], "3");
        assert_eq!(full.body().r#type, "rate_limit_error");
        let draining = Fault::Refused(Refused::Draining);
        assert_eq!(draining.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(draining.response().headers().contains_key(header::RETRY_AFTER));
    }

    #[test]
    fn only_the_engine_s_own_failures_are_500() {
        let request = Fault::Failed(Failure::Request { code: "empty_support".into(), message: "m".into() });
        assert_eq!(request.status(), StatusCode::BAD_REQUEST);
        assert_eq!(request.body().code.as_deref(), Some("empty_support"));
        assert_eq!(Fault::Failed(Failure::SlowReader { seconds: 5 }).status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(Fault::Failed(Failure::Engine("x".into())).status(), StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[test]
    fn what_a_client_sent_is_clipped_at_a_character() {
        assert_eq!(clip("é"), "é");
        assert_eq!(clip(&"é".repeat(65)), format!("{}…", "é".repeat(64)));
    }
}
