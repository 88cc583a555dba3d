//! Sums answers up: a line for every entrant and temperature, and what is computed from several of them.

use std::collections::BTreeMap;

use serde::Serialize;
use specula_engine::Totals;
use specula_protocol::EffectiveSettings;
use specula_server::wire;

use super::ablation::{self, Ablation, Step};
use super::answer::Answer;
use super::bootstrap;
use super::bound;
use super::conditions::Conditions;
use super::measured::Measured;
use super::parts::{self, RoundTime};
use super::tasks::{self, TaskLine};

/// What was measured, under which conditions.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) conditions: Conditions,
    pub(crate) methods: Vec<Line>,
    /// The best mirror against the best serial method, and the bound of their ratio.
    pub(crate) mirrors: Vec<Mirror>,
    pub(crate) ablation: Vec<Step>,
    /// Speedups by task.
    pub(crate) tasks: Vec<TaskLine>,
    pub(crate) row_costs: Vec<RowCost>,
}

/// What a pass of the target costs by the number of its rows, over all methods that do not roll out.
#[derive(Debug, Serialize)]
pub(crate) struct RowCost {
    pub(crate) rows: usize,
    pub(crate) passes: usize,
    pub(crate) median_ms: f64,
}

/// One entrant at one temperature.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) temperature: f64,
    pub(crate) method: String,
    /// The draft's latency: `as it is`, `c = 5 %`, or `-` for methods that use none.
    pub(crate) draft: String,
    /// As in force in the first answer.
    pub(crate) settings: Option<EffectiveSettings>,
    /// With `auto`: rounds of each method that it chose.
    pub(crate) chosen: BTreeMap<&'static str, u64>,
    /// Draft tokens verified per round.
    pub(crate) mean_window: f64,
    pub(crate) answers: usize,
    pub(crate) tokens: u64,
    /// All tokens over all time after the prefills.
    pub(crate) tokens_per_second: f64,
    /// Mean over questions.
    pub(crate) mean_tokens_per_second: f64,
    /// Ratio of mean speeds, this / `none`.
    pub(crate) speedup: f64,
    /// 95 %, by the paired bootstrap over questions.
    pub(crate) speedup_interval: Option<[f64; 2]>,
    /// Ratio of total speeds.
    pub(crate) speedup_of_totals: f64,
    /// Ratio of mean speeds with the prefills, as Spec-Bench has it.
    pub(crate) speedup_with_prefill: f64,
    /// Mean of a turn.
    pub(crate) prefill_ms: f64,
    pub(crate) acceptance_length: f64,
    pub(crate) accepted_by_position: Vec<f64>,
    pub(crate) hit_rate: Option<f64>,
    pub(crate) hits_from_draft: u64,
    pub(crate) hits_from_exit: u64,
    pub(crate) misses: u64,
    /// Element d: hits whose window was d tokens long.
    pub(crate) hits_by_depth: Vec<u64>,
    /// Of those, hits guessed by the exit.
    pub(crate) hits_from_exit_by_depth: Vec<u64>,
    pub(crate) coverage: Option<f64>,
    pub(crate) branches_expanded: u64,
    pub(crate) branches_used: u64,
    /// Share of the decoding time in which the target waited for draft tokens.
    pub(crate) exposed_draft_fraction: f64,
    /// Draft tokens made in a millisecond of that; only where nothing is drafted beside a pass.
    pub(crate) drafted_per_ms: Option<f64>,
    /// Per round.
    pub(crate) hidden_draft_ms: f64,
    /// Per round.
    pub(crate) bubble_ms: f64,
    pub(crate) round: RoundTime,
    /// ALGORITHMS' latency formula over measured parts, as a share of the measured round.
    pub(crate) formula_over_measured: Option<f64>,
    /// Whether every answer says so of itself.
    pub(crate) lossless: bool,
    /// Answers that differ from the method `none`.
    pub(crate) differing: usize,
    /// Of those, answers that claim to be lossless.
    pub(crate) broken: usize,
}

