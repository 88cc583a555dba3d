//! The suite's results as tables, against what is asked of a device.

use std::fmt::Write as _;

use super::Results;
use super::exact::Compared;

/// A pass of one row takes at most so many times what reading the weights takes.
const MOST_OF_FLOOR: f64 = 1.3;
/// A pass of eight rows takes at most so many times one of one row.
const MOST_FOR_EIGHT: f64 = 1.15;
/// Share of time in which the target waits for a mirroring draft, at most.
const MOST_EXPOSED: f64 = 0.1;

pub(super) fn markdown(results: &Results) -> String {
    let mut out = String::new();
    let Results { passes, exactness, mirror, .. } = results;
    let _ = writeln!(
        out,
        "**Passes** of random weights of shape {}, {:.2} GB, {}; a copy moves {:.0} GB/s, which makes a floor of {:.3} ms.\n",
        passes.shape,
        passes.weight_bytes as f64 / 1e9,
        passes.computed_by,
        passes.bytes_per_second / 1e9,
        passes.floor_ms
    );
    out.push_str("| rows | draws told, ms | of the floor | of one row | whole rows, ms | with a look half-way, ms | look answered after, ms |\n");
    out.push_str("|---|---|---|---|---|---|---|\n");
    let one = passes.by_rows.first().map_or(f64::NAN, |row| row.drawn_ms);
    for row in &passes.by_rows {
        let _ = writeln!(
            out,
            "| {} | {:.3} | {:.2} | {:.2} | {:.3} | {:.3} | {:.3} |",
            row.rows,
            row.drawn_ms,
            row.drawn_ms / passes.floor_ms,
            row.drawn_ms / one,
            row.whole_ms,
            row.looking_ms,
            row.looked_ms
        );
    }
    let eight = passes.by_rows.iter().find(|row| row.rows == 8).map_or(f64::NAN, |row| row.drawn_ms);
    let exposed = mirror.iter().find(|found| found.method.starts_with("mirror")).map_or(f64::NAN, |m| m.exposed_draft);
    out.push_str("\n| asked | found | |\n|---|---|---|\n");
    for (what, found, most) in [
        ("one row, of the floor", one / passes.floor_ms, MOST_OF_FLOOR),
        ("eight rows, of one row", eight / one, MOST_FOR_EIGHT),
        ("exposed draft of mirroring", exposed, MOST_EXPOSED),
    ] {
        let verdict = if found <= most { "reached" } else { "missed" };
        let _ = writeln!(out, "| {what} ≤ {most:.2} | {found:.2} | {verdict} |");
    }
    let _ = writeln!(
        out,
        "\n**Rows** of the embedded target's greedy answers, {} of them; `row_invariant` is {}.\n\n\
         | against | other bits | largest difference | other best tokens | first of those |\n|---|---|---|---|---|",
        exactness.rows, exactness.row_invariant
    );
    compared(&mut out, "windows of 8 on the device", &exactness.windows);
    compared(&mut out, "the CPU's kernels", &exactness.cpu);
    out.push_str("\n**The embedded pair**, temperature 1.\n\n| method | tokens/s | acceptance length | hits | exposed draft | differing answers |\n|---|---|---|---|---|---|\n");
    for m in mirror {
        let shown = |value: Option<f64>, factor: f64, unit: &str| {
            value.map_or("-".to_owned(), |value| format!("{:.2}{unit}", value * factor))
        };
        let _ = writeln!(
            out,
            "| {} | {:.1} | {} | {} | {:.1} % | {} |",
            m.method,
            m.tokens_per_second,
            shown(m.acceptance_length, 1.0, ""),
            shown(m.hit_rate, 100.0, " %"),
            m.exposed_draft * 100.0,
            m.differing
        );
    }
    out
}

fn compared(out: &mut String, against: &str, found: &Compared) {
    let first = found.first.as_ref().map_or("-".to_owned(), |first| {
        format!("question {}, token {}, {:.4} apart", first.question, first.place, first.logit_gap)
    });
    let (bits, gap, tokens) = (found.differing, found.largest_gap, found.other_tokens);
    let _ = writeln!(out, "| {against} | {bits} | {gap:.5} | {tokens} | {first} |");
}
