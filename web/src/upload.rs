//! Brings a plugin to the server and tells what its examination found.

use specula_protocol::PluginCard;
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{File, XmlHttpRequest};

use crate::app::{self, Action};
use crate::{key, lists};

/// Sends a file under its own name, as far as that is fit for one; the answer arrives as an action.
pub(crate) fn send(file: &File) -> Result<(), JsValue> {
    let request = XmlHttpRequest::new()?;
    request.open_with_async("PUT", &format!("/v1/plugins/{}", name_of(&file.name())), true)?;
    key::authorize(&request)?;
    request.set_request_header("content-type", "application/wasm")?;
    let answered = request.clone();
    let ended = Closure::once_into_js(move || app::dispatch(Action::Uploaded(lists::read(&answered))));
    request.set_onloadend(Some(ended.unchecked_ref()));
    request.send_with_opt_blob(Some(file))
}

/// `My Rule.wasm` becomes `my-rule`.
fn name_of(file: &str) -> String {
    let stem = file.strip_suffix(".wasm").unwrap_or(file).to_lowercase();
    let fit = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let name: String = stem.chars().map(fit).take(64).collect();
    name.trim_matches('-').to_owned()
}

/// A report in lines.
pub(crate) fn told(card: &PluginCard) -> String {
    let version = card.versions.last().map_or(0, |version| version.version);
    let mut lines = vec![format!("{}, version {version}: {}", card.name, card.kinds.join(", "))];
    if let Some(report) = &card.report {
        for cost in report.costs.iter().filter(|cost| cost.function != "open") {
            lines.push(format!("{}: {} fuel, {:.1} µs a call", cost.function, cost.fuel, cost.micros));
        }
        if let Some(stamp) = &report.stamp {
            let share = stamp.deviation * 100.0;
            lines.push(format!("{}: {share:.1} % of tokens were not the target's own draw", stamp.stamp));
        }
    }
    lines.join("\n")
}
