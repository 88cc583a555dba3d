//! The controls of sampling and speculation.

use specula_protocol::{EffectiveSettings, ModelCard};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{HtmlElement, HtmlInputElement, HtmlSelectElement};

use crate::dom;
use crate::settings::{Field, Settings};

/// The controls, filled from what is served.
pub(crate) struct Controls {
    fields: Vec<(Field, Control)>,
    /// The methods on offer.
    methods: Vec<String>,
    /// Default settings by method.
    defaults: Vec<EffectiveSettings>,
}

enum Control {
    Input(HtmlInputElement),
    Select(HtmlSelectElement),
}

impl Controls {
    pub(crate) fn find() -> Result<Self, JsValue> {
        let control = |field: Field| {
            let element: HtmlElement = dom::by_id(field.id())?;
            let control = match element.dyn_into::<HtmlSelectElement>() {
                Ok(select) => Control::Select(select),
                Err(element) => Control::Input(element.dyn_into()?),
            };
            Ok((field, control))
        };
        let fields = Field::ALL.into_iter().map(control).collect::<Result<_, JsValue>>()?;
        Ok(Self { fields, methods: Vec::new(), defaults: Vec::new() })
    }

    /// Fits the controls to the served model. A method that is not on offer any more gives way to the default.
    pub(crate) fn serve(&mut self, card: &ModelCard, settings: &mut Settings) {
        self.defaults.clone_from(&card.defaults);
        // What is offered already is left alone: the reader may just be choosing from it.
        if self.methods != card.methods
            && let Control::Select(select) = self.control(Field::Method)
        {
            select.set_text_content(None);
            for name in &card.methods {
                let option = dom::text("option", "", method_label(name));
                dom::set(&option, "value", name);
                dom::append(select, &option);
            }
            self.methods.clone_from(&card.methods);
        }
        if !card.methods.iter().any(|name| name == settings.value(Field::Method)) {
            settings.set(Field::Method, card.default_method.clone());
        }
        self.show(settings);
    }

    /// Shows what is set.
    pub(crate) fn show(&self, settings: &Settings) {
        for (field, control) in &self.fields {
            match control {
                Control::Input(input) => input.set_value(settings.value(*field)),
                Control::Select(select) => select.set_value(settings.value(*field)),
            }
        }
        self.fit_method(settings);
    }

    /// Takes what the controls hold.
    pub(crate) fn read(&self, settings: &mut Settings) {
        for (field, control) in &self.fields {
            let value = match control {
                Control::Input(input) => input.value(),
                Control::Select(select) => select.value(),
            };
            // A selection without options holds nothing, which is not what was set.
            if *field != Field::Method || !value.is_empty() {
                settings.set(*field, value);
            }
            control.element().remove_attribute("aria-invalid").ok();
        }
        self.fit_method(settings);
    }

    /// What the method does not know is disabled; what is left empty shows the method's default.
    fn fit_method(&self, settings: &Settings) {
        let defaults = self.defaults.iter().find(|one| one.method == settings.value(Field::Method));
        for (field, control) in &self.fields {
            let known = |value: Option<String>| (value.is_some(), value.unwrap_or_else(|| "not used".to_owned()));
            let number = |value: Option<u64>| known(value.map(|value| value.to_string()));
            let Some(defaults) = defaults else { continue };
            let (used, default) = match field {
                Field::Window => number(Some(defaults.window).filter(|_| defaults.method != "none")),
                Field::ExitLayer => number(defaults.exit_layer),
                Field::ExitTop => number(defaults.exit_top),
                Field::BranchBudget => number(defaults.branch_budget),
                Field::Roots => known(defaults.roots.clone()),
                Field::Allocation => known(defaults.allocation.clone()),
                Field::Method | Field::Temperature | Field::Seed | Field::MaxTokens => continue,
            };
            control.fit(used, &default);
        }
    }

    fn control(&self, field: Field) -> &Control {
        let found = self.fields.iter().find(|(other, _)| *other == field);
        &found.expect("every field has its control").1
    }
}

/// Marks a control as wrong and brings it into view.
pub(crate) fn point_at(id: &str) {
    let Ok(control) = dom::by_id::<HtmlElement>(id) else { return };
    dom::set(&control, "aria-invalid", "true");
    if let Some(details) = control.closest("details").ok().flatten() {
        details.set_attribute("open", "").ok();
    }
    control.focus().ok();
}

impl Control {
    fn element(&self) -> &HtmlElement {
        match self {
            Self::Input(input) => input,
            Self::Select(select) => select,
        }
    }

    fn fit(&self, used: bool, default: &str) {
        match self {
            Self::Input(input) => {
                input.set_disabled(!used);
                input.set_placeholder(default);
            }
            Self::Select(select) => {
                select.set_disabled(!used);
                // The first option leaves the choice to the server.
                let text = if used { format!("default: {default}") } else { default.to_owned() };
                if let Some(first) = select.first_element_child() {
                    first.set_text_content(Some(&text));
                }
            }
        }
    }
}

fn method_label(name: &str) -> &str {
    match name {
        "auto" => "auto: whatever is fastest",
        "none" => "none: the target alone",
        "sps" => "sps: draft, then verify",
        "lookup" => "lookup: drafts from the text itself",
        "recycling" => "recycling: drafts from what the target said before",
        "ssd" => "ssd: the draft works ahead of the target",
        "mirror" => "mirror: draft and target at once",
        other => other,
    }
}
