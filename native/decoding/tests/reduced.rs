//! Draws from reduced rows are those from whole rows, or none.

use specula_decoding::reduced::LOG_Z_ERROR;
use specula_decoding::{Chain, Logits, Noise, Penalties, Reduced, Row, Sampling, TokenId};

/// Rows as models have them: a few likely tokens, a long tail, equals here and there.
fn rows(seed: u64, count: usize, vocab: usize, spread: f32) -> Logits {
    let noise = Noise::new(seed, 7);
    let logit = |i: usize| {
        let value = noise.gumbel(i as u32 / vocab as u32, (i % vocab) as u32) * spread;
        if i.is_multiple_of(5) { (value * 4.0).round() / 4.0 } else { value }
    };
    Logits::new((0..count * vocab).map(logit).collect(), vocab)
}

/// The chain's own draw from the whole row.
fn whole(chain: &mut Chain, row: &[f32], depth: usize) -> TokenId {
    let mut row = Row::new(row);
    chain.process(&vec![0; depth], depth, &mut [&mut row]).expect("no plugin");
    chain.draw(&row, depth).expect("support")
}

fn samplings() -> Vec<Sampling> {
    let plain = Sampling { seed: 11, ..Sampling::default() };
    let mut all = vec![Sampling { temperature: 0.0, ..plain.clone() }];
    for temperature in [0.3, 0.7, 1.0, 1.7] {
        let at = Sampling { temperature, ..plain.clone() };
        all.push(at.clone());
        all.push(Sampling { top_k: 1, ..at.clone() });
        all.push(Sampling { top_k: 40, ..at.clone() });
        all.push(Sampling { top_p: 0.2, ..at.clone() });
        all.push(Sampling { top_p: 0.9, ..at.clone() });
        all.push(Sampling { min_p: 0.05, ..at.clone() });
        all.push(Sampling { top_k: 20, top_p: 0.8, min_p: 0.02, ..at });
    }
    all
}

#[test]
fn a_draw_from_a_reduced_row_is_that_from_the_whole_row() {
    const ROWS: usize = 6;
    let (mut told, mut asked) = (0, 0);
    for sampling in samplings() {
        for (seed, spread) in [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0)] {
            let rows = rows(seed, ROWS, 3000, spread);
            let mut chain = Chain::new(sampling.clone(), &[5, 6], Vec::new());
            let reduction = chain.reduction(0..ROWS, 3, 8).expect("no rule needs whole rows");
            for (depth, known) in reduction.of(&rows).iter().enumerate() {
                let want = whole(&mut chain, rows.row(depth), depth);
                asked += 1;
                if let Some(drawn) = chain.draw_reduced(known, depth) {
                    told += 1;
                    assert_eq!(drawn, want, "{sampling:?}, seed {seed}, row {depth}");
                }
            }
        }
    }
    assert!(told * 4 > asked * 3, "most draws are told: {told} of {asked}");
}

/// A device sums in f32: whatever it gives within its error, no other token is drawn.
#[test]
fn sums_that_are_a_little_off_change_no_draw() {
    let sampling = Sampling { seed: 3, top_p: 0.85, temperature: 0.8, ..Sampling::default() };
    let (mut told, mut doubted) = (0, 0);
    for seed in 0..60 {
        let rows = rows(seed, 4, 500, 2.5);
        let mut chain = Chain::new(sampling.clone(), &[1], Vec::new());
        let reduction = chain.reduction(0..4, 1, 0).expect("no rule needs whole rows");
        for (depth, known) in reduction.of(&rows).into_iter().enumerate() {
            for off in [-1.0, -0.5, 0.5, 1.0] {
                let known = Reduced { log_z: known.log_z + off * 0.99 * LOG_Z_ERROR, ..known.clone() };
                match chain.draw_reduced(&known, depth) {
                    Some(drawn) => {
                        told += 1;
                        assert_eq!(drawn, whole(&mut chain, rows.row(depth), depth), "seed {seed}, row {depth}");
                    }
                    None => doubted += 1,
                }
            }
        }
    }
    assert!(told > doubted, "{told} told, {doubted} not");
}

#[test]
fn rules_that_read_whole_rows_get_them() {
    let penalised = Penalties { presence: 0.5, ..Penalties::default() };
    let plain = Sampling::default();
    for sampling in [
        Sampling { penalties: penalised, ..plain.clone() },
        Sampling { logit_bias: vec![(1, 1.0)], ..plain.clone() },
        Sampling { top_k: 1000, ..plain.clone() },
        Sampling { min_tokens: 1, ..plain.clone() },
    ] {
        assert_eq!(Chain::new(sampling.clone(), &[1], Vec::new()).reduction(0..1, 1, 0), None, "{sampling:?}");
    }
    let mut chain = Chain::new(Sampling { min_tokens: 1, ..plain }, &[1], Vec::new());
    chain.commit(&[2]).expect("no plugin");
    assert!(chain.reduction(0..1, 1, 0).is_some_and(|reduction| reduction.positions == [2]));
}

/// What the exit and the draft guess with.
#[test]
fn the_ranking_begins_with_the_draw() {
    for sampling in samplings() {
        let rows = rows(9, 3, 800, 2.0);
        let chain = Chain::new(sampling.clone(), &[5], Vec::new());
        let reduction = chain.reduction(0..3, 5, 0).expect("no rule needs whole rows");
        for (depth, known) in reduction.of(&rows).iter().enumerate() {
            let ranked = chain.ranked_reduced(known, depth, 5);
            assert!(ranked.len() <= 5 && ranked.is_sorted_by(|a, b| a.1 >= b.1), "{ranked:?}");
            if let Some(drawn) = chain.draw_reduced(known, depth) {
                assert_eq!(ranked[0].0, drawn, "{sampling:?}");
            }
        }
    }
}
