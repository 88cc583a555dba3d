//! The playground: a chat over `/v1/stream` that shows where every token came from and what both devices did meanwhile.
//!
//! [`settings`], [`conversation`], [`progress`] and [`lanes`] compute and know no browser, so their tests run on the
//! host. The other modules exist for wasm32 only: `socket`, `lists` and `storage` fetch and keep; `transcript`, `facts`,
//! `meters`, `chart`, `composer`, `banner`, `controls` and `plugins` each own a part of the document; `app` holds the
//! state and is the only one that knows them all. `listeners` turns every event into one `app::Action`, so that the state
//! changes in one place.

pub mod conversation;
pub mod lanes;
pub mod progress;
pub mod settings;

#[cfg(target_arch = "wasm32")]
mod app;
#[cfg(target_arch = "wasm32")]
mod banner;
#[cfg(target_arch = "wasm32")]
mod chart;
#[cfg(target_arch = "wasm32")]
mod composer;
#[cfg(target_arch = "wasm32")]
mod controls;
#[cfg(target_arch = "wasm32")]
mod dom;
#[cfg(target_arch = "wasm32")]
mod facts;
#[cfg(target_arch = "wasm32")]
mod key;
#[cfg(target_arch = "wasm32")]
mod listeners;
#[cfg(target_arch = "wasm32")]
mod lists;
#[cfg(target_arch = "wasm32")]
mod meters;
#[cfg(target_arch = "wasm32")]
mod plugins;
#[cfg(target_arch = "wasm32")]
mod socket;
#[cfg(target_arch = "wasm32")]
mod storage;
#[cfg(target_arch = "wasm32")]
mod transcript;
#[cfg(target_arch = "wasm32")]
mod upload;

/// Runs when the module is loaded; what it cannot find in the document ends up in the console.
#[cfg(target_arch = "wasm32")]
#[wasm_bindgen::prelude::wasm_bindgen(start)]
pub fn start() -> Result<(), wasm_bindgen::JsValue> {
    // A panic is otherwise only `unreachable executed`.
    std::panic::set_hook(Box::new(|info| web_sys::console::error_1(&info.to_string().into())));
    app::start()
}
