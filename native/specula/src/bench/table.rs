//! The summary as Markdown.

use std::fmt::Write as _;

use super::conditions::{Conditions, Told};
use super::summary::{Line, Summary};

/// A table of the summary.
pub(crate) struct Table {
    pub(crate) title: &'static str,
    pub(crate) heads: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

pub(crate) fn markdown(summary: &Summary) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    for line in conditions(&summary.conditions) {
        let _ = writeln!(out, "{line}  ");
    }
    for Table { title, heads, rows } in tables(summary) {
        let _ = writeln!(out, "\n**{title}**\n\n| {} |\n|{}", heads.join(" | "), "---|".repeat(heads.len()));
        for row in rows {
            let _ = writeln!(out, "| {} |", row.join(" | "));
        }
    }
    out
}

/// All tables that have something to tell.
pub(crate) fn tables(summary: &Summary) -> Vec<Table> {
    let rows = summary
        .row_costs
        .iter()
        .map(|cost| vec![cost.rows.to_string(), cost.passes.to_string(), format!("{:.2}", cost.median_ms)]);
    let passes = table("Passes of the target", &["rows of a pass", "passes", "median ms"], rows);
    let all =
        [methods(summary), rounds(summary), hits(summary), mirrors(summary), ablation(summary), tasks(summary), passes];
    all.into_iter().filter(|table| !table.rows.is_empty()).collect()
}

/// What was asked of what, where: a sentence each.
pub(crate) fn conditions(c: &Conditions) -> Vec<String> {
    let model = |told: &Told| {
        format!(
            "{} ({} layers, {:.1} M weights a pass, {}, sha256 {})",
            told.name,
            told.layers,
            told.weights as f64 / 1e6,
            told.computed_by,
            &told.sha256[..12]
        )
    };
    let m = &c.machine;
    let mut lines = vec![
        format!("Target {}; draft {}.", model(&c.target), c.draft.as_ref().map_or("none".to_owned(), model)),
        format!(
            "Suite {}: {} questions, {} turns, at most {} tokens each, seed {}, plugins: {}.",
            c.suite,
            c.questions,
            c.turns,
            c.max_tokens,
            c.seed,
            if c.plugins.is_empty() { "none".to_owned() } else { c.plugins.join(", ") },
        ),
        format!(
            "{}: target on {}, draft on {}, {} cores{}.",
            m.setting.as_deref().unwrap_or("Devices as named"),
            m.target_device,
            m.draft_device,
            m.cores,
            m.processor.as_ref().map_or(String::new(), |name| format!(" of {name}")),
        ),
    ];
    if c.cut_turns + c.skipped_turns > 0 {
        lines.push(format!(
            "{} questions were too long for the context and lost their end; {} further turns were left out, since what was said \
             before filled it.",
            c.cut_turns, c.skipped_turns
        ));
    }
    if let Some(ms) = m.one_row_ms {
        lines.push(format!("Simulated drafts: a step of one row takes c of a target pass of one row, {ms:.3} ms."));
    }
    if let (Some(before), Some(after)) = (&m.load_before, &m.load_after) {
        lines.push(format!("Load average before {before}, after {after}."));
    }
    lines
}

/// γ and whatever else the method has; of `auto`, in how many rounds it chose which.
fn settings(line: &Line) -> String {
    let Some(s) = &line.settings else { return "-".into() };
    if s.method == "none" || s.window == 0 {
        return "-".into();
    }
    let mut told = vec![format!("γ {}", s.window)];
    let mut add = |name: &str, value: Option<String>| told.extend(value.map(|value| format!("{name} {value}")));
    add("e", s.exit_layer.map(|e| e.to_string()));
    add("κ", s.exit_top.map(|k| k.to_string()));
    add("B", s.branch_budget.map(|b| b.to_string()));
    add("roots", s.roots.clone());
    add("η", s.streams.map(|n| n.to_string()));
    told.extend(line.chosen.iter().map(|(method, rounds)| format!("{method} in {rounds} rounds")));
    told.join(", ")
}

/// `1.93 (1.85–2.01)`.
pub(crate) fn ratio(value: f64, interval: Option<[f64; 2]>) -> String {
    interval.map_or(format!("{value:.2}"), |[low, high]| format!("{value:.2} ({low:.2}–{high:.2})"))
}

pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), |share| format!("{:.0} %", share * 100.0))
}

fn two(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.2}"))
}

fn table(title: &'static str, heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Table {
    Table { title, heads: heads.iter().map(|head| (*head).to_owned()).collect(), rows: rows.collect() }
}

fn methods(summary: &Summary) -> Table {
    let heads = [
        "temperature",
        "method",
        "draft",
        "settings",
        "tokens/s",
        "speedup (95 %)",
        "of totals",
        "acceptance length",
        "hits",
        "coverage",
        "exposed draft",
        "drafted a ms",
        "differing answers",
    ];
    let row = |line: &Line| {
        vec![
            line.temperature.to_string(),
            line.method.clone(),
            line.draft.clone(),
            settings(line),
            format!("{:.1}", line.mean_tokens_per_second),
            ratio(line.speedup, line.speedup_interval),
            format!("{:.2}", line.speedup_of_totals),
            format!("{:.2}", line.acceptance_length),
            percent(line.hit_rate),
            percent(line.coverage),
            percent(Some(line.exposed_draft_fraction)),
            line.drafted_per_ms.map_or("-".to_owned(), |rate| format!("{rate:.1}")),
            format!("{} of {}", line.differing, line.answers),
        ]
    };
    table("Speed, after the prefill", &heads, summary.methods.iter().map(row))
}

