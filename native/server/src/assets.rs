//! The page's files: embedded in the binary, addressed by path, revalidated by content.

use std::collections::HashMap;

use bytes::Bytes;
use warp::http::{HeaderMap, HeaderValue, StatusCode, header};
use warp::reply::{Reply, Response};

/// Files of the page: path below `/` (`index.html`, `page.js`, …) and content. `index.html` is also `/`.
pub type Assets = &'static [(&'static str, &'static [u8])];

/// What the page may load and talk to: its own server only. WebAssembly counts as script and needs its own word.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; \
     img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// The files, ready to be served.
pub(crate) struct Page {
    files: HashMap<String, File>,
}

struct File {
    content: Bytes,
    kind: &'static str,
    tag: HeaderValue,
}

impl Page {
    pub(crate) fn new(assets: Assets) -> Self {
        let mut files = HashMap::new();
        for &(path, content) in assets {
            let file = || File { content: Bytes::from_static(content), kind: kind(path), tag: tag(content) };
            let path = path.trim_start_matches('/');
            if path == "index.html" {
                files.insert("/".to_owned(), file());
            }
            files.insert(format!("/{path}"), file());
        }
        Self { files }
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// The file at a path, or 304 if the client holds it already; `None` if there is none.
    pub(crate) fn answer(&self, path: &str, headers: &HeaderMap) -> Option<Response> {
        let file = self.files.get(path)?;
        let held = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok()).unwrap_or_default();
        let fresh = held.split(',').any(|tag| tag.trim().trim_start_matches("W/").as_bytes() == file.tag.as_bytes());
        let mut response = if fresh {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            warp::reply::Response::new(file.content.clone().into())
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.kind));
        headers.insert(header::ETAG, file.tag.clone());
        // Always asked for again, so that a newer server's page is never mixed with an older one's.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
        Some(response)
    }
}

/// The content type by the file's ending; browsers compile WebAssembly while it loads only under its own type.
fn kind(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("wasm") => "application/wasm",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("json") => "application/json",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// An entity tag from the content: FNV-1a, 64 bits. Against accidents only; nobody but us chooses the content.
fn tag(content: &[u8]) -> HeaderValue {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = content.iter().fold(0xcbf2_9ce4_8422_2325, mix);
    HeaderValue::try_from(format!("\"{hash:016x}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: Assets = &[("index.html", b"<!doctype html>"), ("page_bg.wasm", b"\0asm"), ("sub/a.js", b"1")];

    #[test]
    fn files_have_their_types_and_a_policy() {
        let page = Page::new(FILES);
        for (path, kind) in [
            ("/", "text/html; charset=utf-8"),
            ("/index.html", "text/html; charset=utf-8"),
            ("/page_bg.wasm", "application/wasm"),
            ("/sub/a.js", "text/javascript; charset=utf-8"),
        ] {
            let answer = page.answer(path, &HeaderMap::new()).expect(path);
            assert_eq!(answer.headers()[header::CONTENT_TYPE], kind);
            assert!(answer.headers().contains_key(header::CONTENT_SECURITY_POLICY));
        }
        assert!(page.answer("/../secret", &HeaderMap::new()).is_none());
    }

    #[test]
    fn a_held_file_is_not_sent_again_and_another_is() {
        let page = Page::new(FILES);
        let tag = page.answer("/", &HeaderMap::new()).expect("served").headers()[header::ETAG].clone();
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, tag);
        assert_eq!(page.answer("/", &headers).expect("served").status(), StatusCode::NOT_MODIFIED);
        assert_eq!(page.answer("/page_bg.wasm", &headers).expect("served").status(), StatusCode::OK);
    }
}
