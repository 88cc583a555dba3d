//! Runs a plugin on a recording, call by call, and tells what each call did and cost.

use std::sync::Arc;

use serde_json::Value;
use specula_decoding::{PolicyError, Row};

use crate::facts::CallCost;
use crate::recording::{RecordedRound, Recording};
use crate::usage::PluginUse;
use crate::{Kind, ModelInfo, Opened, Plugin};

/// One call, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// What the plugin was opened as.
    pub kind: Kind,
    /// The function.
    pub function: &'static str,
    /// The recording's round, counted from 0; `None` before the first.
    pub round: Option<usize>,
    /// Fuel used.
    pub fuel: u64,
    /// Time in microseconds.
    pub micros: f64,
    /// What it did, or how it failed, in words.
    pub outcome: Result<String, PolicyError>,
}

/// Every call of a plugin that is opened as each kind it has, on a recording, up to the first failure of each kind. A failure
/// to open comes first and alone.
pub fn replay(plugin: &Arc<Plugin>, config: &Value, recording: &Recording) -> Vec<Call> {
    let model = recording.model();
    let mut calls = Vec::new();
    for &kind in &plugin.info().kinds {
        let mut replay = Replay { kind, calls: &mut calls, meter: Meter::default() };
        // A failure is the last call that was told.
        let _ = match kind {
            Kind::Acceptance => replay.acceptance(plugin, (&model, config), recording),
            Kind::Sampling => replay.sampling(plugin, (&model, config), recording),
            Kind::Stopping => replay.stopping(plugin, (&model, config), recording),
        };
    }
    calls
}

/// What calls of each function cost, in the order in which they first came.
pub fn costs(calls: &[Call]) -> Vec<CallCost> {
    let mut functions: Vec<(Kind, &str)> = Vec::new();
    for call in calls {
        if !functions.contains(&(call.kind, call.function)) {
            functions.push((call.kind, call.function));
        }
    }
    let cost = |(kind, function): (Kind, &str)| {
        let those = || calls.iter().filter(|call| (call.kind, call.function) == (kind, function));
        let (mut fuel, mut micros): (Vec<u64>, Vec<f64>) = those().map(|call| (call.fuel, call.micros)).unzip();
        fuel.sort_unstable();
        micros.sort_unstable_by(f64::total_cmp);
        CallCost {
            kind,
            function: function.to_owned(),
            calls: fuel.len() as u64,
            fuel: fuel[fuel.len() / 2],
            fuel_max: fuel[fuel.len() - 1],
            micros: micros[micros.len() / 2],
        }
    };
    functions.into_iter().map(cost).collect()
}

/// Told apart from one call to the next.
#[derive(Default)]
struct Meter {
    usage: Arc<PluginUse>,
    fuel: u64,
    nanos: u64,
}

struct Replay<'a> {
    kind: Kind,
    calls: &'a mut Vec<Call>,
    meter: Meter,
}

type Told = Result<(), ()>;