fn rounds(summary: &Summary) -> Table {
    let heads = [
        "temperature",
        "method",
        "draft",
        "layers 1…e",
        "exit",
        "layers e+1…N",
        "accept",
        "serial draft",
        "rollout overrun",
        "rendezvous",
        "round",
        "formula / measured",
        "bubble",
        "hidden draft",
        "prefill",
        "accepted by position",
    ];
    let row = |line: &Line| {
        let ms = |value: f64| format!("{value:.2}");
        let r = &line.round;
        let mut row = vec![line.temperature.to_string(), line.method.clone(), line.draft.clone()];
        row.extend([r.target_prefix_ms, r.exit_ms, r.target_suffix_ms, r.accept_ms].map(ms));
        row.extend([r.serial_draft_ms, r.rollout_overrun_ms, r.rendezvous_ms, r.measured_ms].map(ms));
        row.push(two(line.formula_over_measured));
        row.extend([line.bubble_ms, line.hidden_draft_ms, line.prefill_ms].map(ms));
        row.push(line.accepted_by_position.iter().map(|share| format!("{share:.2}")).collect::<Vec<_>>().join(" "));
        row
    };
    table("A round, in milliseconds", &heads, summary.methods.iter().map(row))
}

fn hits(summary: &Summary) -> Table {
    let heads = [
        "temperature",
        "method",
        "draft",
        "hits",
        "from the draft",
        "from the exit",
        "misses",
        "coverage",
        "branches expanded",
        "used",
        "hits by length of their window, from draft + exit",
    ];
    let rows = summary.methods.iter().filter(|line| line.hit_rate.is_some()).map(|line| {
        let depths = line.hits_by_depth.iter().zip(&line.hits_from_exit_by_depth).enumerate();
        let depths = depths.filter(|(_, (hits, _))| **hits > 0);
        let depths: Vec<String> = depths.map(|(d, (hits, exit))| format!("{d}: {} + {exit}", hits - exit)).collect();
        let mut row =
            vec![line.temperature.to_string(), line.method.clone(), line.draft.clone(), percent(line.hit_rate)];
        row.extend([line.hits_from_draft, line.hits_from_exit, line.misses].map(|count| count.to_string()));
        row.push(percent(line.coverage));
        row.extend([line.branches_expanded, line.branches_used].map(|count| count.to_string()));
        row.push(depths.join(", "));
        row
    });
    table("Hits", &heads, rows)
}

fn mirrors(summary: &Summary) -> Table {
    let heads = [
        "temperature",
        "draft",
        "c measured",
        "mirror",
        "best serial",
        "mirror / serial (95 %)",
        "bound",
        "at γ",
        "reached",
        "serial, model / measured",
    ];
    let rows = summary.mirrors.iter().map(|m| {
        vec![
            m.temperature.to_string(),
            m.draft.clone(),
            m.c.map_or("-".to_owned(), |c| format!("{:.1} %", c * 100.0)),
            m.mirror.clone(),
            m.serial.clone(),
            ratio(m.ratio, m.interval),
            two(m.bound),
            m.bound_window.map_or("-".to_owned(), |window| window.to_string()),
            percent(m.reached),
            two(m.serial_model_over_measured),
        ]
    });
    table("Mirror against the best serial method; bound: free draft, every outcome rolled out", &heads, rows)
}

fn ablation(summary: &Summary) -> Table {
    let heads = ["temperature", "draft", "step", "tokens/s", "speedup", "over serial (95 %)", "hits", "exposed draft"];
    let rows = summary.ablation.iter().map(|step| {
        vec![
            step.temperature.to_string(),
            step.draft.clone(),
            if step.computed { format!("{} (computed from {})", step.step, step.method) } else { step.step.clone() },
            format!("{:.1}", step.mean_tokens_per_second),
            format!("{:.2}", step.speedup),
            ratio(step.over_serial, step.over_serial_interval),
            percent(step.hit_rate),
            percent(Some(step.exposed_draft_fraction)),
        ]
    });
    table("What each part brings", &heads, rows)
}

fn tasks(summary: &Summary) -> Table {
    let mut heads = vec!["temperature", "method", "draft"];
    heads.extend(summary.tasks.first().iter().flat_map(|line| &line.tasks).map(|task| task.task.as_str()));
    let rows = summary.tasks.iter().map(|line| {
        let mut row = vec![line.temperature.to_string(), line.method.clone(), line.draft.clone()];
        row.extend(line.tasks.iter().map(|task| format!("{:.2} ({:.2})", task.speedup, task.acceptance_length)));
        row
    });
    table("Speedup (and acceptance length) by task", &heads, rows)
}
