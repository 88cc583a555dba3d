//! Sums answers up: one row per temperature and contender, with the profile that explains it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use specula_engine::{Engine, Totals};

use super::run::{Answer, Plan};

/// What was measured, under which conditions.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) target: String,
    pub(crate) draft: Option<String>,
    pub(crate) cores: usize,
    pub(crate) questions: usize,
    pub(crate) max_tokens: u64,
    pub(crate) seed: u64,
    pub(crate) plugins: Vec<String>,
    pub(crate) lines: Vec<Line>,
    pub(crate) row_costs: Vec<RowCost>,
    /// Serial drafting per draft token, over all methods that draft serially.
    pub(crate) draft_token_ms: Option<f64>,
}

/// What a pass of the target costs by the number of its rows, over all methods.
#[derive(Debug, Serialize)]
pub(crate) struct RowCost {
    pub(crate) rows: usize,
    pub(crate) passes: usize,
    pub(crate) median_ms: f64,
}

/// One contender at one temperature. Times are milliseconds per round unless said.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) temperature: f64,
    pub(crate) method: String,
    pub(crate) tokens: u64,
    pub(crate) tokens_per_second: f64,
    /// Ratio of total times for the same tokens: `none` / this.
    pub(crate) speedup: f64,
    pub(crate) acceptance_length: f64,
    pub(crate) accepted_by_position: Vec<f64>,
    pub(crate) hit_rate: Option<f64>,
    pub(crate) coverage: Option<f64>,
    /// Share of the decoding time in which the target waited for draft tokens.
    pub(crate) exposed_draft_fraction: f64,
    pub(crate) pass_ms: f64,
    pub(crate) exit_ms: f64,
    pub(crate) accept_ms: f64,
    pub(crate) exposed_draft_ms: f64,
    pub(crate) hidden_draft_ms: f64,
    pub(crate) rendezvous_ms: f64,
    /// Whether every answer says so of itself.
    pub(crate) lossless: bool,
    /// Answers that differ from the method `none`.
    pub(crate) differing: usize,
    /// Of those, answers that claim to be lossless.
    pub(crate) broken: usize,
    pub(crate) answers: usize,
}

