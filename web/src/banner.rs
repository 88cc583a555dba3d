//! The error banner.

use wasm_bindgen::JsValue;
use web_sys::{HtmlButtonElement, HtmlElement};

use crate::dom;

/// The banner; hidden while nothing is wrong.
pub(crate) struct Banner {
    root: HtmlElement,
    text: HtmlElement,
    retry: HtmlButtonElement,
}

impl Banner {
    pub(crate) fn find() -> Result<Self, JsValue> {
        Ok(Self { root: dom::by_id("error")?, text: dom::by_id("error-text")?, retry: dom::by_id("retry")? })
    }

    /// Says what is wrong and, if that can help, offers to ask again.
    pub(crate) fn show(&self, message: &str, may_retry: bool) {
        self.retry.set_hidden(!may_retry);
        self.root.set_hidden(false);
        self.text.set_text_content(Some(message));
    }

    pub(crate) fn hide(&self) {
        self.root.set_hidden(true);
    }

    /// Asking again needs a connection.
    pub(crate) fn set_connected(&self, connected: bool) {
        self.retry.set_disabled(!connected);
    }
}
