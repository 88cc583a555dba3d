//! Live figures: speed, acceptance, hits, tokens by origin; and what the page is connected to.

use specula_protocol::{ModelCard, Origin};
use wasm_bindgen::JsValue;
use web_sys::HtmlElement;

use crate::dom;
use crate::progress::{self, Progress};
use crate::transcript::origin_name;

const ORIGINS: [Origin; 5] = [Origin::Plain, Origin::Draft, Origin::Mirror, Origin::Correction, Origin::Bonus];

/// All of them.
pub(crate) struct Meters {
    speed: HtmlElement,
    acceptance: HtmlElement,
    hits: HtmlElement,
    /// In the order of [`ORIGINS`].
    counts: Vec<HtmlElement>,
    connection: HtmlElement,
    model: HtmlElement,
}

impl Meters {
    pub(crate) fn find() -> Result<Self, JsValue> {
        let count = |origin| dom::by_id(&format!("count-{}", origin_name(origin)));
        Ok(Self {
            speed: dom::by_id("stat-tps")?,
            acceptance: dom::by_id("stat-acceptance")?,
            hits: dom::by_id("stat-hits")?,
            counts: ORIGINS.into_iter().map(count).collect::<Result<_, _>>()?,
            connection: dom::by_id("connection")?,
            model: dom::by_id("model")?,
        })
    }

    /// Shows the figures of a generation.
    pub(crate) fn show(&self, progress: &Progress) {
        self.speed.set_text_content(Some(&progress::figure(progress.tokens_per_second(), 1)));
        self.acceptance.set_text_content(Some(&progress::figure(progress.acceptance_length(), 2)));
        self.hits.set_text_content(Some(&progress::percent(progress.hit_rate())));
        for (origin, count) in ORIGINS.into_iter().zip(&self.counts) {
            let tokens = Some(progress.from(origin)).filter(|&tokens| tokens > 0);
            count.set_text_content(tokens.map(|tokens| tokens.to_string()).as_deref());
        }
    }

    /// Shows whether the server can be reached.
    pub(crate) fn set_connected(&self, connected: bool) {
        let (state, text) = if connected { ("connected", "connected") } else { ("reconnecting", "reconnecting…") };
        dom::set(&self.connection, "data-state", state);
        self.connection.set_text_content(Some(text));
    }

    /// Shows what is served.
    pub(crate) fn set_model(&self, card: &ModelCard) {
        let text = match &card.draft {
            Some(draft) => format!("{} with {draft}", card.id),
            None => card.id.clone(),
        };
        self.model.set_text_content(Some(&text));
    }
}
