//! The WebSocket `/v1/stream` as the page uses it.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use specula_protocol::{ApiError, ServerFrame};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::answer::Answer;
use crate::request::with;
use crate::server::Server;
use crate::wait::in_time;

/// An open socket; dropping it hangs up.
pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Server {
    /// Opens a socket.
    pub async fn socket(&self) -> Socket {
        let address = format!("ws://{}/v1/stream", self.address());
        Socket(in_time("the handshake", connect_async(address)).await.expect("the server takes sockets").0)
    }
}

impl Server {
    /// Opens a socket as a browser does that has a key: with sub-protocols.
    pub async fn socket_with_key(&self, key: &str) -> Socket {
        let address = format!("ws://{}/v1/stream", self.address());
        let mut request = address.into_client_request().expect("an address");
        let offered = format!("specula, key.{key}").parse().expect("a header");
        request.headers_mut().insert("sec-websocket-protocol", offered);
        let (socket, answer) = in_time("the handshake", connect_async(request)).await.expect("the key is known");
        let taken = answer.headers().get("sec-websocket-protocol").map(|taken| taken.as_bytes());
        assert_eq!(taken, Some(&b"specula"[..]), "a browser wants one of its offers taken");
        Socket(socket)
    }
}

impl Socket {
    /// Asks for a generation.
    pub async fn generate(&mut self, id: &str, request: &Value) {
        self.send(&with(request, json!({"type": "generate", "id": id}))).await;
    }

    /// Cancels a generation.
    pub async fn cancel(&mut self, id: &str) {
        self.send(&json!({"type": "cancel", "id": id})).await;
    }

    /// Sends a frame, whatever it is.
    pub async fn send(&mut self, frame: &Value) {
        self.0.send(Message::text(frame.to_string())).await.expect("the socket is open");
    }

    /// The next frame.
    pub async fn next(&mut self) -> ServerFrame {
        loop {
            match in_time("a frame", self.0.next()).await {
                Some(Ok(Message::Text(text))) => {
                    return serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("no frame but {other:?}"),
            }
        }
    }

    /// Reads on until generation `id` ends; frames of others are passed over.
    pub async fn finish(&mut self, id: &str) -> Result<Answer, ApiError> {
        let mut text = String::new();
        loop {
            match self.next().await {
                ServerFrame::Round { id: of, tokens, .. } if of == id => {
                    text.extend(tokens.iter().map(|token| token.text.as_str()));
                }
                ServerFrame::Finished { id: of, reason, usage, specula } if of == id => {
                    return Ok(Answer { text, finish_reason: reason, usage: Some(usage), report: *specula });
                }
                ServerFrame::Error { id: of, error } if of.as_deref().is_none_or(|of| of == id) => return Err(error),
                _ => {}
            }
        }
    }

    /// Reads the generations with the ids `0` to `count - 1` to their ends, which must not be errors.
    pub async fn finish_all(&mut self, count: usize) -> Vec<Answer> {
        let mut texts = vec![String::new(); count];
        let mut answers = vec![None; count];
        while answers.iter().any(Option::is_none) {
            match self.next().await {
                ServerFrame::Started { .. } => {}
                ServerFrame::Round { id, tokens, .. } => {
                    texts[index(&id)].extend(tokens.iter().map(|token| token.text.as_str()));
                }
                ServerFrame::Finished { id, reason, usage, specula } => {
                    let text = std::mem::take(&mut texts[index(&id)]);
                    let answer = Answer { text, finish_reason: reason, usage: Some(usage), report: *specula };
                    answers[index(&id)] = Some(answer);
                }
                error @ ServerFrame::Error { .. } => panic!("{error:?}"),
            }
        }
        answers.into_iter().flatten().collect()
    }

    /// Asks for a generation and reads it to its end, which must not be an error.
    pub async fn answer(&mut self, request: &Value) -> Answer {
        self.generate("only", request).await;
        self.finish("only").await.unwrap_or_else(|error| panic!("{error:?}"))
    }
}

fn index(id: &str) -> usize {
    id.parse().expect("the ids asked for are numbers")
}
