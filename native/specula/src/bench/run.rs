//! Asks every question of every entrant, in turn.

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use specula_decoding::TokenId;
use specula_engine::{Engine, Event, PluginSpec, RequestSpec, Round};

use super::answer::{Answer, Turn};
use super::parts;
use super::stage::Stage;
use super::suite::Question;
use crate::contender::Contender;

/// What is asked of whom.
pub(crate) struct Plan {
    pub(crate) contenders: Vec<Contender>,
    pub(crate) entrants: Vec<Entrant>,
    pub(crate) temperatures: Vec<f64>,
    pub(crate) questions: Vec<Question>,
    pub(crate) max_tokens: u64,
    pub(crate) seed: u64,
    pub(crate) plugins: Vec<PluginSpec>,
}

/// A contender on a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entrant {
    pub(crate) contender: usize,
    pub(crate) stage: usize,
}

/// Every contender with the draft as it is; those that use a draft also with each slower one. The first is `none`.
pub(crate) fn entrants(contenders: &[Contender], stages: usize) -> Vec<Entrant> {
    let all = (0..stages).flat_map(|stage| (0..contenders.len()).map(move |contender| Entrant { contender, stage }));
    all.filter(|entrant| entrant.stage == 0 || contenders[entrant.contender].uses_draft()).collect()
}

/// One turn of a conversation, as it is asked.
pub(crate) struct Asked<'a> {
    /// Roles and texts; the last is the user's.
    pub(crate) history: &'a [(String, String)],
    pub(crate) contender: &'a Contender,
    pub(crate) temperature: f64,
    pub(crate) max_tokens: u64,
    pub(crate) seed: u64,
    pub(crate) plugins: &'a [PluginSpec],
}

/// Rounds of one answer of an entrant, for the picture of its lanes.
pub(crate) struct Sample {
    pub(crate) entrant: usize,
    pub(crate) temperature: usize,
    pub(crate) rounds: Vec<Round>,
}

/// Runs the plan, one request at a time.
pub(crate) fn run(stages: &[Stage], plan: &Plan) -> Result<(Vec<Answer>, Vec<Sample>)> {
    let total = plan.questions.len() * plan.temperatures.len() * plan.entrants.len();
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} answers, {eta} left")?;
    let progress = ProgressBar::new(total as u64).with_style(style);
    // The first passes fill caches and pages; they are nobody's measurement.
    for first in 0..stages.len() {
        let entrant = plan.entrants.iter().position(|entrant| entrant.stage == first).unwrap_or_default();
        converse(stages, plan, (entrant, 0, 0))?;
    }
    let (mut answers, mut samples) = (Vec::with_capacity(total), Vec::new());
    for question in 0..plan.questions.len() {
        for temperature in 0..plan.temperatures.len() {
            for turn in 0..plan.entrants.len() {
                // Rotating the order keeps any one entrant from always running first.
                let entrant = (turn + question) % plan.entrants.len();
                let (answer, rounds) = converse(stages, plan, (entrant, temperature, question))?;
                answers.push(answer);
                if question == 0 {
                    samples.push(Sample { entrant, temperature, rounds });
                }
                progress.inc(1);
            }
        }
    }
    progress.finish_and_clear();
    Ok((answers, samples))
}

/// Asks a question's turns one after the other, each with the answers before it; tells the first turn's rounds as well.
fn converse(
    stages: &[Stage],
    plan: &Plan,
    (entrant, temperature, question): (usize, usize, usize),
) -> Result<(Answer, Vec<Round>)> {
    let Entrant { contender, stage } = plan.entrants[entrant];
    let mut history = Vec::new();
    let mut answer = Answer { entrant, temperature, question, turns: Vec::new(), skipped: 0 };
    let mut sample = Vec::new();
    for text in &plan.questions[question].turns {
        history.push(("user".to_owned(), text.clone()));
        let asked = Asked {
            history: &history,
            contender: &plan.contenders[contender],
            temperature: plan.temperatures[temperature],
            max_tokens: plan.max_tokens,
            seed: plan.seed,
            plugins: &plan.plugins,
        };
        if !answer.turns.is_empty() && fitted(&stages[stage].engine, &asked)?.is_none() {
            // What was said before leaves no room: this turn and those after it are left out.
            answer.skipped = plan.questions[question].turns.len() - answer.turns.len();
            break;
        }
        let (turn, rounds) = ask(&stages[stage].engine, &asked)?;
        history.push(("assistant".to_owned(), turn.text.clone()));
        if answer.turns.is_empty() {
            sample = rounds;
        }
        answer.turns.push(turn);
    }
    Ok((answer, sample))
}

/// The prompt, and whether the last message was cut: it loses its end until `max_tokens` have room in the context. `None` if
/// they have none even without it.
fn fitted(engine: &Engine, asked: &Asked<'_>) -> Result<Option<(Vec<TokenId>, bool)>> {
    let room = engine.facts().context_length.saturating_sub(asked.max_tokens as usize);
    let Some(((role, text), before)) = asked.history.split_last() else { bail!("a conversation without a message") };
    let encode = |chars: usize| -> Result<Vec<TokenId>> {
        let kept = text.chars().take(chars).collect();
        Ok(engine.encode_chat(&[before, &[(role.clone(), kept)]].concat())?)
    };
    let whole = encode(usize::MAX)?;
    if whole.len() <= room {
        return Ok(Some((whole, false)));
    }
    if encode(0)?.len() > room {
        return Ok(None);
    }
    let (mut fits, mut too_long) = (0, text.chars().count());
    while too_long - fits > 1 {
        let middle = fits.midpoint(too_long);
        if encode(middle)?.len() <= room { fits = middle } else { too_long = middle }
    }
    Ok(Some((encode(fits)?, true)))
}

/// Asks one turn; tells its rounds as well.
pub(crate) fn ask(engine: &Engine, asked: &Asked<'_>) -> Result<(Turn, Vec<Round>)> {
    let Some((prompt, cut)) = fitted(engine, asked)? else {
        bail!("--max-tokens {} leave no room in a context of {}", asked.max_tokens, engine.facts().context_length);
    };
    let spec = RequestSpec {
        prompt,
        max_tokens: Some(asked.max_tokens),
        temperature: Some(asked.temperature),
        seed: Some(asked.seed),
        speculation: asked.contender.settings.clone(),
        plugins: asked.plugins.to_vec(),
        ..RequestSpec::default()
    };
    let mut events = engine.submit(engine.check(spec)?)?;
    let mut rounds: Vec<Round> = Vec::new();
    while let Some(event) = events.blocking_next() {
        match event {
            Event::Started(_) | Event::Prompt(_) => {}
            Event::Round(round) => rounds.push(round),
            Event::Finished(finished) => {
                let tokens = || rounds.iter().flat_map(|round| &round.tokens);
                let turn = Turn {
                    text: tokens().map(|token| token.text.as_str()).collect(),
                    tokens: tokens().map(|token| token.id).collect(),
                    lengths: rounds.iter().map(|round| round.tokens.len()).collect(),
                    parts: parts::of(&rounds),
                    report: finished.report,
                    cut,
                };
                return Ok((turn, rounds));
            }
            Event::Failed(failure) => bail!(failure),
        }
    }
    bail!("the engine ended an answer without saying why")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slower_drafts_are_tried_by_those_who_draft() {
        let contenders: Vec<Contender> =
            ["none", "lookup", "sps"].map(|name| Contender::parse(name).expect("a method")).to_vec();
        let found: Vec<(usize, usize)> = entrants(&contenders, 3).iter().map(|e| (e.stage, e.contender)).collect();
        assert_eq!(found, [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2)]);
    }
}
