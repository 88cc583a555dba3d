//! What the controls hold, as text, and how it becomes a request.
//!
//! Text, because an empty field means "the server's default" and a wrong one has to stay as typed to be corrected.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use specula_protocol::{GenerateRequest, Message, ModelCard, PluginChoice, Speculation};

/// Largest seed: beyond it JSON readers that keep numbers as doubles lose digits.
const MOST_SEED: u64 = (1 << 53) - 1;

/// A control; its id in the document is the key under which its value is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named as its label")]
pub enum Field {
    Method,
    Temperature,
    Seed,
    Window,
    MaxTokens,
    ExitLayer,
    ExitTop,
    BranchBudget,
    Roots,
    Allocation,
}

impl Field {
    /// Every control.
    pub const ALL: [Self; 10] = [
        Self::Method,
        Self::Temperature,
        Self::Seed,
        Self::Window,
        Self::MaxTokens,
        Self::ExitLayer,
        Self::ExitTop,
        Self::BranchBudget,
        Self::Roots,
        Self::Allocation,
    ];

    /// Its id.
    pub fn id(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Temperature => "temperature",
            Self::Seed => "seed",
            Self::Window => "window",
            Self::MaxTokens => "max-tokens",
            Self::ExitLayer => "exit-layer",
            Self::ExitTop => "exit-top",
            Self::BranchBudget => "branch-budget",
            Self::Roots => "roots",
            Self::Allocation => "allocation",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Method => "Method",
            Self::Temperature => "Temperature",
            Self::Seed => "Seed",
            Self::Window => "Window",
            Self::MaxTokens => "Max tokens",
            Self::ExitLayer => "Exit layer",
            Self::ExitTop => "Exit top",
            Self::BranchBudget => "Branch budget",
            Self::Roots => "Roots",
            Self::Allocation => "Allocation",
        }
    }
}

/// What a plugin's row holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginSetting {
    /// Whether it takes part.
    pub enabled: bool,
    /// Its configuration as typed; empty = `{}`.
    pub config: String,
}

/// What all controls hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    values: BTreeMap<String, String>,
    /// By plugin.
    pub plugins: BTreeMap<String, PluginSetting>,
}

impl Default for Settings {
    fn default() -> Self {
        let values = [(Field::Temperature, "0.7"), (Field::MaxTokens, "256")];
        let values = values.map(|(field, value)| (field.id().to_owned(), value.to_owned())).into();
        Self { values, plugins: BTreeMap::new() }
    }
}

/// A value that cannot be sent, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Id of the control.
    pub id: String,
    /// For a person.
    pub message: String,
}

/// What the served model allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    max_window: u64,
    most_tokens: u64,
    last_exit_layer: u64,
}

impl Default for Limits {
    /// Before the server has answered: what the protocol allows. The server checks again anyway.
    fn default() -> Self {
        Self { max_window: 16, most_tokens: u32::MAX.into(), last_exit_layer: u32::MAX.into() }
    }
}

impl From<&ModelCard> for Limits {
    fn from(card: &ModelCard) -> Self {
        let last_exit_layer = card.layers.saturating_sub(1).max(1);
        Self { max_window: card.max_window, most_tokens: card.context_length, last_exit_layer }
    }
}

impl Settings {
    /// A control's value, trimmed.
    pub fn value(&self, field: Field) -> &str {
        self.values.get(field.id()).map_or("", |value| value.trim())
    }

    /// Sets it.
    pub fn set(&mut self, field: Field, value: String) {
        self.values.insert(field.id().to_owned(), value);
    }

    /// The request that asks `messages`. `plugins` are the loaded ones in the order in which they apply.
    pub fn request(
        &self,
        messages: Vec<Message>,
        plugins: &[String],
        limits: &Limits,
    ) -> Result<GenerateRequest, Invalid> {
        let chosen = self.plugins(plugins)?;
        Ok(GenerateRequest {
            messages: Some(messages),
            max_tokens: self.number(Field::MaxTokens, 1, limits.most_tokens)?,
            temperature: self.number(Field::Temperature, 0.0, 2.0)?,
            seed: self.number(Field::Seed, 0, MOST_SEED)?,
            speculation: Some(self.speculation(limits)?),
            plugins: (!chosen.is_empty()).then_some(chosen),
            ..GenerateRequest::default()
        })
    }

    /// Only what the chosen method knows: the server refuses settings that would have no effect.
    fn speculation(&self, limits: &Limits) -> Result<Speculation, Invalid> {
        let method = self.value(Field::Method);
        let text = |field| Some(self.value(field).to_owned()).filter(|value| !value.is_empty());
        let mut speculation = Speculation { method: text(Field::Method), ..Speculation::default() };
        if method != "none" {
            speculation.window = self.number(Field::Window, 0, limits.max_window)?;
        }
        if method == "mirror" {
            speculation.exit_layer = self.number(Field::ExitLayer, 1, limits.last_exit_layer)?;
            speculation.roots = text(Field::Roots);
        }
        if ["mirror", "ssd"].contains(&method) {
            speculation.exit_top = self.number(Field::ExitTop, 1, 32)?;
            speculation.allocation = text(Field::Allocation);
        }
        if ["mirror", "ssd", "recycling"].contains(&method) {
            speculation.branch_budget = self.number(Field::BranchBudget, 1, 64)?;
        }
        Ok(speculation)
    }

