//! The reader's key, where the server has given out keys: asked for once, kept until the tab is closed.

use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::js_sys::Array;
use web_sys::{WebSocket, XmlHttpRequest};

use crate::dom;

const KEY: &str = "specula.key";

/// Asks the server whether a key is needed, and then the reader for it.
pub(crate) fn check() -> Result<(), JsValue> {
    let request = XmlHttpRequest::new()?;
    request.open_with_async("GET", "/v1/models", true)?;
    authorize(&request)?;
    let answered = request.clone();
    let ended = Closure::once_into_js(move || {
        if answered.status() == Ok(401)
            && let Err(error) = ask()
        {
            web_sys::console::error_1(&error);
        }
    });
    request.set_onloadend(Some(ended.unchecked_ref()));
    request.send()
}

/// Adds the key to a request that is open.
pub(crate) fn authorize(request: &XmlHttpRequest) -> Result<(), JsValue> {
    match kept() {
        Some(key) => request.set_request_header("authorization", &format!("Bearer {key}")),
        None => Ok(()),
    }
}

/// Opens a socket with the key among its sub-protocols: it can bear no header.
pub(crate) fn open_socket(url: &str) -> Result<WebSocket, JsValue> {
    match kept() {
        Some(key) => {
            let protocols = Array::of2(&"specula".into(), &format!("key.{key}").into());
            WebSocket::new_with_str_sequence(url, &protocols)
        }
        None => WebSocket::new(url),
    }
}

fn ask() -> Result<(), JsValue> {
    let window = dom::window();
    if let (Some(key), Some(storage)) =
        (window.prompt_with_message("This server needs a key:")?, window.session_storage()?)
    {
        storage.set_item(KEY, key.trim())?;
        window.location().reload()?;
    }
    Ok(())
}

fn kept() -> Option<String> {
    dom::window().session_storage().ok().flatten()?.get_item(KEY).ok().flatten()
}
