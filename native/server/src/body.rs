//! Reads a request's body: its type, its size counted while it arrives, its time.

use std::time::Duration;

use bytes::Buf;
use futures_util::{Stream, StreamExt};
use warp::http::{HeaderMap, header};

use crate::errors::{Fault, clip};

/// What a body may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    pub(crate) bytes: usize,
    pub(crate) time: Duration,
}

/// How much of a refused body is still taken and thrown away, in bodies of the greatest size, and for how long.
const LINGER_BODIES: usize = 16;
const LINGER_TIME: Duration = Duration::from_secs(5);

/// The text of a JSON body.
pub(crate) async fn read_json<B, S, E>(headers: &HeaderMap, body: S, limits: BodyLimits) -> Result<String, Fault>
where
    B: Buf + Send + 'static,
    S: Stream<Item = Result<B, E>> + Send + 'static,
    E: Send + 'static,
{
    let bytes = read(headers, body, limits, "application/json").await?;
    String::from_utf8(bytes).map_err(|e| Fault::NotUtf8 { at: e.utf8_error().valid_up_to() })
}

/// The bytes of a WebAssembly body.
pub(crate) async fn read_wasm<B, S, E>(headers: &HeaderMap, body: S, limits: BodyLimits) -> Result<Vec<u8>, Fault>
where
    B: Buf + Send + 'static,
    S: Stream<Item = Result<B, E>> + Send + 'static,
    E: Send + 'static,
{
    read(headers, body, limits, "application/wasm").await
}

/// The rest of a refused body is read and thrown away beside the answer, within bounds: a client that writes all before it
/// reads would otherwise find the connection broken, and no answer.
async fn read<B, S, E>(headers: &HeaderMap, body: S, limits: BodyLimits, kind: &'static str) -> Result<Vec<u8>, Fault>
where
    B: Buf + Send + 'static,
    S: Stream<Item = Result<B, E>> + Send + 'static,
    E: Send + 'static,
{
    let mut body = Box::pin(body);
    let bytes = read_part(headers, &mut body, limits, kind).await;
    let over = matches!(bytes, Ok(_) | Err(Fault::BodyTimeout { .. } | Fault::BodyBroken));
    // Who waits for `100 Continue` has sent nothing yet, and reading would ask for it.
    if !over && !headers.contains_key(header::EXPECT) {
        tokio::spawn(tokio::time::timeout(LINGER_TIME, discard(body, limits.bytes.saturating_mul(LINGER_BODIES))));
    }
    bytes
}

async fn discard<B: Buf, E>(mut body: impl Stream<Item = Result<B, E>> + Unpin, mut limit_bytes: usize) {
    while let Some(Ok(part)) = body.next().await {
        match limit_bytes.checked_sub(part.remaining()) {
            Some(left) => limit_bytes = left,
            None => return,
        }
    }
}

async fn read_part<B: Buf, E>(
    headers: &HeaderMap,
    body: &mut (impl Stream<Item = Result<B, E>> + Unpin),
    limits: BodyLimits,
    kind: &'static str,
) -> Result<Vec<u8>, Fault> {
    require(headers, kind)?;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limits.bytes as u64) {
        return Err(Fault::BodyTooLarge { limit_bytes: limits.bytes });
    }
    let bytes = tokio::time::timeout(limits.time, collect(body, limits.bytes)).await;
    bytes.map_err(|_| Fault::BodyTimeout { limit: limits.time })?
}

fn require(headers: &HeaderMap, wanted: &'static str) -> Result<(), Fault> {
    let given = headers.get(header::CONTENT_TYPE).map(|v| v.to_str().unwrap_or("?"));
    let kind = given.and_then(|v| v.split(';').next()).map(str::trim);
    match kind {
        Some(kind) if kind.eq_ignore_ascii_case(wanted) => Ok(()),
        _ => Err(Fault::ContentType {
            wanted,
            given: given.map_or_else(|| "none".to_owned(), |v| format!("`{}`", clip(v))),
        }),
    }
}

async fn collect<B: Buf, E>(
    body: &mut (impl Stream<Item = Result<B, E>> + Unpin),
    limit_bytes: usize,
) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    while let Some(part) = body.next().await {
        let mut part = part.map_err(|_| Fault::BodyBroken)?;
        if bytes.len() + part.remaining() > limit_bytes {
            return Err(Fault::BodyTooLarge { limit_bytes });
        }
        while part.has_remaining() {
            let chunk = part.chunk();
            bytes.extend_from_slice(chunk);
            let read = chunk.len();
            part.advance(read);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures_util::stream;
    use warp::http::{HeaderValue, StatusCode};

    const LIMITS: BodyLimits = BodyLimits { bytes: 8, time: Duration::from_millis(50) };

    async fn read(kind: Option<&'static str>, parts: &[&'static [u8]]) -> Result<String, Fault> {
        let mut headers = HeaderMap::new();
        if let Some(kind) = kind {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        let parts: Vec<_> = parts.iter().map(|&part| Ok::<_, ()>(Bytes::from_static(part))).collect();
        read_json(&headers, stream::iter(parts), LIMITS).await
    }

    #[tokio::test]
    async fn a_body_up_to_the_bound_is_read() {
        let text = read(Some("Application/JSON; charset=utf-8"), &[b"1234", b"5678"]).await.expect("read");
        assert_eq!(text, "12345678");
    }

    #[tokio::test]
    async fn a_body_over_the_bound_is_refused_while_it_arrives() {
        let fault = read(Some("application/json"), &[b"1234", b"56789"]).await.expect_err("too large");
        assert_eq!(fault.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert!(fault.to_string().contains("8 bytes"));
    }

    #[tokio::test]
    async fn other_types_and_other_bytes_are_refused() {
        for kind in [None, Some("text/plain"), Some("application/jsonp")] {
            let fault = read(kind, &[b"{}"]).await.expect_err("type");
            assert_eq!(fault.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        let fault = read(Some("application/json"), &[b"ab\xff"]).await.expect_err("bytes");
        assert!(matches!(fault, Fault::NotUtf8 { at: 2 }), "{fault}");
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_given_up() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = stream::pending::<Result<Bytes, ()>>();
        let fault = read_json(&headers, body, LIMITS).await.expect_err("time");
        assert_eq!(fault.status(), StatusCode::REQUEST_TIMEOUT);
    }
}
