//! Confidence in a ratio of speeds: the paired bootstrap over questions (Efron 1979).

/// Resamples drawn.
const RESAMPLES: usize = 4000;
/// Two-sided.
const CONFIDENCE: f64 = 0.95;

/// Mean of the first over mean of the second.
pub(crate) fn ratio_of_means(pairs: &[(f64, f64)]) -> f64 {
    let sum = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>();
    sum(|pair| pair.0) / sum(|pair| pair.1)
}

/// 95 % interval of [`ratio_of_means`], by the percentiles of resamples of whole pairs: what a question does to both speeds
/// stays together. `None` for fewer than two pairs. The draws are fixed, so that the same answers give the same interval.
pub(crate) fn interval(pairs: &[(f64, f64)]) -> Option<[f64; 2]> {
    if pairs.len() < 2 {
        return None;
    }
    let mut random = SplitMix(0x5eed);
    let mut ratios: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let drawn: Vec<(f64, f64)> = pairs.iter().map(|_| pairs[random.below(pairs.len())]).collect();
            ratio_of_means(&drawn)
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let at = |share: f64| ratios[(share * (RESAMPLES - 1) as f64).round() as usize];
    Some([at((1.0 - CONFIDENCE) / 2.0), at((1.0 + CONFIDENCE) / 2.0)])
}

/// SplitMix64 (Steele 2014).
struct SplitMix(u64);

impl SplitMix {
    /// Uniform below `bound`, but for a bias of bound / 2⁶⁴.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(z ^ (z >> 31)) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ratios_leave_no_doubt() {
        let pairs: Vec<(f64, f64)> = (1..20).map(|i| (2.0 * f64::from(i), f64::from(i))).collect();
        let [low, high] = interval(&pairs).expect("enough pairs");
        assert!((low - 2.0).abs() < 1e-9 && (high - 2.0).abs() < 1e-9, "{low} {high}");
    }

    #[test]
    fn the_interval_is_as_wide_as_theory_says() {
        // 100 speeds of mean 1.5 and standard deviation 0.5 over a constant: 1.96 · 0.5 / √100 on either side.
        let pairs: Vec<(f64, f64)> = (0..100).map(|i| (if i % 2 == 0 { 1.0 } else { 2.0 }, 1.0)).collect();
        let [low, high] = interval(&pairs).expect("enough pairs");
        assert!((ratio_of_means(&pairs) - 1.5).abs() < 1e-9);
        assert!((1.5 - low - 0.098).abs() < 0.02 && (high - 1.5 - 0.098).abs() < 0.02, "{low} {high}");
        assert_eq!(interval(&pairs), Some([low, high]), "the same answers, the same interval");
    }

    #[test]
    fn one_question_tells_no_interval() {
        assert_eq!(interval(&[(2.0, 1.0)]), None);
    }
}
