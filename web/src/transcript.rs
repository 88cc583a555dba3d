//! The conversation as shown. Tokens are appended one by one; what stands is never rendered again.

use specula_protocol::{Origin, RoundToken};
use wasm_bindgen::JsValue;
use web_sys::HtmlElement;

use crate::dom;

/// Distance from the end, in pixels, that still counts as reading along.
const AT_END_PX: i32 = 24;

/// The list of messages in its scrolling frame.
pub(crate) struct Transcript {
    frame: HtmlElement,
    messages: HtmlElement,
    empty: HtmlElement,
    /// Whether the reader is at the end, so that new text may scroll.
    follows: bool,
    last_top: i32,
}

/// A question and its answer.
pub(crate) struct Exchange {
    question: HtmlElement,
    answer: HtmlElement,
    text: HtmlElement,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Finished,
    Stopped,
    Failed,
}

impl Transcript {
    pub(crate) fn find() -> Result<Self, JsValue> {
        let (frame, messages, empty) = (dom::by_id("scroll")?, dom::by_id("messages")?, dom::by_id("empty")?);
        Ok(Self { frame, messages, empty, follows: true, last_top: 0 })
    }

    /// Adds a question and its answer, still without text.
    pub(crate) fn begin(&mut self, question: &str) -> Exchange {
        let exchange = Exchange::new(question);
        dom::append(&self.messages, &exchange.question);
        dom::append(&self.messages, &exchange.answer);
        // Screen readers wait until the answer is whole.
        dom::set(&self.messages, "aria-busy", "true");
        self.empty.set_hidden(true);
        self.follows = true;
        exchange
    }

    /// The answer that was begun last is over.
    pub(crate) fn settle(&self) {
        dom::set(&self.messages, "aria-busy", "false");
    }

    /// Back to the empty state, which is read from its beginning.
    pub(crate) fn clear(&mut self) {
        self.messages.set_text_content(None);
        self.settle();
        self.empty.set_hidden(false);
        (self.follows, self.last_top) = (false, 0);
    }

    /// The frame was scrolled. Only moving up ends following: text may have grown below since the last own scroll.
    pub(crate) fn scrolled(&mut self) {
        let top = self.frame.scroll_top();
        if top + self.frame.client_height() + AT_END_PX >= self.frame.scroll_height() {
            self.follows = true;
        } else if top < self.last_top {
            self.follows = false;
        }
        self.last_top = top;
    }

    /// Scrolls to the end for a reader who is there.
    pub(crate) fn follow(&self) {
        if self.follows {
            self.frame.set_scroll_top(self.frame.scroll_height());
        }
    }
}

impl Exchange {
    fn new(question: &str) -> Self {
        let asked = message("user", "You");
        dom::append(&asked, &dom::text("div", "text", question));
        let answer = message("assistant", "Answer");
        dom::set(&answer, "data-state", "streaming");
        let text = dom::element("div", "text");
        dom::append(&answer, &text);
        Self { question: asked, answer, text }
    }

    /// Appends tokens. One without text of its own has nothing to colour.
    pub(crate) fn append(&self, tokens: &[RoundToken], round: u64) {
        for token in tokens.iter().filter(|token| !token.text.is_empty()) {
            let span = dom::text("span", "token", &token.text);
            let name = origin_name(token.origin);
            dom::set(&span, "data-origin", name);
            dom::set(&span, "title", &format!("{name}, round {round}"));
            dom::append(&self.text, &span);
        }
    }

    /// Ends the answer with what is to be said about it.
    pub(crate) fn end(&self, ending: Ending, facts: &HtmlElement) {
        let state = match ending {
            Ending::Finished => "finished",
            Ending::Stopped => "stopped",
            Ending::Failed => "failed",
        };
        dom::append(&self.answer, facts);
        dom::set(&self.answer, "data-state", state);
    }

    /// Takes both off the page.
    pub(crate) fn remove(&self) {
        self.question.remove();
        self.answer.remove();
    }
}

fn message(role: &str, heading: &str) -> HtmlElement {
    let message = dom::element("article", &format!("message {role}"));
    dom::append(&message, &dom::text("h2", "unseen", heading));
    message
}

/// The wire's name, by which the style sheet colours.
pub(crate) fn origin_name(origin: Origin) -> &'static str {
    match origin {
        Origin::Plain => "plain",
        Origin::Draft => "draft",
        Origin::Mirror => "mirror",
        Origin::Correction => "correction",
        Origin::Bonus => "bonus",
    }
}
