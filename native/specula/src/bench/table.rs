//! Sums answers up: one row per temperature and contender, with the profile that explains it.

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
    pub(crate) rows: Vec<Line>,
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
    pub(crate) answers: usize,
}

pub(crate) fn summarise(engine: &Engine, plan: &Plan, answers: &[Answer]) -> Summary {
    let facts = engine.facts();
    let rows = (0..plan.temperatures.len())
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
        rows,
    }
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
    for r in &summary.rows {
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
    out
}
