//! The settings between visits. A browser may refuse to keep anything; then every visit begins with the defaults.

use crate::dom;
use crate::settings::Settings;

const KEY: &str = "specula.settings";

/// What was kept, or the defaults.
pub(crate) fn load() -> Settings {
    let kept = storage().and_then(|storage| storage.get_item(KEY).ok().flatten());
    kept.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default()
}

/// Keeps the settings.
pub(crate) fn save(settings: &Settings) {
    if let (Some(storage), Ok(json)) = (storage(), serde_json::to_string(settings)) {
        // A full or forbidden storage costs only the memory of the settings.
        storage.set_item(KEY, &json).ok();
    }
}

fn storage() -> Option<web_sys::Storage> {
    dom::window().local_storage().ok().flatten()
}
