//! Settings, and the lists that they choose from.

use specula_protocol::{ModelCard, PluginCard};
use wasm_bindgen::JsValue;

use super::App;
use crate::settings::{Field, Limits};
use crate::{dom, lists, storage, upload};

impl App {
    pub(super) fn edited(&mut self) {
        self.controls.read(&mut self.settings);
        self.plugins.read(&mut self.settings);
        storage::save(&self.settings);
    }

    pub(super) fn use_seed(&mut self, seed: String) {
        self.settings.set(Field::Seed, seed);
        self.controls.show(&self.settings);
        storage::save(&self.settings);
    }

    pub(super) fn serve(&mut self, models: Result<Vec<ModelCard>, String>) {
        match models {
            Ok(models) => {
                // A server serves one target.
                if let Some(card) = models.first() {
                    self.limits = Limits::from(card);
                    self.controls.serve(card, &mut self.settings);
                    self.meters.set_model(card);
                }
            }
            Err(reason) => self.complain(&reason),
        }
    }

    pub(super) fn load(&mut self, plugins: Result<Vec<PluginCard>, String>) {
        match plugins {
            Ok(cards) => self.plugins.show(&cards, &self.settings),
            Err(reason) => self.complain(&reason),
        }
    }

    pub(super) fn upload(&mut self, file: &web_sys::File) -> Result<(), JsValue> {
        self.upload_report.set_text_content(Some(&format!("{} is being examined …", file.name())));
        upload::send(file)
    }

    pub(super) fn uploaded(&mut self, outcome: Result<PluginCard, String>) -> Result<(), JsValue> {
        let told = match &outcome {
            Ok(card) => upload::told(card),
            Err(reason) => reason.clone(),
        };
        self.upload_report.set_text_content(Some(&told));
        if outcome.is_ok() { lists::request_plugins() } else { Ok(()) }
    }

    pub(super) fn panel_is_open(&self) -> bool {
        self.panel_toggle.get_attribute("aria-expanded").as_deref() == Some("true")
    }

    /// The style sheet shows the settings beside the toggle's state; on a wide window they are always shown.
    pub(super) fn open_panel(&self, open: bool) {
        dom::set(&self.panel_toggle, "aria-expanded", if open { "true" } else { "false" });
    }
}