pub(crate) fn summarise(engine: &Engine, plan: &Plan, answers: &[Answer]) -> Summary {
    let facts = engine.facts();
    let lines = (0..plan.temperatures.len())
        .flat_map(|t| (0..plan.contenders.len()).map(move |c| (t, c)))
        .map(|(t, c)| line(plan, answers, t, c))
        .collect();
    Summary {
        target: facts.name.clone(),
        draft: facts.draft.clone(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        questions: plan.questions.len(),
        max_tokens: plan.max_tokens,
        seed: plan.seed,
        plugins: plan.plugins.iter().map(|p| p.name.clone()).collect(),
        lines,
        row_costs: row_costs(answers),
        draft_token_ms: draft_token_ms(plan, answers),
    }
}

fn row_costs(answers: &[Answer]) -> Vec<RowCost> {
    let mut by_rows: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for pass in answers.iter().flat_map(|answer| &answer.passes) {
        by_rows.entry(pass.rows).or_default().push(pass.micros);
    }
    let cost = |(rows, mut micros): (usize, Vec<u64>)| {
        micros.sort_unstable();
        RowCost { rows, passes: micros.len(), median_ms: micros[micros.len() / 2] as f64 / 1e3 }
    };
    by_rows.into_iter().map(cost).collect()
}

/// Only `sps` drafts every window serially, so only there all draft tokens come from what was measured.
fn draft_token_ms(plan: &Plan, answers: &[Answer]) -> Option<f64> {
    let serial = answers.iter().filter(|a| plan.contenders[a.contender].settings.method.as_deref() == Some("sps"));
    let (micros, tokens) = serial.fold((0, 0), |(micros, tokens), a| {
        let later: usize = a.passes.iter().skip(1).map(|pass| pass.rows - 1).sum();
        (micros + a.serial_draft_us, tokens + later)
    });
    (tokens > 0).then(|| micros as f64 / tokens as f64 / 1e3)
}

fn line(plan: &Plan, answers: &[Answer], temperature: usize, contender: usize) -> Line {
    let of = |c: usize| answers.iter().filter(move |a| a.temperature == temperature && a.contender == c);
    let seconds = |c: usize| of(c).map(Answer::decode_seconds).sum::<f64>();
    let tokens = |c: usize| of(c).map(|a| a.tokens.len() as u64).sum::<u64>();
    let mut sums = Totals::default();
    of(contender).for_each(|a| sums += &a.report.totals);
    let differs = |a: &&Answer| of(0).any(|none| none.question == a.question && none.tokens != a.tokens);
    let rounds = sums.rounds.max(1) as f64;
    let per_round = |us: u64| us as f64 / rounds / 1e3;
    let speed = |c: usize| tokens(c) as f64 / seconds(c);
    Line {
        temperature: plan.temperatures[temperature],
        method: plan.contenders[contender].name.clone(),
        tokens: tokens(contender),
        tokens_per_second: speed(contender),
        speedup: speed(contender) / speed(0),
        acceptance_length: sums.acceptance_length().unwrap_or(0.0),
        accepted_by_position: sums.by_position.iter().map(|p| p.accepted as f64 / p.rounds.max(1) as f64).collect(),
        hit_rate: sums.hit_rate(),
        coverage: sums.coverage(),
        exposed_draft_fraction: sums.exposed_draft_us as f64 / 1e6 / seconds(contender),
        pass_ms: per_round(sums.target_prefix_us + sums.exit_us + sums.target_suffix_us),
        exit_ms: per_round(sums.exit_us),
        accept_ms: per_round(sums.accept_us),
        exposed_draft_ms: per_round(sums.exposed_draft_us),
        hidden_draft_ms: per_round(sums.hidden_draft_us),
        rendezvous_ms: per_round(sums.rendezvous_us),
        lossless: of(contender).all(|a| a.report.lossless()),
        differing: of(contender).filter(differs).count(),
        broken: of(contender).filter(differs).filter(|a| a.report.lossless()).count(),
        answers: of(contender).count(),
    }
}

pub(crate) fn markdown(summary: &Summary) -> String {
    let mut out = String::new();
    let draft = summary.draft.as_deref().unwrap_or("no draft");
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{} with {draft}, {} cores, {} questions, at most {} tokens each, seed {}, plugins: {}\n",
        summary.target,
        summary.cores,
        summary.questions,
        summary.max_tokens,
        summary.seed,
        if summary.plugins.is_empty() { "none".to_owned() } else { summary.plugins.join(", ") },
    );
    out.push_str("| temperature | method | tokens/s | speedup | acceptance length | hits | coverage | pass ms | of it exit | accept ms | exposed draft ms | hidden draft ms | rendezvous ms | differing answers |\n");
    out.push_str("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    let percent = |share: Option<f64>| share.map_or("-".to_owned(), |s| format!("{:.0} %", s * 100.0));
    for r in &summary.lines {
        let _ = writeln!(
            out,
            "| {} | {} | {:.1} | {:.2} | {:.2} | {} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.3} | {} of {} |",
            r.temperature,
            r.method,
            r.tokens_per_second,
            r.speedup,
            r.acceptance_length,
            percent(r.hit_rate),
            percent(r.coverage),
            r.pass_ms,
            r.exit_ms,
            r.accept_ms,
            r.exposed_draft_ms,
            r.hidden_draft_ms,
            r.rendezvous_ms,
            r.differing,
            r.answers,
        );
    }
    out.push_str("\n| rows of a pass | passes | median ms |\n|---|---|---|\n");
    for cost in &summary.row_costs {
        let _ = writeln!(out, "| {} | {} | {:.2} |", cost.rows, cost.passes, cost.median_ms);
    }
    if let Some(ms) = summary.draft_token_ms {
        let _ = writeln!(out, "\nSerial drafting: {ms:.2} ms per draft token.");
    }
    out
}
