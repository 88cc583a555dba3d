//! Turns what the reader does into actions.

use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{Element, Event, EventTarget, HtmlElement, HtmlInputElement, KeyboardEvent, ResizeObserver};

use crate::app::{self, Action};
use crate::dom;

/// Listens to all of them.
pub(crate) fn attach() -> Result<(), JsValue> {
    for (id, action) in [
        ("stop", (|| Action::Stop) as fn() -> Action),
        ("send", || Action::Submit),
        ("retry", || Action::Retry),
        ("dismiss", || Action::Dismiss),
        ("new-chat", || Action::NewChat),
        ("panel-toggle", || Action::TogglePanel),
    ] {
        dom::listen(&dom::by_id::<EventTarget>(id)?, "click", move |_| app::dispatch(action()))?;
    }
    // One listener for everything that comes and goes with the messages.
    let scroll: HtmlElement = dom::by_id("scroll")?;
    dom::listen(&scroll, "click", |event| {
        if let Some(action) = clicked(&event) {
            app::dispatch(action);
        }
    })?;
    dom::listen(&scroll, "scroll", |_| app::dispatch(Action::Scrolled))?;
    dom::listen(&dom::by_id::<EventTarget>("settings")?, "input", |_| app::dispatch(Action::Edited))?;
    let chosen: HtmlInputElement = dom::by_id("plugin-file")?;
    let file = chosen.clone();
    dom::listen(&chosen, "change", move |_| {
        if let Some(file) = file.files().and_then(|files| files.get(0)) {
            app::dispatch(Action::Upload(file));
        }
        // The same file may be chosen again, once it was built anew.
        file.set_value("");
    })?;
    keys()?;
    redraws()
}

fn clicked(event: &Event) -> Option<Action> {
    let button = event.target()?.dyn_into::<Element>().ok()?.closest("button").ok().flatten()?;
    match button.get_attribute("data-seed") {
        Some(seed) => Some(Action::UseSeed(seed)),
        None => button.text_content().map(Action::Ask),
    }
}

/// Enter sends, Shift+Enter breaks the line, Escape stops.
fn keys() -> Result<(), JsValue> {
    dom::listen(&dom::by_id::<EventTarget>("prompt")?, "keydown", |event| {
        let Some(key) = event.dyn_ref::<KeyboardEvent>() else { return };
        // While composing, Enter chooses a character.
        if key.key() == "Enter" && !key.shift_key() && !key.is_composing() {
            event.prevent_default();
            app::dispatch(Action::Submit);
        }
    })?;
    dom::listen(&dom::document(), "keydown", |event| {
        if event.dyn_ref::<KeyboardEvent>().is_some_and(|key| key.key() == "Escape" && !key.is_composing()) {
            app::dispatch(Action::Escape);
        }
    })
}

/// A canvas does not follow its size and the theme by itself.
fn redraws() -> Result<(), JsValue> {
    let resized = Closure::<dyn FnMut()>::new(|| app::dispatch(Action::Redraw));
    ResizeObserver::new(resized.as_ref().unchecked_ref())?.observe(&dom::by_id::<Element>("lanes")?);
    resized.forget();
    if let Some(dark) = dom::window().match_media("(prefers-color-scheme: dark)")? {
        dom::listen(&dark, "change", |_| app::dispatch(Action::Redraw))?;
    }
    Ok(())
}
