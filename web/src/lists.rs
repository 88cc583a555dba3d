//! What the server offers: models and plugins.

use serde::de::DeserializeOwned;
use specula_protocol::{ErrorBody, ModelList, PluginList};
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::XmlHttpRequest;

use crate::app::{self, Action};
use crate::key;

/// Asks for both lists; each arrives as an action.
pub(crate) fn request() -> Result<(), JsValue> {
    get::<ModelList>("/v1/models", |list| Action::Models(list.map(|list| list.data)))?;
    request_plugins()
}

/// Asks for the plugins alone.
pub(crate) fn request_plugins() -> Result<(), JsValue> {
    get::<PluginList>("/v1/plugins", |list| Action::Plugins(list.map(|list| list.data)))
}

fn get<T: DeserializeOwned + 'static>(
    path: &'static str,
    action: impl FnOnce(Result<T, String>) -> Action + 'static,
) -> Result<(), JsValue> {
    let request = XmlHttpRequest::new()?;
    request.open_with_async("GET", path, true)?;
    key::authorize(&request)?;
    let answered = request.clone();
    let ended = Closure::once_into_js(move || {
        let list = read(&answered).map_err(|reason| format!("{path} could not be read: {reason}"));
        app::dispatch(action(list));
    });
    request.set_onloadend(Some(ended.unchecked_ref()));
    request.send()
}

/// The answer that came, or why there is none.
pub(crate) fn read<T: DeserializeOwned>(request: &XmlHttpRequest) -> Result<T, String> {
    let body = request.response_text().ok().flatten().unwrap_or_default();
    match request.status() {
        Ok(200 | 201) => serde_json::from_str(&body).map_err(|error| error.to_string()),
        Ok(0) | Err(_) => Err("the server did not answer".to_owned()),
        Ok(status) => {
            let error = serde_json::from_str::<ErrorBody>(&body).map(|body| body.error.message);
            Err(error.unwrap_or_else(|_| format!("status {status}")))
        }
    }
}
