//! What stands below an answer.

use specula_protocol::{Report, Usage, Warning};
use web_sys::HtmlElement;

use crate::dom;
use crate::progress::{self, Progress};

/// Below an answer that the server ended.
pub(crate) fn of_report(reason: &str, usage: &Usage, report: &Report, progress: &Progress) -> HtmlElement {
    let facts = dom::element("footer", "facts");
    let list = dom::element("ul", "");
    dom::append(&facts, &list);
    let fact = |class: &str, text: &str| dom::append(&list, &dom::text("li", class, text));

    fact(if report.lossless { "exact" } else { "deviating" }, &progress::verdict(report));
    fact("", &plural(usage.completion_tokens, "token", "tokens"));
    fact("", &format!("{} tokens/s", progress::figure(progress.tokens_per_second(), 1)));
    fact("", &format!("acceptance length {:.2}", report.acceptance_length));
    if report.hits + report.misses > 0 {
        let (hits, misses) = (plural(report.hits, "hit", "hits"), plural(report.misses, "miss", "misses"));
        fact("", &format!("{hits}, {misses}"));
    }
    fact("", &method(report));
    fact("", &progress::ending(reason, report));
    let entry = dom::element("li", "");
    dom::append(&entry, &seed(report.seed));
    dom::append(&list, &entry);

    for warning in &report.warnings {
        dom::append(&facts, &dom::text("p", "warning", &in_words(warning)));
    }
    facts
}

/// Below an answer that broke off.
pub(crate) fn of_failure() -> HtmlElement {
    let facts = dom::element("footer", "facts");
    dom::append(&facts, &dom::text("p", "warning", "Not finished; it will not be part of the conversation."));
    facts
}

fn method(report: &Report) -> String {
    match report.settings.window {
        0 => report.settings.method.clone(),
        window => format!("{}, window {window}", report.settings.method),
    }
}

/// A button, because the same seed makes the same text again.
fn seed(seed: u64) -> HtmlElement {
    let button = dom::text("button", "seed", &format!("seed {seed}"));
    dom::set(&button, "type", "button");
    dom::set(&button, "data-seed", &seed.to_string());
    dom::set(&button, "title", "Use this seed for the next answers");
    button
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn in_words(warning: &Warning) -> String {
    match warning.count {
        0 | 1 => format!("{}: {}", warning.code, warning.message),
        count => format!("{}: {} ({count} times)", warning.code, warning.message),
    }
}
