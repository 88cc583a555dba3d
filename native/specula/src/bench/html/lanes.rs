//! What both models did in some rounds, on one line of time each, with the messages between them.

use specula_decoding::branches::Source;
use specula_engine::{LaneKind, MessageKind, Round};

use super::svg::{Picture, short, ticks};

/// Rounds shown.
const ROUNDS: usize = 4;

const LEFT: f64 = 64.0;
const PLOT: f64 = 860.0;
const TARGET: f64 = 40.0;
const DRAFT: f64 = 96.0;
const THICK: f64 = 26.0;
const BOTTOM: f64 = 140.0;

/// Colours of lanes, with their names.
pub(super) const KINDS: [(LaneKind, &str, &str); 6] = [
    (LaneKind::TargetPrefix, "prefix", "target, layers to the exit"),
    (LaneKind::Exit, "exit", "target, exit"),
    (LaneKind::TargetSuffix, "suffix", "target, layers after the exit"),
    (LaneKind::Accept, "accept", "target, acceptance"),
    (LaneKind::DraftRollout, "rollout", "draft, rollout"),
    (LaneKind::DraftSerial, "serial", "draft, serial: the target waits"),
];

/// Some rounds in a row, with a hit and a miss among them if there are such. `None` if there are too few.
pub(super) fn draw(rounds: &[Round], about: &str) -> Option<String> {
    let first = pick(rounds)?;
    let shown = &rounds[first..(first + ROUNDS).min(rounds.len())];
    let begin = end_of(&rounds[first - 1])?;
    let end = end_of(shown.last()?)?;
    let scale = PLOT / (end.saturating_sub(begin)).max(1) as f64;
    let x = |us: u64| LEFT + us.saturating_sub(begin) as f64 * scale;
    let mut picture = Picture::new(LEFT + PLOT + 20.0, BOTTOM + 40.0);
    picture.text((LEFT - 10.0, TARGET + THICK / 2.0 + 4.0), "end", "label", "target");
    picture.text((LEFT - 10.0, DRAFT + THICK / 2.0 + 4.0), "end", "label", "draft");
    for tick in ticks((end - begin) as f64 / 1e3).into_iter().filter(|ms| *ms * 1e3 <= (end - begin) as f64) {
        let at = LEFT + tick * 1e3 * scale;
        picture.line((at, BOTTOM), (at, BOTTOM + 4.0), "axis-line");
        picture.text((at, BOTTOM + 18.0), "middle", "tick", &short(tick));
    }
    picture.text((LEFT + PLOT / 2.0, BOTTOM + 36.0), "middle", "axis", "milliseconds");
    let mut from = begin;
    for round in shown {
        let to = end_of(round)?;
        picture.line((x(to), 22.0), (x(to), BOTTOM), "grid");
        picture.text((f64::midpoint(x(from), x(to)), 16.0), "middle", "note", &caption(round, x(to) - x(from)));
        from = to;
    }
    // What the draft did during the last round shown is told with the one after it.
    let told = &rounds[first..(first + ROUNDS + 1).min(rounds.len())];
    for span in told.iter().flat_map(|round| &round.lanes) {
        let Some((_, class, name)) = KINDS.iter().find(|(kind, ..)| *kind == span.kind) else { continue };
        let (from, to) = (span.start_us.max(begin), span.end_us.min(end));
        if from < to {
            let drafts = matches!(span.kind, LaneKind::DraftRollout | LaneKind::DraftSerial);
            let y = if drafts { DRAFT } else { TARGET };
            picture.rect(
                (x(from), y),
                (x(to) - x(from), THICK),
                class,
                &format!("{name}: {} µs", span.end_us - span.start_us),
            );
        }
    }
    for message in told.iter().flat_map(|round| &round.messages) {
        let within = |us: u64| (begin..=end).contains(&us);
        if within(message.sent_us) && within(message.taken_us) {
            let (from, to) = match message.kind {
                MessageKind::Proposal => (DRAFT, TARGET + THICK),
                _ => (TARGET + THICK, DRAFT),
            };
            picture.line((x(message.sent_us), from), (x(message.taken_us), to), "message");
        }
    }
    Some(picture.finish(about))
}

/// The first of some rounds in a row: early ones that hold both a hit and a miss, else the second round.
fn pick(rounds: &[Round]) -> Option<usize> {
    let both = |first: &usize| {
        let has = |hit| rounds[*first..*first + ROUNDS].iter().any(|round| round.hit == Some(hit));
        has(true) && has(false)
    };
    (1..rounds.len().saturating_sub(ROUNDS)).find(both).or((rounds.len() > 2).then_some(1))
}

fn end_of(round: &Round) -> Option<u64> {
    round.lanes.iter().filter(|span| span.kind == LaneKind::Accept).map(|span| span.end_us).max()
}

/// As much as there is room for.
fn caption(round: &Round, room: f64) -> String {
    let how = match (round.hit, round.source) {
        (Some(true), Some(Source::Exit)) => "hit (exit)",
        (Some(true), _) => "hit (draft)",
        (Some(false), _) => "miss",
        (None, _) => "no rollout",
    };
    let long = format!("{how}, {} of {} accepted", round.accepted, round.window);
    if room > long.chars().count() as f64 * super::svg::CHARACTER { long } else { how.to_owned() }
}

#[cfg(test)]
mod tests {
    use specula_engine::Span;

    use super::*;

    fn rounds(hits: &[bool]) -> Vec<Round> {
        let round = |(i, hit): (usize, &bool)| {
            let at = 100 * i as u64;
            let span = |kind, from: u64, to: u64| Span { kind, start_us: at + from, end_us: at + to };
            Round {
                tokens: Vec::new(),
                window: 4,
                accepted: 2,
                hit: Some(*hit),
                source: hit.then_some(Source::Exit),
                lanes: vec![span(LaneKind::TargetSuffix, 10, 80), span(LaneKind::Accept, 80, 100)],
                messages: Vec::new(),
            }
        };
        hits.iter().enumerate().map(round).collect()
    }

    #[test]
    fn a_hit_and_a_miss_are_shown_if_there_are_such() {
        assert_eq!(pick(&rounds(&[true, true, true, true, true, true, false, true, true])), Some(3));
        assert_eq!(pick(&rounds(&[true; 9])), Some(1));
        let drawn = draw(&rounds(&[true, true, true, false, true, true]), "lanes").expect("enough rounds");
        assert!(drawn.contains("miss") && drawn.contains("hit (exit)"), "{drawn}");
        assert_eq!(drawn.matches("class=\"suffix\"").count(), ROUNDS);
        assert!(draw(&rounds(&[true, true]), "lanes").is_none(), "too few rounds for a picture");
    }
}