/// The best mirror against the best serial method with the same draft.
#[derive(Debug, Serialize)]
pub(crate) struct Mirror {
    pub(crate) temperature: f64,
    pub(crate) draft: String,
    /// Measured cost of a serial draft token as a share of a target pass of one row.
    pub(crate) c: Option<f64>,
    pub(crate) mirror: String,
    pub(crate) serial: String,
    /// Ratio of mean speeds, mirror / serial.
    pub(crate) ratio: f64,
    pub(crate) interval: Option<[f64; 2]>,
    /// The ratio with a free draft and every outcome rolled out, by measured row costs, acceptance and draft steps.
    pub(crate) bound: Option<f64>,
    /// The window at which it is reached.
    pub(crate) bound_window: Option<usize>,
    /// ratio / bound.
    pub(crate) reached: Option<f64>,
    /// The serial method's speed as the bound computes it / as measured: how far the bound's model holds.
    pub(crate) serial_model_over_measured: Option<f64>,
}

pub(crate) fn summarise(measured: &Measured<'_>, conditions: Conditions, ablation: Option<&Ablation>) -> Summary {
    let temperatures = 0..measured.plan.temperatures.len();
    let entrants = 0..measured.plan.entrants.len();
    let stages = 0..measured.stages.len();
    let cost = |(rows, passes, median_ms): (usize, usize, f64)| RowCost { rows, passes, median_ms };
    Summary {
        conditions,
        methods: temperatures.clone().flat_map(|t| entrants.clone().map(move |e| line(measured, e, t))).collect(),
        mirrors: temperatures
            .clone()
            .flat_map(|t| stages.clone().filter_map(move |s| mirror(measured, s, t)))
            .collect(),
        ablation: ablation.map_or_else(Vec::new, |ablation| ablation::steps(measured, ablation)),
        tasks: tasks::lines(measured),
        row_costs: measured.row_costs().into_iter().map(cost).collect(),
    }
}

/// Entrant 0 is `none`.
fn line(measured: &Measured<'_>, entrant: usize, temperature: usize) -> Line {
    let answers = || measured.of(entrant, temperature);
    let turns = || answers().flat_map(|answer| &answer.turns);
    let sums = measured.totals(entrant, temperature);
    let seconds: f64 = answers().map(Answer::decode_seconds).sum();
    let rounds = sums.rounds.max(1) as f64;
    let per_round = |us: u64| us as f64 / rounds / 1e3;
    let differs = |answer: &&Answer| {
        measured.of(0, temperature).any(|none| none.question == answer.question && !none.equals(answer))
    };
    let pairs = measured.pairs((entrant, 0), temperature);
    let walls = |entrant| measured.of(entrant, temperature).map(Answer::wall_speed).sum::<f64>();
    let round = parts::mean(&measured.parts(entrant, temperature));
    let mut chosen = BTreeMap::new();
    for (method, rounds) in turns().flat_map(|turn| &turn.report.chosen) {
        *chosen.entry(method.name()).or_default() += rounds;
    }
    Line {
        temperature: measured.plan.temperatures[temperature],
        method: measured.contender(entrant).name.clone(),
        draft: measured.draft(entrant),
        settings: turns().next().map(|turn| wire::effective_settings(&turn.report.settings)),
        chosen,
        mean_window: sums.drafted as f64 / rounds,
        answers: answers().count(),
        tokens: answers().map(Answer::tokens).sum(),
        tokens_per_second: measured.speed(entrant, temperature),
        mean_tokens_per_second: measured.mean_speed(entrant, temperature),
        speedup: bootstrap::ratio_of_means(&pairs),
        speedup_interval: bootstrap::interval(&pairs),
        speedup_of_totals: measured.speed(entrant, temperature) / measured.speed(0, temperature),
        speedup_with_prefill: walls(entrant) / walls(0),
        prefill_ms: turns().map(|turn| turn.report.prefill_us).sum::<u64>() as f64
            / 1e3
            / turns().count().max(1) as f64,
        acceptance_length: sums.acceptance_length().unwrap_or(1.0),
        accepted_by_position: accepted(&sums),
        hit_rate: sums.hit_rate(),
        hits_from_draft: sums.hits_from_draft,
        hits_from_exit: sums.hits_from_exit,
        misses: sums.misses,
        hits_by_depth: sums.hits_by_depth.clone(),
        hits_from_exit_by_depth: sums.hits_from_exit_by_depth.clone(),
        coverage: sums.coverage(),
        branches_expanded: sums.branches_expanded,
        branches_used: sums.branches_used,
        exposed_draft_fraction: sums.exposed_draft_us as f64 / 1e6 / seconds,
        drafted_per_ms: (measured.contender(entrant).method() == "sps" && sums.exposed_draft_us > 0)
            .then(|| sums.drafted as f64 / (sums.exposed_draft_us as f64 / 1e3)),
        hidden_draft_ms: per_round(sums.hidden_draft_us),
        bubble_ms: per_round(sums.bubble_us),
        formula_over_measured: (round.measured_ms > 0.0).then(|| round.formula_ms / round.measured_ms),
        round,
        lossless: answers().all(Answer::lossless),
        differing: answers().filter(differs).count(),
        broken: answers().filter(differs).filter(|answer| answer.lossless()).count(),
    }
}

