//! A row for every loaded plugin: whether it takes part, and its configuration.

use specula_protocol::PluginCard;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{HtmlElement, HtmlInputElement, HtmlTextAreaElement};

use crate::dom;
use crate::settings::{PluginSetting, Settings, config_id};

/// The rows.
pub(crate) struct Plugins {
    root: HtmlElement,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    enabled: HtmlInputElement,
    config: HtmlTextAreaElement,
}

impl Plugins {
    pub(crate) fn find() -> Result<Self, JsValue> {
        Ok(Self { root: dom::by_id("plugins")?, rows: Vec::new() })
    }

    /// Makes the rows anew.
    pub(crate) fn show(&mut self, cards: &[PluginCard], settings: &Settings) {
        self.root.set_text_content(None);
        if cards.is_empty() {
            dom::append(&self.root, &dom::text("p", "hint", "No plugins are loaded."));
        }
        let setting = |card: &PluginCard| settings.plugins.get(&card.name).cloned().unwrap_or_default();
        self.rows = cards.iter().map(|card| Row::new(&self.root, card, &setting(card))).collect();
    }

    /// Loaded plugins, in the server's order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.rows.iter().map(|row| row.name.clone()).collect()
    }

    /// Takes what the rows hold. Settings of plugins that are not loaded now stay for when they are.
    pub(crate) fn read(&self, settings: &mut Settings) {
        for row in &self.rows {
            let setting = PluginSetting { enabled: row.enabled.checked(), config: row.config.value() };
            row.config.set_hidden(!setting.enabled);
            row.config.remove_attribute("aria-invalid").ok();
            settings.plugins.insert(row.name.clone(), setting);
        }
    }
}

/// Of an uploaded acceptance policy: `exact` or `lossy`.
fn stamp(card: &PluginCard) -> Option<&String> {
    Some(&card.report.as_ref()?.stamp.as_ref()?.stamp)
}

impl Row {
    fn new(root: &HtmlElement, card: &PluginCard, setting: &PluginSetting) -> Self {
        let row = dom::element("div", "plugin");
        let label = dom::element("label", "");
        let enabled = dom::element("input", "");
        dom::set(&enabled, "type", "checkbox");
        enabled.set_id(&format!("plugin-{}", card.name));
        dom::append(&label, &enabled);
        dom::append(&label, &dom::text("span", "name", &card.name));
        for word in card.kinds.iter().chain(stamp(card)) {
            dom::append(&label, &dom::text("span", "kind", word));
        }
        dom::append(&row, &label);

        let config = dom::element("textarea", "");
        config.set_id(&config_id(&card.name));
        dom::set(&config, "aria-label", &format!("Configuration of {}, JSON", card.name));
        dom::set(&config, "placeholder", "{}  configuration, JSON");
        dom::set(&config, "rows", "2");
        dom::set(&config, "spellcheck", "false");
        config.set_hidden(!setting.enabled);
        dom::append(&row, &config);
        dom::append(root, &row);

        let enabled: HtmlInputElement = enabled.unchecked_into();
        enabled.set_checked(setting.enabled);
        let config: HtmlTextAreaElement = config.unchecked_into();
        config.set_value(&setting.config);
        Self { name: card.name.clone(), enabled, config }
    }
}
