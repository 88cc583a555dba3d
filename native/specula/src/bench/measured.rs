//! All answers of a run, and what several tables ask of them.

use specula_engine::Totals;

use super::answer::Answer;
use super::bound::RowCosts;
use super::parts::Parts;
use super::run::{Entrant, Plan};
use super::stage::Stage;
use crate::contender::Contender;

/// The plan and its outcome.
pub(crate) struct Measured<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) stages: &'a [Stage],
    pub(crate) answers: &'a [Answer],
}

impl Measured<'_> {
    /// An entrant's answers at a temperature, in the order of questions.
    pub(crate) fn of(&self, entrant: usize, temperature: usize) -> impl Iterator<Item = &Answer> + Clone {
        self.answers.iter().filter(move |answer| (answer.entrant, answer.temperature) == (entrant, temperature))
    }

    /// Speeds of two entrants, question by question.
    pub(crate) fn pairs(&self, (one, other): (usize, usize), temperature: usize) -> Vec<(f64, f64)> {
        let speeds = |entrant| self.of(entrant, temperature).map(Answer::speed);
        speeds(one).zip(speeds(other)).collect()
    }

    /// Tokens per second over all answers.
    pub(crate) fn speed(&self, entrant: usize, temperature: usize) -> f64 {
        let tokens: u64 = self.of(entrant, temperature).map(Answer::tokens).sum();
        tokens as f64 / self.of(entrant, temperature).map(Answer::decode_seconds).sum::<f64>()
    }

    /// Mean over answers of their speeds.
    pub(crate) fn mean_speed(&self, entrant: usize, temperature: usize) -> f64 {
        let speeds = self.of(entrant, temperature).map(Answer::speed);
        speeds.clone().sum::<f64>() / speeds.count() as f64
    }

    pub(crate) fn totals(&self, entrant: usize, temperature: usize) -> Totals {
        let mut sums = Totals::default();
        self.of(entrant, temperature).for_each(|answer| sums += &answer.totals());
        sums
    }

    pub(crate) fn parts(&self, entrant: usize, temperature: usize) -> Vec<Parts> {
        self.of(entrant, temperature)
            .flat_map(|answer| &answer.turns)
            .flat_map(|turn| turn.parts.iter().copied())
            .collect()
    }

    pub(crate) fn contender(&self, entrant: usize) -> &Contender {
        &self.plan.contenders[self.plan.entrants[entrant].contender]
    }

    /// The entrant's stage: which draft it had.
    pub(crate) fn draft(&self, entrant: usize) -> String {
        let uses = self.contender(entrant).uses_draft();
        if uses { self.stages[self.plan.entrants[entrant].stage].label() } else { "-".to_owned() }
    }

    /// Entrants on a stage; those that use no draft are on every one.
    pub(crate) fn on_stage(&self, stage: usize) -> impl Iterator<Item = usize> {
        let on =
            move |entrant: &Entrant| entrant.stage == stage || !self.plan.contenders[entrant.contender].uses_draft();
        self.plan.entrants.iter().enumerate().filter(move |(_, entrant)| on(entrant)).map(|(i, _)| i)
    }

    /// The entrant of a contender on a stage.
    pub(crate) fn entrant(&self, contender: usize, stage: usize) -> Option<usize> {
        self.on_stage(stage).find(|entrant| self.plan.entrants[*entrant].contender == contender)
    }

    /// Passes by their rows, with how often and the median in milliseconds: of methods that do not roll out, whose passes
    /// have neither an exit nor a draft at work beside them.
    pub(crate) fn row_costs(&self) -> Vec<(usize, usize, f64)> {
        let mut by_rows: std::collections::BTreeMap<usize, Vec<u64>> = std::collections::BTreeMap::new();
        for parts in self.answers.iter().flat_map(|answer| &answer.turns).flat_map(|turn| &turn.parts) {
            if parts.prefix == 0 && parts.hit.is_none() {
                by_rows.entry(parts.rows).or_default().push(parts.pass());
            }
        }
        let cost = |(rows, mut micros): (usize, Vec<u64>)| {
            micros.sort_unstable();
            (rows, micros.len(), micros[micros.len() / 2] as f64 / 1e3)
        };
        by_rows.into_iter().map(cost).collect()
    }

    /// The same, for bounds: rows met too seldom for a median are left out.
    pub(crate) fn pass_costs(&self) -> RowCosts {
        const ENOUGH: usize = 5;
        let known = self.row_costs().into_iter().filter(|(_, passes, _)| *passes >= ENOUGH);
        RowCosts(known.map(|(rows, _, ms)| (rows, ms)).collect())
    }

    /// Milliseconds of serial drafting per draft token on a stage, the median over rounds: of `sps`, which drafts every window
    /// serially. `None` if it was not measured there.
    pub(crate) fn draft_step_ms(&self, stage: usize) -> Option<f64> {
        let mut steps = Vec::new();
        for entrant in self.on_stage(stage).filter(|entrant| self.contender(*entrant).method() == "sps") {
            let rounds = (0..self.plan.temperatures.len()).flat_map(|t| self.parts(entrant, t));
            steps.extend(rounds.filter(|parts| parts.rows > 1).map(|p| p.serial as f64 / (p.rows - 1) as f64 / 1e3));
        }
        steps.sort_by(f64::total_cmp);
        steps.get(steps.len() / 2).copied()
    }
}
