//! Where a question is written, sent and stopped.

use wasm_bindgen::JsValue;
use web_sys::{HtmlButtonElement, HtmlTextAreaElement};

use crate::dom;

/// The prompt and its two buttons.
pub(crate) struct Composer {
    prompt: HtmlTextAreaElement,
    send: HtmlButtonElement,
    stop: HtmlButtonElement,
}

impl Composer {
    pub(crate) fn find() -> Result<Self, JsValue> {
        Ok(Self { prompt: dom::by_id("prompt")?, send: dom::by_id("send")?, stop: dom::by_id("stop")? })
    }

    /// What is written.
    pub(crate) fn question(&self) -> String {
        self.prompt.value().trim().to_owned()
    }

    /// Empties it.
    pub(crate) fn clear(&self) {
        self.prompt.set_value("");
    }

    /// Shows the button that makes sense now.
    pub(crate) fn set_running(&self, running: bool) {
        self.send.set_hidden(running);
        self.stop.set_hidden(!running);
        self.stop.set_disabled(false);
        self.focus();
    }

    /// Stop was asked for; its effect takes up to one round.
    pub(crate) fn set_stopping(&self) {
        self.stop.set_disabled(true);
    }

    /// Sending needs a connection.
    pub(crate) fn set_connected(&self, connected: bool) {
        self.send.set_disabled(!connected);
    }

    /// Ready to write on, except where that would bring up an on-screen keyboard over the answer.
    pub(crate) fn focus(&self) {
        if dom::matches("(pointer: fine)") {
            // A prompt that cannot be focused is only less handy.
            self.prompt.focus().ok();
        }
    }
}
