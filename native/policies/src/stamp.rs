//! How far an acceptance policy departs from the target: it judges windows whose rows are known, drawn again and again with
//! other noise, and what comes of them is held against the target's own draws at the same places.

use std::sync::Arc;

use serde_json::Value;
use specula_decoding::{Acceptance, Noise, NoiseRows, PolicyError, Row, TokenBytes, TokenId, WindowStats, draw};

use crate::facts::Stamp;
use crate::{ModelInfo, Plugin};

/// Entries of a row.
const VOCABULARY: u32 = 64;
/// Draft tokens in a window.
const WINDOW: usize = 4;
const WINDOWS: usize = 1024;
/// From one window's first context to the next one's; has no factor in common with their number.
const STRIDE: usize = 7;
/// How peaked the target's rows are: factors of Gumbel-distributed logits.
const SHARPNESS: [f32; 5] = [0.5, 1.0, 2.0, 4.0, 8.0];
/// How much of the target's row is in the draft's.
const AGREEMENT: [f32; 3] = [0.95, 0.7, 0.3];
/// Of the reference set; any would do, but it must stay.
const SEED: u64 = 0x05EC_0001;
/// Positions whose noise makes rows, beyond those that are drawn at.
const ROWS_FROM: u32 = 1 << 30;

/// A pair of rows, and how often each token came there: by the policy, and by the target's own draw.
struct Context {
    target: Row,
    draft: Row,
    came: Vec<u32>,
    own: Vec<u32>,
}

/// Measures a plugin that is an acceptance policy.
///
/// # Errors
/// A failure of the plugin.
pub(crate) fn measure(plugin: &Arc<Plugin>, config: &Value) -> Result<Stamp, PolicyError> {
    let bytes = (0..VOCABULARY).map(|token| vec![b' ' + token as u8].into_boxed_slice()).collect();
    let model = ModelInfo {
        vocab_size: VOCABULARY,
        end_tokens: vec![0],
        token_bytes: Arc::new(TokenBytes(bytes)),
        max_window: WINDOW as u32,
    };
    let mut policy = plugin.open_acceptance(&model, config, &[1])?.policy;
    run(&mut *policy)
}

fn run(policy: &mut dyn Acceptance) -> Result<Stamp, PolicyError> {
    let noise = Noise::new(SEED, 0);
    let rows = NoiseRows::new(noise);
    let mut contexts = contexts(noise);
    let (mut position, mut tokens, mut deviations) = (1, 0_u64, 0_u64);
    for window in 0..WINDOWS {
        // One more than the window is long: the last row gives what follows it.
        let path: Vec<usize> = (0..=WINDOW).map(|i| (window * STRIDE + i) % contexts.len()).collect();
        let mut stats = WindowStats { position, ..WindowStats::default() };
        let mut own = Vec::new();
        for (i, &context) in path.iter().enumerate() {
            let Context { target, draft, .. } = &contexts[context];
            let at = Some((&rows, position + i as u32));
            own.push(draw::own_draw(target, at).unwrap_or_default());
            if i < WINDOW {
                // As the draft of a mirror does: with the noise that the target will draw with.
                let guess = draw::own_draw(draft, at).unwrap_or_default();
                stats.push(target, guess, own[i]);
                stats.log_q.push(draft.logits()[guess as usize] - draft.log_sum_exp());
            }
        }
        let kept = policy.judge(&stats)?.min(WINDOW);
        let mut committed: Vec<TokenId> = stats.draft[..kept].to_vec();
        committed.push(own[kept]);
        for (i, &token) in committed.iter().enumerate() {
            let context = &mut contexts[path[i]];
            context.came[token as usize] += 1;
            context.own[own[i] as usize] += 1;
            tokens += 1;
            deviations += u64::from(token != own[i]);
        }
        policy.commit(&committed)?;
        position += committed.len() as u32;
    }
    let apart: u64 =
        contexts.iter().map(|c| c.came.iter().zip(&c.own).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>()).sum();
    Ok(Stamp {
        exact: deviations == 0,
        windows: WINDOWS as u64,
        tokens,
        deviation: deviations as f64 / tokens as f64,
        total_variation: apart as f64 / 2.0 / tokens as f64,
    })
}

fn contexts(noise: Noise) -> Vec<Context> {
    let mut position = ROWS_FROM;
    let mut logits = |sharpness: f32| {
        position += 1;
        (0..VOCABULARY).map(|token| noise.gumbel(position, token) * sharpness).collect::<Vec<f32>>()
    };
    let mut contexts = Vec::new();
    for sharpness in SHARPNESS {
        for agreement in AGREEMENT {
            let (target, other) = (logits(sharpness), logits(sharpness));
            let draft: Vec<f32> =
                target.iter().zip(&other).map(|(t, o)| agreement * t + (1.0 - agreement) * o).collect();
            contexts.push(Context {
                target: Row::new(&target),
                draft: Row::new(&draft),
                came: vec![0; VOCABULARY as usize],
                own: vec![0; VOCABULARY as usize],
            });
        }
    }
    contexts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps what a function says.
    struct Policy(fn(&WindowStats) -> usize);

    impl Acceptance for Policy {
        fn judge(&mut self, window: &WindowStats) -> Result<usize, PolicyError> {
            Ok((self.0)(window))
        }

        fn commit(&mut self, _tokens: &[TokenId]) -> Result<(), PolicyError> {
            Ok(())
        }
    }

    fn stamp(policy: fn(&WindowStats) -> usize) -> Stamp {
        run(&mut Policy(policy)).expect("these do not fail")
    }

    #[test]
    fn own_draw_and_whoever_keeps_less_are_exact() {
        for policy in [WindowStats::own_accepted as fn(&WindowStats) -> usize, |_| 0, |w| w.own_accepted().min(1)] {
            let stamp = stamp(policy);
            assert_eq!((stamp.exact, stamp.deviation, stamp.total_variation), (true, 0.0, 0.0));
        }
    }

    #[test]
    fn who_keeps_more_departs_and_the_more_the_further() {
        let likely = stamp(|w| w.log_p.iter().take_while(|p| **p > -1.0).count().max(w.own_accepted()));
        let all = stamp(|w| w.draft.len());
        assert!(!likely.exact && !all.exact);
        assert!(
            0.0 < likely.deviation && likely.deviation < all.deviation && all.deviation < 1.0,
            "{likely:?} {all:?}"
        );
        assert!(0.0 < likely.total_variation && likely.total_variation < all.total_variation, "{likely:?} {all:?}");
        assert!(all.total_variation <= all.deviation, "tokens that trade places cancel: {all:?}");
    }

    #[test]
    fn a_lie_about_one_token_in_a_hundred_is_found() {
        let rarely = stamp(|w| if w.position % 100 < 3 { w.draft.len() } else { w.own_accepted() });
        assert!(!rarely.exact && rarely.deviation < 0.05, "{rarely:?}");
    }
}
