//! Finding, making and listening to elements.

use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{Document, Event, EventTarget, HtmlElement, Window};

/// The window.
pub(crate) fn window() -> Window {
    web_sys::window().expect("the page runs in a window, not in a worker")
}

/// The document.
pub(crate) fn document() -> Document {
    window().document().expect("a window that shows the page has a document")
}

/// The element that `index.html` promises under an id.
pub(crate) fn by_id<T: JsCast>(id: &str) -> Result<T, JsValue> {
    let element = document().get_element_by_id(id).and_then(|element| element.dyn_into().ok());
    element.ok_or_else(|| JsValue::from_str(&format!("index.html has no #{id} of the expected kind")))
}

/// A new element with its classes.
pub(crate) fn element(tag: &str, class: &str) -> HtmlElement {
    let element = document().create_element(tag).expect("the page's own tag names are valid");
    element.set_class_name(class);
    element.dyn_into().expect("HTML's own tags make HTML elements")
}

/// A new element with text.
pub(crate) fn text(tag: &str, class: &str, text: &str) -> HtmlElement {
    let element = element(tag, class);
    element.set_text_content(Some(text));
    element
}

/// Sets an attribute.
pub(crate) fn set(element: &HtmlElement, name: &str, value: &str) {
    element.set_attribute(name, value).expect("the page's own attribute names are valid");
}

/// Puts a child at the end.
pub(crate) fn append(parent: &HtmlElement, child: &HtmlElement) {
    parent.append_child(child).expect("a new child is no ancestor of its parent");
}

/// Whether a media query holds.
pub(crate) fn matches(query: &str) -> bool {
    window().match_media(query).ok().flatten().is_some_and(|list| list.matches())
}

/// Calls `handler` at every such event, as long as the page lives.
pub(crate) fn listen(target: &EventTarget, kind: &str, handler: impl FnMut(Event) + 'static) -> Result<(), JsValue> {
    let closure = Closure::<dyn FnMut(Event)>::new(handler);
    target.add_event_listener_with_callback(kind, closure.as_ref().unchecked_ref())?;
    closure.forget();
    Ok(())
}
