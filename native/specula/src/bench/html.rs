//! The summary as one page that needs nothing else: pictures, what they show, and the numbers behind them.

mod bars;
mod figures;
mod lanes;
mod lines;
mod svg;

use std::fmt::Write as _;

use super::measured::Measured;
use super::run::Sample;
use super::summary::{Line, Summary};
use super::table::{self, Table};
use svg::escaped;

/// The words of the page that not everybody knows.
const WORDS: [(&str, &str); 11] = [
    ("target", "the large model whose output is promised"),
    ("draft", "the small model that guesses ahead of it"),
    ("window", "the guessed tokens that one pass of the target verifies, γ of them at most"),
    ("round", "one pass of the target over a window, then acceptance"),
    ("acceptance length", "tokens committed per pass of the target; 1 without speculation"),
    ("rollout", "while the target works, the draft goes on behind guesses at how the round will end"),
    ("hit", "the round ended as one of the guesses: the next window is there already"),
    ("miss", "it did not: the target waits until the draft has made a window"),
    ("exit", "half-way through its layers the target tells the draft its likely next tokens"),
    ("c", "what a draft step of one row takes, as a share of a target pass of one row"),
    ("bound", "what mirroring could reach at most: with a draft that costs no time and a hit in every round"),
];

/// The page.
pub(crate) fn page(summary: &Summary, measured: &Measured<'_>, samples: &[Sample]) -> String {
    let mut body = String::new();
    // Writing to a String cannot fail.
    let _ = write!(body, "<header><h1>Speculative decoding, measured</h1><ul class=\"conditions\">");
    for line in table::conditions(&summary.conditions) {
        let _ = write!(body, "<li>{}</li>", escaped(&line));
    }
    let _ = write!(body, "</ul></header><section class=\"tiles\">{}</section>", tiles(summary));
    for figure in figures::all(summary, measured, samples) {
        let _ = write!(
            body,
            "<section><h2>{}</h2><p>{}</p>{}</section>",
            escaped(figure.title),
            escaped(&figure.text),
            figure.picture
        );
    }
    let _ = write!(body, "<section><h2>All numbers</h2>");
    table::tables(summary).iter().for_each(|numbers| body.push_str(&html_table(numbers)));
    let _ = write!(body, "</section><section><h2>Words</h2><dl>");
    for (word, meaning) in WORDS {
        let _ = write!(body, "<dt>{word}</dt><dd>{meaning}</dd>");
    }
    body.push_str("</dl></section>");
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>Speculative decoding, measured</title>\
         <style>{}</style></head><body><main>{body}</main></body></html>\n",
        include_str!("html/style.css")
    )
}

/// The figures that matter most.
fn tiles(summary: &Summary) -> String {
    let mut tiles = Vec::new();
    let answers: usize = summary.methods.iter().map(|line| line.answers).sum();
    let differing: usize = summary.methods.iter().map(|line| line.differing).sum();
    tiles.push((format!("{differing} of {answers}"), "answers differ from the target alone".to_owned()));
    let mut temperatures: Vec<f64> = summary.methods.iter().map(|line| line.temperature).collect();
    temperatures.dedup();
    for temperature in temperatures {
        let lines = || summary.methods.iter().filter(|line| line.temperature == temperature);
        let best = lines().filter(|line| line.method != "none").max_by(|a, b| a.speedup.total_cmp(&b.speedup));
        if let Some(best) = best {
            let what = format!("the target alone: {} at temperature {temperature}", with_draft(best));
            tiles.push((format!("{:.2} ×", best.speedup), what));
        }
    }
    for mirror in &summary.mirrors {
        if let Some(reached) = mirror.reached {
            let what = format!("of the bound: mirror, draft {}, temperature {}", mirror.draft, mirror.temperature);
            tiles.push((format!("{:.0} %", reached * 100.0), what));
        }
    }
    let tile = |(number, what): (String, String)| {
        format!("<div><strong>{}</strong><span>{}</span></div>", escaped(&number), escaped(&what))
    };
    tiles.into_iter().map(tile).collect()
}

/// The method, with its draft if that is slowed down.
fn with_draft(line: &Line) -> String {
    if line.draft.starts_with('c') { format!("{}, {}", line.method, line.draft) } else { line.method.clone() }
}

fn html_table(table: &Table) -> String {
    let cell = |tag: &str, text: &str| format!("<{tag}>{}</{tag}>", escaped(text));
    let heads: String = table.heads.iter().map(|head| cell("th", head)).collect();
    let row = |row: &Vec<String>| format!("<tr>{}</tr>", row.iter().map(|text| cell("td", text)).collect::<String>());
    let rows: String = table.rows.iter().map(row).collect();
    format!(
        "<h3>{}</h3><div class=\"wide\"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>",
        escaped(table.title)
    )
}
