//! The name by which a request is found again: in the answer's header `x-request-id` and in every line of the log.

use std::fmt;
use std::sync::Arc;

use warp::http::{HeaderMap, HeaderName, HeaderValue};

use crate::app::App;

/// The header that bears it, both ways.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id taken from a client, in bytes.
const MAX_BYTES: usize = 64;

/// Letters, digits, `-`, `_` and `.`: fit for a header and a line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestId(Arc<str>);

impl RequestId {
    /// The client's own if it is well-formed, else a new one.
    pub(crate) fn of(headers: &HeaderMap, app: &App) -> Self {
        let well_formed = |id: &&str| {
            let fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            (1..=MAX_BYTES).contains(&id.len()) && id.bytes().all(fit)
        };
        match headers.get(HEADER).and_then(|value| value.to_str().ok()).filter(well_formed) {
            Some(id) => Self(id.into()),
            None => Self(app.next_id("req").into()),
        }
    }

    pub(crate) fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("letters, digits and three signs are fit for a header")
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
