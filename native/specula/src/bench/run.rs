//! Asks every question of every contender, in turn.

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use specula_engine::{Engine, Event, LaneKind, PluginSpec, Report, RequestSpec, Round};

use crate::contender::Contender;

/// What is asked of whom.
pub(crate) struct Plan {
    pub(crate) contenders: Vec<Contender>,
    pub(crate) temperatures: Vec<f64>,
    /// Page and question.
    pub(crate) questions: Vec<(String, String)>,
    pub(crate) max_tokens: u64,
    pub(crate) seed: u64,
    pub(crate) plugins: Vec<PluginSpec>,
}

/// One answer.
pub(crate) struct Answer {
    pub(crate) contender: usize,
    pub(crate) temperature: usize,
    pub(crate) question: usize,
    pub(crate) tokens: Vec<u32>,
    pub(crate) report: Report,
    pub(crate) passes: Vec<Pass>,
    /// The draft's serial drafting, in microseconds.
    pub(crate) serial_draft_us: u64,
}

/// One pass of the target.
pub(crate) struct Pass {
    /// Last committed token and window.
    pub(crate) rows: usize,
    pub(crate) micros: u64,
}

impl Answer {
    /// Time after the prefill, in seconds.
    pub(crate) fn decode_seconds(&self) -> f64 {
        self.report.total_us.saturating_sub(self.report.prefill_us) as f64 / 1e6
    }

    /// The answer as a line of JSON.
    pub(crate) fn line(&self, plan: &Plan) -> Value {
        json!({
            "method": plan.contenders[self.contender].name,
            "temperature": plan.temperatures[self.temperature],
            "page": plan.questions[self.question].0,
            "question": plan.questions[self.question].1,
            "new_tokens": self.tokens.len(),
            "rounds": self.report.totals.rounds,
            "decode_seconds": self.decode_seconds(),
            "prefill_us": self.report.prefill_us,
            "acceptance_length": self.report.totals.acceptance_length(),
            "hit_rate": self.report.totals.hit_rate(),
            "lossless": self.report.lossless(),
            "tokens": self.tokens,
        })
    }
}

/// Runs the plan, one request at a time.
pub(crate) fn run(engine: &Engine, plan: &Plan) -> Result<Vec<Answer>> {
    let total = plan.questions.len() * plan.temperatures.len() * plan.contenders.len();
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} answers, {eta} left")?;
    let progress = ProgressBar::new(total as u64).with_style(style);
    // The first passes fill caches and pages; they are nobody's measurement.
    ask(engine, plan, (0, 0, 0))?;
    let mut answers = Vec::with_capacity(total);
    for question in 0..plan.questions.len() {
        for temperature in 0..plan.temperatures.len() {
            for turn in 0..plan.contenders.len() {
                // Rotating the order keeps any one contender from always running first.
                let contender = (turn + question) % plan.contenders.len();
                answers.push(ask(engine, plan, (contender, temperature, question))?);
                progress.inc(1);
            }
        }
    }
    progress.finish_and_clear();
    Ok(answers)
}

fn ask(engine: &Engine, plan: &Plan, (contender, temperature, question): (usize, usize, usize)) -> Result<Answer> {
    let prompt = engine.encode_chat(&[("user".to_owned(), plan.questions[question].1.clone())])?;
    let spec = RequestSpec {
        prompt,
        max_tokens: Some(plan.max_tokens),
        temperature: Some(plan.temperatures[temperature]),
        seed: Some(plan.seed),
        speculation: plan.contenders[contender].settings.clone(),
        plugins: plan.plugins.clone(),
        ..RequestSpec::default()
    };
    let mut events = engine.submit(engine.check(spec)?)?;
    let mut tokens = Vec::new();
    let mut passes = Vec::new();
    let mut serial_draft_us = 0;
    while let Some(event) = events.blocking_next() {
        match event {
            Event::Started(_) | Event::Prompt(_) => {}
            Event::Round(round) => {
                tokens.extend(round.tokens.iter().map(|t| t.id));
                let target = [LaneKind::TargetPrefix, LaneKind::Exit, LaneKind::TargetSuffix];
                passes.push(Pass { rows: round.window + 1, micros: time_in(&round, &target) });
                // The first proposal tells of the draft's prefill too.
                if passes.len() > 1 {
                    serial_draft_us += time_in(&round, &[LaneKind::DraftSerial]);
                }
            }
            Event::Finished(finished) => {
                let report = finished.report;
                return Ok(Answer { contender, temperature, question, tokens, report, passes, serial_draft_us });
            }
            Event::Failed(failure) => bail!(failure),
        }
    }
    bail!("the engine ended an answer without saying why")
}

fn time_in(round: &Round, lanes: &[LaneKind]) -> u64 {
    round.lanes.iter().filter(|span| lanes.contains(&span.kind)).map(|span| span.end_us - span.start_us).sum()
}