    fn number<T>(&self, field: Field, least: T, most: T) -> Result<Option<T>, Invalid>
    where
        T: FromStr + PartialOrd + std::fmt::Display,
    {
        let text = self.value(field);
        if text.is_empty() {
            return Ok(None);
        }
        let number = text.parse().ok().filter(|number| *number >= least && *number <= most);
        number.map(Some).ok_or_else(|| Invalid {
            id: field.id().to_owned(),
            message: format!("{} must be a number from {least} to {most}, or empty; it is “{text}”.", field.label()),
        })
    }

    fn plugins(&self, loaded: &[String]) -> Result<Vec<PluginChoice>, Invalid> {
        let chosen = loaded.iter().filter_map(|name| Some((name, self.plugins.get(name)?)));
        let choice = |(name, setting): (&String, &PluginSetting)| match config(&setting.config) {
            Ok(config) => Ok(PluginChoice { name: name.clone(), config, on_failure: None }),
            Err(reason) => Err(Invalid { id: config_id(name), message: format!("Configuration of {name}: {reason}") }),
        };
        chosen.filter(|(_, setting)| setting.enabled).map(choice).collect()
    }
}

/// Id of the control that holds a plugin's configuration.
pub fn config_id(plugin: &str) -> String {
    format!("config-{plugin}")
}

/// A plugin's configuration as typed; `None` if empty, else a JSON object.
pub fn config(text: &str) -> Result<Option<serde_json::Value>, String> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value) if value.is_object() => Ok(Some(value)),
        Ok(_) => Err("must be a JSON object such as {\"key\": 1}.".to_owned()),
        Err(error) => Err(format!("not JSON: {error}.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_window: 8, most_tokens: 1024, last_exit_layer: 11 };

    fn json(settings: &Settings) -> serde_json::Value {
        let loaded = ["min-p".to_owned(), "typical".to_owned()];
        let request = settings.request(Vec::new(), &loaded, &LIMITS).expect("valid settings");
        serde_json::to_value(request).expect("serialises")
    }

    #[test]
    fn empty_fields_are_left_to_the_server() {
        let want = serde_json::json!({"messages": [], "temperature": 0.7, "max_tokens": 256, "speculation": {}});
        assert_eq!(json(&Settings::default()), want);
    }

    #[test]
    fn a_method_gets_only_the_settings_it_knows() {
        let mut settings = Settings::default();
        for (field, value) in [(Field::Window, "4"), (Field::ExitLayer, " 3 "), (Field::Roots, "both")] {
            settings.set(field, value.to_owned());
        }
        let speculation = |method: &str| {
            let mut settings = settings.clone();
            settings.set(Field::Method, method.to_owned());
            json(&settings)["speculation"].clone()
        };
        assert_eq!(speculation("none"), serde_json::json!({"method": "none"}));
        assert_eq!(speculation("sps"), serde_json::json!({"method": "sps", "window": 4}));
        let want = serde_json::json!({"method": "mirror", "window": 4, "exit_layer": 3, "roots": "both"});
        assert_eq!(speculation("mirror"), want);
    }

    #[test]
    fn wrong_values_name_their_control() {
        for (field, value) in [
            (Field::Window, "9"),
            (Field::Seed, "-1"),
            (Field::Seed, "9007199254740992"),
            (Field::Temperature, "NaN"),
            (Field::Temperature, "2.5"),
            (Field::MaxTokens, "many"),
        ] {
            let mut settings = Settings::default();
            settings.set(field, value.to_owned());
            let invalid = settings.request(Vec::new(), &[], &LIMITS).expect_err(value);
            assert_eq!(invalid.id, field.id());
            assert!(invalid.message.contains(value), "{}", invalid.message);
        }
    }

    #[test]
    fn plugins_are_sent_in_the_servers_order_with_their_configuration() {
        let mut settings = Settings::default();
        let row = |config: &str| PluginSetting { enabled: true, config: config.to_owned() };
        settings.plugins.insert("typical".into(), row(" "));
        settings.plugins.insert("min-p".into(), row(r#"{"min_p": 0.1}"#));
        settings.plugins.insert("gone".into(), row("{"));
        let want = serde_json::json!([{"name": "min-p", "config": {"min_p": 0.1}}, {"name": "typical"}]);
        assert_eq!(json(&settings)["plugins"], want);

        settings.plugins.insert("min-p".into(), row("[1]"));
        let invalid = settings.request(Vec::new(), &["min-p".into()], &LIMITS).expect_err("a list");
        assert_eq!(invalid.id, "config-min-p");
    }

    #[test]
    fn stored_settings_survive_missing_and_extra_parts() {
        let settings: Settings = serde_json::from_str(r#"{"plugins": {}, "old": 1}"#).expect("reads");
        assert_eq!(settings.value(Field::Window), "");
    }
}
