//! The WebSocket, opened again after every loss, with growing pauses.

use specula_protocol::{ClientFrame, ServerFrame};
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{MessageEvent, WebSocket};

use crate::app::{self, Action};
use crate::{dom, key};

/// Pause before the first attempt to connect again; it doubles up to [`LONGEST_PAUSE_MS`].
const FIRST_PAUSE_MS: i32 = 500;
const LONGEST_PAUSE_MS: i32 = 8000;

/// What happens on the socket.
#[derive(Debug)]
pub(crate) enum Event {
    /// Frames can be sent.
    Opened,
    /// The server sent a frame, or, as text, something that is none.
    Frame(Result<ServerFrame, String>),
    /// The connection was lost or could not be made.
    Closed,
    /// The pause is over.
    PauseOver,
}

/// The socket. Its callbacks are made once and serve every connection.
pub(crate) struct Socket {
    url: String,
    connection: WebSocket,
    failures: u32,
    callbacks: Callbacks,
}

struct Callbacks {
    opened: Closure<dyn FnMut()>,
    message: Closure<dyn FnMut(MessageEvent)>,
    closed: Closure<dyn FnMut()>,
    pause_over: Closure<dyn FnMut()>,
}

impl Socket {
    /// Begins to connect to `/v1/stream` of the page's own server.
    pub(crate) fn connect() -> Result<Self, JsValue> {
        let location = dom::window().location();
        let scheme = if location.protocol()? == "https:" { "wss" } else { "ws" };
        let url = format!("{scheme}://{}/v1/stream", location.host()?);
        let callbacks = Callbacks {
            opened: Closure::new(|| app::dispatch(Action::Socket(Event::Opened))),
            message: Closure::new(|event: MessageEvent| {
                // The server sends text only.
                let text = event.data().as_string().unwrap_or_default();
                let frame = serde_json::from_str(&text).map_err(|error| error.to_string());
                app::dispatch(Action::Socket(Event::Frame(frame)));
            }),
            closed: Closure::new(|| app::dispatch(Action::Socket(Event::Closed))),
            pause_over: Closure::new(|| app::dispatch(Action::Socket(Event::PauseOver))),
        };
        let connection = callbacks.open(&url)?;
        Ok(Self { url, connection, failures: 0, callbacks })
    }

    /// Whether frames can be sent.
    pub(crate) fn is_open(&self) -> bool {
        self.connection.ready_state() == WebSocket::OPEN
    }

    /// Sends a frame.
    pub(crate) fn send(&self, frame: &ClientFrame) -> Result<(), JsValue> {
        let json = serde_json::to_string(frame).map_err(|error| JsValue::from_str(&error.to_string()))?;
        self.connection.send_with_str(&json)
    }

    /// To be told of [`Event::Opened`]: the next loss begins with a short pause again.
    pub(crate) fn opened(&mut self) {
        self.failures = 0;
    }

    /// To be told of [`Event::Closed`]: begins the pause before the next attempt.
    pub(crate) fn closed(&mut self) -> Result<(), JsValue> {
        let pause = FIRST_PAUSE_MS.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE_MS);
        self.failures += 1;
        let callback = self.callbacks.pause_over.as_ref().unchecked_ref();
        dom::window().set_timeout_with_callback_and_timeout_and_arguments_0(callback, pause)?;
        Ok(())
    }

    /// To be told of [`Event::PauseOver`]: tries again.
    pub(crate) fn pause_over(&mut self) -> Result<(), JsValue> {
        self.connection = self.callbacks.open(&self.url)?;
        Ok(())
    }
}

impl Callbacks {
    fn open(&self, url: &str) -> Result<WebSocket, JsValue> {
        let connection = key::open_socket(url)?;
        connection.set_onopen(Some(self.opened.as_ref().unchecked_ref()));
        connection.set_onmessage(Some(self.message.as_ref().unchecked_ref()));
        // A failed attempt is closed too, so that errors need no callback of their own.
        connection.set_onclose(Some(self.closed.as_ref().unchecked_ref()));
        Ok(connection)
    }
}