impl Replay<'_> {
    fn acceptance(&mut self, plugin: &Arc<Plugin>, how: (&ModelInfo, &Value), recording: &Recording) -> Told {
        let opened = plugin.open_acceptance(how.0, how.1, &recording.prompt);
        let mut policy = self.opened(opened)?;
        let mut position = recording.prompt.len() as u32;
        for (i, round) in recording.rounds.iter().enumerate() {
            let rows = round.restore_rows(recording.vocab_size);
            let stats = round.stats(&rows, position);
            if !stats.draft.is_empty() {
                let (n, own) = (stats.draft.len(), stats.own_accepted());
                let judged = policy.judge(&stats);
                self.tell("judge", Some(i), judged.map(|kept| format!("keeps {kept} of {n}, own draw {own}")))?;
            }
            let committed = policy.commit(&round.committed);
            self.tell("commit", Some(i), committed.map(|()| of_tokens(round.committed.len())))?;
            position += round.committed.len() as u32;
        }
        Ok(())
    }

    fn sampling(&mut self, plugin: &Arc<Plugin>, how: (&ModelInfo, &Value), recording: &Recording) -> Told {
        let opened = plugin.open_sampling(how.0, how.1, &recording.prompt);
        let mut rule = self.opened(opened)?;
        for (i, round) in recording.rounds.iter().enumerate() {
            let before = round.restore_rows(recording.vocab_size);
            let mut rows = before.clone();
            let mut refs: Vec<&mut Row> = rows.iter_mut().collect();
            let adjusted = rule.apply(&round.draft, 0, &mut refs);
            self.tell("adjust", Some(i), adjusted.map(|()| changes(&before, &rows)))?;
            let committed = rule.commit(&round.committed);
            self.tell("commit", Some(i), committed.map(|()| of_tokens(round.committed.len())))?;
        }
        Ok(())
    }

    fn stopping(&mut self, plugin: &Arc<Plugin>, how: (&ModelInfo, &Value), recording: &Recording) -> Told {
        let opened = plugin.open_stopping(how.0, how.1);
        let mut criterion = self.opened(opened)?;
        for (i, round) in recording.rounds.iter().enumerate() {
            let (text, ends) = text_of(round);
            let observed = criterion.observe(&round.committed, &text, &ends);
            let ended = matches!(observed, Ok(Some(_)));
            let words = observed.map(|stop| match stop {
                None => "goes on".to_owned(),
                Some(stop) => format!("stops after {} of {}: {}", stop.keep, round.committed.len(), stop.reason),
            });
            self.tell("observe", Some(i), words)?;
            if ended {
                break;
            }
        }
        Ok(())
    }

    fn opened<T: ?Sized>(&mut self, opened: Result<Opened<T>, PolicyError>) -> Result<Box<T>, ()> {
        match opened {
            Ok(opened) => {
                self.meter.usage = opened.usage;
                self.tell("open", None, Ok("with the prompt, if it is told of it".to_owned()))?;
                Ok(opened.policy)
            }
            Err(error) => {
                // Of a failure it tells nothing but that.
                let _ = self.tell("open", None, Err(error));
                Err(())
            }
        }
    }

    fn tell(&mut self, function: &'static str, round: Option<usize>, outcome: Result<String, PolicyError>) -> Told {
        let (fuel, nanos) = (self.meter.usage.fuel(), self.meter.usage.nanos());
        let failed = outcome.is_err();
        self.calls.push(Call {
            kind: self.kind,
            function,
            round,
            fuel: fuel - self.meter.fuel,
            micros: (nanos - self.meter.nanos) as f64 / 1000.0,
            outcome,
        });
        (self.meter.fuel, self.meter.nanos) = (fuel, nanos);
        if failed { Err(()) } else { Ok(()) }
    }
}

fn of_tokens(count: usize) -> String {
    format!("{count} tokens")
}

/// For each row: how many tokens were forbidden, how many kept have another logit, and what is best now.
fn changes(before: &[Row], after: &[Row]) -> String {
    let describe = |(before, after): (&Row, &Row)| {
        let pairs = || before.logits().iter().zip(after.logits());
        let gone = pairs().filter(|(b, a)| **b > f32::NEG_INFINITY && **a == f32::NEG_INFINITY).count();
        let moved = pairs().filter(|(b, a)| b != a && **a > f32::NEG_INFINITY).count();
        let best = |row: &Row| row.top(1).first().map(|best| best.0);
        let now = match (best(before), best(after)) {
            (b, a) if b == a => "same best".to_owned(),
            (_, Some(a)) => format!("best {a}"),
            (_, None) => "nothing allowed".to_owned(),
        };
        format!("−{gone} ~{moved} {now}")
    };
    before.iter().zip(after).map(describe).collect::<Vec<_>>().join("; ")
}

/// The round's text, and where each of its tokens ends in it.
fn text_of(round: &RecordedRound) -> (String, Vec<u32>) {
    let mut text = String::new();
    let mut ends = Vec::new();
    for piece in &round.pieces {
        text.push_str(piece);
        ends.push(text.len() as u32);
    }
    (text, ends)
}
