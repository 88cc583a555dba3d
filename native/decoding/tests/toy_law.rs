//! Over seeds, texts come as often as the model's law says: frequencies against the exact law of a toy whose paths can be
//! enumerated (Pearson's χ²).

mod common;

use std::collections::HashMap;

use common::{Bored, Drafts, Toy, Wrong, decode};
use specula_decoding::{Chain, Row, Sampling, TokenId};

const VOCAB: usize = 6;
const LEN: usize = 3;
const SEEDS: u64 = 30_000;

fn sampling(seed: u64) -> Sampling {
    Sampling { temperature: 0.8, min_p: 0.02, seed, ..Sampling::default() }
}

/// Probability of every text of `LEN` tokens, by the chain rule over processed rows.
fn law() -> HashMap<Vec<TokenId>, f64> {
    let toy = Toy::new(VOCAB, 0.0);
    let prompt = [1, 2, 3];
    let mut texts = HashMap::from([(Vec::new(), 1.0)]);
    for _ in 0..LEN {
        let mut longer = HashMap::new();
        for (text, probability) in texts {
            let mut chain = Chain::new(sampling(0), &prompt, vec![Box::new(Bored::default())]);
            chain.commit(&text).expect("the rule cannot fail");
            let path: Vec<TokenId> = prompt.iter().chain(&text).copied().collect();
            let mut row = Row::new(&toy.row(&path));
            chain.process(&[], 0, &mut [&mut row]).expect("the rule cannot fail");
            let z: f64 = row.logits().iter().map(|l| f64::from(*l).exp()).sum();
            for (token, logit) in row.logits().iter().enumerate().filter(|(_, l)| l.is_finite()) {
                let mut next = text.clone();
                next.push(token as TokenId);
                longer.insert(next, probability * f64::from(*logit).exp() / z);
            }
        }
        texts = longer;
    }
    texts
}

/// (χ² − degrees of freedom) / √(2 · degrees of freedom): about normal if the frequencies follow the law.
fn surprise(drafts: Drafts, wrong: Option<Wrong>) -> f64 {
    let mut counts: HashMap<Vec<TokenId>, f64> = HashMap::new();
    for seed in 0..SEEDS {
        *counts.entry(decode(VOCAB, &sampling(seed), LEN, drafts, wrong)).or_default() += 1.0;
    }
    // Rare texts share a bin, so that every bin is expected often enough.
    let (mut chi, mut bins, mut rare) = (0.0, 0.0, (0.0, 0.0));
    let law = law();
    assert!((law.values().sum::<f64>() - 1.0).abs() < 1e-6, "a law sums to one");
    for (text, probability) in &law {
        let (expected, seen) = (probability * SEEDS as f64, counts.remove(text).unwrap_or(0.0));
        if expected < 8.0 {
            rare = (rare.0 + expected, rare.1 + seen);
        } else {
            chi += (seen - expected).powi(2) / expected;
            bins += 1.0;
        }
    }
    if rare.0 > 0.0 {
        chi += (rare.1 - rare.0).powi(2) / rare.0;
        bins += 1.0;
    }
    assert!(wrong.is_some() || counts.is_empty(), "texts outside the law: {counts:?}");
    let freedom = bins - 1.0;
    (chi - freedom) / (2.0 * freedom).sqrt()
}

#[test]
fn frequencies_follow_the_law() {
    for drafts in [Drafts::Chain(0), Drafts::Chain(2), Drafts::Tree(2)] {
        let surprise = surprise(drafts, None);
        assert!(surprise < 4.0, "{drafts:?}: {surprise:.1} standard deviations from the law");
    }
}

#[test]
fn a_verifier_that_emits_draft_tokens_breaks_the_law() {
    let surprise = surprise(Drafts::Chain(2), Some(Wrong::EmitsTheDraftToken));
    assert!(surprise > 20.0, "only {surprise:.1} standard deviations from the law");
}
