//! The embedded pair, target on the device and draft where its own device is: plain, serial and mirrored.

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::Value;
use specula_engine::{Engine, Event, Finished, RequestSpec, Round, Totals};

use crate::contender::Contender;
use crate::generate::trace;
use crate::options::EngineArgs;
use crate::{prompts, startup};

const METHODS: [&str; 4] = ["none", "sps:window=4", "mirror:window=4", "mirror:window=4:roots=draft"];
const QUESTIONS: usize = 6;
const TOKENS: u64 = 64;
const TEMPERATURE: f64 = 1.0;

/// What came of a method, over all questions.
#[derive(Serialize)]
pub(super) struct Mirrored {
    pub(super) method: String,
    pub(super) tokens_per_second: f64,
    pub(super) acceptance_length: Option<f64>,
    pub(super) hit_rate: Option<f64>,
    /// Share of all time in which the target waited for the draft's work.
    pub(super) exposed_draft: f64,
    /// Answers that are not those of `none`.
    pub(super) differing: usize,
}

/// All methods, and a trace of the first question's mirrored answer.
pub(super) fn measure(args: &EngineArgs) -> Result<(Vec<Mirrored>, Value)> {
    let engine = startup::engine_without_plugins(args)?;
    let questions = prompts::questions(QUESTIONS)?;
    let (mut found, mut plain, mut traced): (Vec<Mirrored>, Vec<Vec<u32>>, _) = (Vec::new(), Vec::new(), Value::Null);
    for name in METHODS {
        let contender = Contender::parse(name)?;
        ask(&engine, &contender, &questions[0].1)?;
        let (mut totals, mut us, mut differing) = (Totals::default(), 0, 0);
        for (i, (_, question)) in questions.iter().enumerate() {
            let (rounds, finished) = ask(&engine, &contender, question)?;
            totals += &finished.report.totals;
            us += finished.report.total_us - finished.report.prefill_us;
            let tokens: Vec<u32> = rounds.iter().flat_map(|round| &round.tokens).map(|token| token.id).collect();
            match plain.get(i) {
                Some(want) => differing += usize::from(*want != tokens),
                None => plain.push(tokens),
            }
            if i == 0 && name == METHODS[2] {
                traced = trace::trace(&rounds, &finished);
            }
        }
        found.push(Mirrored {
            method: name.to_owned(),
            tokens_per_second: totals.committed as f64 / us as f64 * 1e6,
            acceptance_length: totals.acceptance_length(),
            hit_rate: totals.hit_rate(),
            exposed_draft: totals.exposed_draft_us as f64 / us as f64,
            differing,
        });
    }
    Ok((found, traced))
}

fn ask(engine: &Engine, contender: &Contender, question: &str) -> Result<(Vec<Round>, Finished)> {
    let spec = RequestSpec {
        prompt: engine.encode_chat(&[("user".to_owned(), question.to_owned())])?,
        max_tokens: Some(TOKENS),
        temperature: Some(TEMPERATURE),
        seed: Some(1),
        speculation: contender.settings.clone(),
        ..RequestSpec::default()
    };
    let mut events = engine.submit(engine.check(spec)?)?;
    let mut rounds = Vec::new();
    while let Some(event) = events.blocking_next() {
        match event {
            Event::Started(_) | Event::Prompt(_) => {}
            Event::Round(round) => rounds.push(round),
            Event::Finished(finished) => return Ok((rounds, *finished)),
            Event::Failed(failure) => bail!(failure),
        }
    }
    bail!("the engine ended an answer without saying why")
}
