//! Plain HTTP: one connection a request, so that no test rides on another's.

use std::sync::LazyLock;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;

use crate::answer::{self, Answer};
use crate::server::Server;
use crate::wait::PATIENCE;

/// Chats.
pub const CHAT: &str = "/v1/chat/completions";
/// Texts to be continued.
pub const TEXT: &str = "/v1/completions";

/// An HTTP answer.
#[derive(Debug)]
pub struct Reply {
    /// Status.
    pub status: u16,
    headers: HeaderMap,
    /// Body.
    pub body: Vec<u8>,
}

impl Reply {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("headers are ASCII"))
    }

    /// The body's text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// The body's JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(self.text()).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    async fn read(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, body: response.bytes().await.expect("the body arrives").into() }
    }
}

impl Server {
    /// GETs a path.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    /// POSTs JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_raw(path, body.to_string()).await
    }

    /// POSTs a text as JSON, whatever it is.
    pub async fn post_raw(&self, path: &str, body: String) -> Reply {
        self.send(self.posting(path, body)).await
    }

    /// A request to be dressed further.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        // A bound on the whole answer, so that none is waited for without end.
        static CLIENT: LazyLock<Client> = LazyLock::new(|| {
            let client = Client::builder().pool_max_idle_per_host(0).timeout(PATIENCE);
            client.build().expect("a client without TLS can be made")
        });
        CLIENT.request(method, self.url(path))
    }

    /// A POST of a text as JSON, to be dressed further.
    pub fn posting(&self, path: &str, body: String) -> RequestBuilder {
        self.request(Method::POST, path).header(CONTENT_TYPE, "application/json").body(body)
    }

    /// Sends a request.
    pub async fn send(&self, request: RequestBuilder) -> Reply {
        Reply::read(request.send().await.expect("the server answers")).await
    }

    /// Asks for an answer in one piece; it must succeed.
    pub async fn whole(&self, path: &str, request: &Value) -> Answer {
        let reply = self.post(path, request).await;
        assert_eq!(reply.status, 200, "{request}: {}", reply.text());
        let json = reply.json();
        let choice = &json["choices"][0];
        let text = choice["message"]["content"].as_str().or(choice["text"].as_str());
        Answer {
            text: text.unwrap_or_else(|| panic!("no text in {json}")).to_owned(),
            finish_reason: choice["finish_reason"].as_str().expect("a reason").to_owned(),
            usage: answer::usage(&json["usage"]),
            report: answer::report(&json["specula"]),
        }
    }

    /// What the server counts.
    pub async fn metrics(&self) -> crate::Exposition {
        crate::Exposition::parse(self.get("/metrics").await.text())
    }
}