fn accepted(sums: &Totals) -> Vec<f64> {
    sums.by_position.iter().map(|position| position.accepted as f64 / position.rounds.max(1) as f64).collect()
}

/// `None` if no mirror ran there.
fn mirror(measured: &Measured<'_>, stage: usize, temperature: usize) -> Option<Mirror> {
    let best = |methods: &[&str]| {
        let of = |entrant: &usize| methods.contains(&measured.contender(*entrant).method());
        let speed = |entrant: &usize| measured.mean_speed(*entrant, temperature);
        measured.on_stage(stage).filter(of).max_by(|a, b| speed(a).total_cmp(&speed(b)))
    };
    let mirror = best(&["mirror"])?;
    // Without a serial method the target alone is the best there is.
    let serial = best(&["sps", "lookup", "recycling"]).unwrap_or(0);
    let costs = measured.pass_costs();
    let step = measured.draft_step_ms(stage);
    // The draft's acceptance, from all who verified its windows: a slower draft guesses the same.
    let mut drafted = Totals::default();
    (0..measured.plan.entrants.len())
        .filter(|entrant| ["sps", "ssd", "mirror"].contains(&measured.contender(*entrant).method()))
        .for_each(|entrant| drafted += &measured.totals(entrant, temperature));
    let accepted = accepted(&drafted);
    let accept = |entrant| parts::mean(&measured.parts(entrant, temperature)).accept_ms;
    let free = bound::free_draft(&costs, &accepted, accept(mirror));
    let serial_measured = measured.speed(serial, temperature) / 1e3;
    let serial_model = match measured.contender(serial).method() {
        "sps" => step.and_then(|step| {
            let sums = measured.totals(serial, temperature);
            let window = (sums.drafted as f64 / sums.rounds.max(1) as f64).round() as usize;
            bound::serial(&costs, &accepted, accept(serial), (window, step))
        }),
        // Others draft for nothing: what they reach is what was measured.
        _ => Some(serial_measured),
    };
    let pairs = measured.pairs((mirror, serial), temperature);
    let ratio = bootstrap::ratio_of_means(&pairs);
    let bound = Option::zip(free, serial_model).map(|((_, free), serial)| free / serial);
    Some(Mirror {
        temperature: measured.plan.temperatures[temperature],
        draft: measured.stages[stage].label(),
        c: Option::zip(step, costs.pass(1)).map(|(step, pass)| step / pass),
        mirror: measured.contender(mirror).name.clone(),
        serial: measured.contender(serial).name.clone(),
        ratio,
        interval: bootstrap::interval(&pairs),
        bound,
        bound_window: free.map(|(window, _)| window),
        reached: bound.map(|bound| ratio / bound),
        serial_model_over_measured: serial_model.map(|model| model / serial_measured),
    })
}
