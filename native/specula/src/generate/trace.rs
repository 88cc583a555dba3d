//! One generation as a trace in the JSON Trace Event Format, which Perfetto (ui.perfetto.dev) and chrome://tracing draw.
//! Format: <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>.

use serde_json::{Value, json};
use specula_engine::{Finished, LaneKind, Message, MessageKind, Round, Span};
use specula_server::wire;

/// Lanes from top to bottom; a lane's number is its place, counted from 1.
const LANES: [&str; 10] = [
    "rounds",
    "target: prompt",
    "target: layers to the exit",
    "target: exit",
    "target: layers after the exit",
    "target: accept",
    "target: policy calls",
    "channel",
    "draft: serial",
    "draft: rollout",
];
const ROUNDS: usize = 1;
const CHANNEL: usize = 8;

/// The trace; times in microseconds since the generation was admitted.
///
/// A round lasts from the end of the one before to the end of its commit; its events bear its number, counted from 0. The
/// draft's work and the messages that led to a round's window bear that round's number, although most of them happened
/// while the round before was under way.
pub(crate) fn trace(rounds: &[Round], finished: &Finished) -> Value {
    let mut events = vec![named("process_name", 0, "specula")];
    for (place, name) in LANES.iter().enumerate() {
        events.push(named("thread_name", place + 1, name));
        let order = json!({"ph": "M", "pid": 1, "tid": place + 1, "name": "thread_sort_index"});
        events.push(with(order, "args", json!({"sort_index": place + 1})));
    }
    let mut begin = 0;
    for (number, round) in rounds.iter().enumerate() {
        let end = round.lanes.iter().filter(|span| span.kind == LaneKind::Accept).map(|span| span.end_us).max();
        let end = end.unwrap_or(begin);
        events.push(complete(ROUNDS, &format!("round {number}"), (begin, end), told(number, round)));
        let exits = round.lanes.iter().any(|span| span.kind == LaneKind::Exit);
        for span in &round.lanes {
            let (lane, mut name) = lane(span.kind);
            if span.kind == LaneKind::TargetSuffix && !exits {
                name = "all layers";
            }
            events.push(complete(lane, name, (span.start_us, span.end_us), args(number, round, span)));
        }
        events.extend(round.messages.iter().map(|message| spoken(number, message)));
        begin = end;
    }
    json!({
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"specula": wire::report(finished), "usage": wire::usage(finished)},
    })
}

fn lane(kind: LaneKind) -> (usize, &'static str) {
    match kind {
        LaneKind::Prefill => (2, "prompt"),
        LaneKind::TargetPrefix => (3, "layers to the exit"),
        LaneKind::Exit => (4, "exit"),
        LaneKind::TargetSuffix => (5, "layers after the exit"),
        LaneKind::Accept => (6, "accept"),
        LaneKind::Policy => (7, "policy calls"),
        LaneKind::DraftSerial => (9, "serial"),
        LaneKind::DraftRollout => (10, "rollout"),
    }
}

/// What a round did.
fn told(number: usize, round: &Round) -> Value {
    let text: String = round.tokens.iter().map(|token| token.text.as_str()).collect();
    json!({
        "round": number,
        "window": round.window,
        "accepted": round.accepted,
        "hit": round.hit,
        "source": round.source.map(wire::source),
        "tokens": round.tokens.iter().map(|token| token.id).collect::<Vec<_>>(),
        "text": text,
    })
}

fn args(number: usize, round: &Round, span: &Span) -> Value {
    match span.kind {
        LaneKind::TargetPrefix | LaneKind::Exit | LaneKind::TargetSuffix => {
            json!({"round": number, "rows": round.window + 1})
        }
        LaneKind::Accept => json!({"round": number, "window": round.window, "accepted": round.accepted}),
        LaneKind::DraftSerial | LaneKind::DraftRollout => {
            json!({"round": number, "hit": round.hit, "source": round.source.map(wire::source)})
        }
        LaneKind::Prefill | LaneKind::Policy => json!({"round": number}),
    }
}

/// A message, from when it was sent to when it was taken up.
fn spoken(number: usize, message: &Message) -> Value {
    let (name, from, to) = match message.kind {
        MessageKind::Ask => ("draft now", "target", "draft"),
        MessageKind::PassBegan => ("pass began", "target", "draft"),
        MessageKind::Exit => ("exit message", "target", "draft"),
        MessageKind::Verdict => ("verdict", "target", "draft"),
        MessageKind::Proposal => ("proposal", "draft", "target"),
    };
    let args = json!({"round": number, "from": from, "to": to});
    complete(CHANNEL, name, (message.sent_us, message.taken_us), args)
}

/// Names the process, or lane `tid` of it.
fn named(what: &str, tid: usize, name: &str) -> Value {
    json!({"ph": "M", "pid": 1, "tid": tid, "name": what, "args": {"name": name}})
}

fn complete(tid: usize, name: &str, (begin, end): (u64, u64), args: Value) -> Value {
    let event = json!({"ph": "X", "pid": 1, "tid": tid, "name": name, "ts": begin, "dur": end.saturating_sub(begin)});
    with(event, "args", args)
}

fn with(mut event: Value, key: &str, value: Value) -> Value {
    event[key] = value;
    event
}
