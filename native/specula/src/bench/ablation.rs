//! What each part of mirroring brings: the serial draft, branches from the draft's guesses, from the exit's, from both, with
//! streams; and what an infinitely fast draft would bring.

use anyhow::Result;
use serde::Serialize;

use super::answer::Answer;
use super::bootstrap;
use super::measured::Measured;
use crate::contender::Contender;

/// Steps with the contenders that stand for them.
pub(crate) struct Ablation {
    steps: Vec<(&'static str, usize)>,
}

/// A step at one temperature with one draft.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) temperature: f64,
    pub(crate) draft: String,
    pub(crate) step: String,
    /// The method measured; for the infinite draft the one it is computed from.
    pub(crate) method: String,
    /// Whether it is computed, not measured.
    pub(crate) computed: bool,
    pub(crate) mean_tokens_per_second: f64,
    /// Ratios of mean speeds.
    pub(crate) speedup: f64,
    pub(crate) over_serial: f64,
    pub(crate) over_serial_interval: Option<[f64; 2]>,
    pub(crate) hit_rate: Option<f64>,
    pub(crate) exposed_draft_fraction: f64,
}

impl Ablation {
    /// Adds the contenders that are missing. `streams`: η of the draft; without streams there is no step for them.
    pub(crate) fn new(contenders: &mut Vec<Contender>, streams: usize) -> Result<Self> {
        let streaming = format!("mirror:roots=both:streams={streams}");
        let mut named = vec![
            ("serial draft", "sps"),
            ("draft roots", "mirror:roots=draft"),
            ("exit roots", "mirror:roots=exit"),
            ("both roots", "mirror:roots=both"),
        ];
        if streams > 0 {
            named.push(("both roots and streams", &streaming));
        }
        let mut steps = Vec::new();
        for (step, name) in named {
            let known = contenders.iter().position(|contender| contender.name == name);
            if known.is_none() {
                contenders.push(Contender::parse(name)?);
            }
            steps.push((step, known.unwrap_or(contenders.len() - 1)));
        }
        Ok(Self { steps })
    }
}

pub(crate) fn steps(measured: &Measured<'_>, ablation: &Ablation) -> Vec<Step> {
    let at = |temperature: usize, stage: usize| {
        let entrants: Vec<(&str, usize)> = ablation
            .steps
            .iter()
            .filter_map(|(step, contender)| Some((*step, measured.entrant(*contender, stage)?)))
            .collect();
        let serial = entrants.first().map_or(0, |(_, entrant)| *entrant);
        let mut steps: Vec<Step> = entrants
            .iter()
            .map(|(step, entrant)| step_of(measured, step, (*entrant, serial), temperature, Draft::AsMeasured))
            .collect();
        let last = entrants.last().map(|(_, entrant)| *entrant);
        steps.extend(
            last.map(|entrant| step_of(measured, "infinite draft", (entrant, serial), temperature, Draft::Infinite)),
        );
        for step in &mut steps {
            step.draft = measured.stages[stage].label();
        }
        steps
    };
    let temperatures = 0..measured.plan.temperatures.len();
    temperatures.flat_map(|t| (0..measured.stages.len()).flat_map(move |s| at(t, s))).collect()
}

/// How long drafting takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Draft {
    AsMeasured,
    /// The same hits and misses, and no time that the target waits for draft tokens.
    Infinite,
}

impl Draft {
    fn speed(self, answer: &Answer) -> f64 {
        match self {
            Self::AsMeasured => answer.speed(),
            Self::Infinite => {
                let waited = answer.turns.iter().flat_map(|turn| &turn.parts).map(|parts| parts.serial + parts.overrun);
                answer.tokens() as f64 / (answer.decode_seconds() - waited.sum::<u64>() as f64 / 1e6)
            }
        }
    }
}

fn step_of(
    measured: &Measured<'_>,
    step: &str,
    (entrant, serial): (usize, usize),
    temperature: usize,
    draft: Draft,
) -> Step {
    let speeds = || measured.of(entrant, temperature).map(|answer| draft.speed(answer));
    let against = |other| speeds().zip(measured.of(other, temperature).map(Answer::speed)).collect::<Vec<_>>();
    let sums = measured.totals(entrant, temperature);
    let seconds: f64 = measured.of(entrant, temperature).map(Answer::decode_seconds).sum();
    let infinite = draft == Draft::Infinite;
    Step {
        temperature: measured.plan.temperatures[temperature],
        draft: String::new(),
        step: step.to_owned(),
        method: measured.contender(entrant).name.clone(),
        computed: infinite,
        mean_tokens_per_second: speeds().sum::<f64>() / speeds().count().max(1) as f64,
        speedup: bootstrap::ratio_of_means(&against(0)),
        over_serial: bootstrap::ratio_of_means(&against(serial)),
        over_serial_interval: bootstrap::interval(&against(serial)),
        hit_rate: sums.hit_rate(),
        exposed_draft_fraction: if infinite { 0.0 } else { sums.exposed_draft_us as f64 / 1e6 / seconds },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_use_contenders_that_are_there_and_add_the_others() {
        let mut contenders: Vec<Contender> =
            ["none", "sps", "mirror"].map(|name| Contender::parse(name).expect("a method")).to_vec();
        let ablation = Ablation::new(&mut contenders, 2).expect("methods");
        assert_eq!(ablation.steps[0], ("serial draft", 1));
        let added: Vec<&str> = contenders[3..].iter().map(|contender| contender.name.as_str()).collect();
        assert_eq!(
            added,
            ["mirror:roots=draft", "mirror:roots=exit", "mirror:roots=both", "mirror:roots=both:streams=2"]
        );
        assert_eq!(Ablation::new(&mut contenders, 0).expect("methods").steps.len(), 4);
        assert_eq!(contenders.len(), 7, "nothing is added twice");
    }
}
