//! The equality on which everything rests, and proof that the test of it can fail: each wrong verifier breaks it.

mod common;

use common::{Drafts, Wrong, decode};
use specula_decoding::{Penalties, Sampling};

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
