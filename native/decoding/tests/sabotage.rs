//! The equality on which everything rests, and proof that the test of it can fail: each wrong verifier breaks it.

mod common;

use std::sync::Arc;

use common::{Drafts, Wrong, decode};
use specula_decoding::{EndConditions, Ends, FinishReason, Penalties, Sampling, TokenBytes, TokenId};

const VOCAB: usize = 24;

/// Runs of 40 tokens over seeds, windows and trees that differ from plain decoding at this temperature.
fn differences(temperature: f32, wrong: Option<Wrong>) -> usize {
    let shapes = [1, 2, 5, 9].map(Drafts::Chain).into_iter().chain([1, 4].map(Drafts::Tree));
    let shapes: Vec<Drafts> = shapes.collect();
    let runs = (0..20).flat_map(|seed| shapes.iter().map(move |shape| (seed, *shape)));
    runs.filter(|(seed, shape)| {
        let penalties = Penalties { frequency: 0.3, ..Penalties::default() };
        let sampling = Sampling { temperature, seed: *seed, penalties, top_p: 0.95, ..Sampling::default() };
        decode(VOCAB, &sampling, 40, *shape, wrong) != decode(VOCAB, &sampling, 40, Drafts::Chain(0), None)
    })
    .count()
}

#[test]
fn drafting_changes_nothing() {
    for temperature in [0.0, 0.7, 1.0] {
        assert_eq!(differences(temperature, None), 0, "temperature {temperature}");
    }
}

#[test]
fn every_sabotage_is_noticed() {
    for wrong in [
        Wrong::EmitsTheDraftToken,
        Wrong::DoesNotStop,
        Wrong::KeysNoiseByRound,
        Wrong::KeepsTheCache,
        Wrong::KeepsRuleState,
    ] {
        for temperature in [0.0, 0.7, 1.0] {
            // Without noise its key does not matter.
            let harmless = wrong == Wrong::KeysNoiseByRound && temperature == 0.0;
            assert_eq!(differences(temperature, Some(wrong)) == 0, harmless, "{wrong:?} at temperature {temperature}");
        }
    }
}

/// What is shown of a text judged in rounds of `round` tokens, and why it ended. Who forgets begins each round afresh.
fn shown(tokens: &[TokenId], round: usize, forgets: bool) -> (String, Option<FinishReason>) {
    // Two letters a token: stop strings begin in one and end in another.
    let letters = |t: u8| [b'a' + t % 3, b'a' + t / 3 % 3].to_vec().into_boxed_slice();
    let bytes = Arc::new(TokenBytes((0..VOCAB as u8).map(letters).collect()));
    let conditions = EndConditions {
        stop_strings: vec!["abcab".into(), "ccc".into()],
        max_tokens: tokens.len(),
        context_left: tokens.len(),
        ..EndConditions::default()
    };
    let fresh = || Ends::new(conditions.clone(), bytes.clone(), Vec::new());
    let mut ends = fresh();
    let mut text = String::new();
    for window in tokens.chunks(round) {
        if forgets {
            ends = fresh();
        }
        let judged = ends.judge(window).expect("nothing is plugged in");
        text.extend(judged.pieces);
        if judged.reason.is_some() {
            return (text, judged.reason);
        }
    }
    (text, None)
}

#[test]
fn text_held_back_is_kept_over_rounds_and_forgetting_it_is_noticed() {
    let mut noticed = 0;
    for seed in 0..20 {
        let sampling = Sampling { seed, ..Sampling::default() };
        let tokens = decode(VOCAB, &sampling, 40, Drafts::Chain(0), None);
        let one_by_one = shown(&tokens, 1, false);
        for round in [2, 3, 5, 9] {
            assert_eq!(shown(&tokens, round, false), one_by_one, "rounds of {round}, seed {seed}");
            noticed += usize::from(shown(&tokens, round, true) != one_by_one);
        }
    }
    assert!(noticed > 40, "{noticed}");
}
