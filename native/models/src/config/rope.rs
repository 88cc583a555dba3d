//! Rotary positions: how fast each pair of dimensions turns (RoFormer, arXiv:2104.09864), and how models stretch it.

/// What a configuration says of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rope {
    pub(crate) theta: f32,
    pub(crate) scaling: Scaling,
}

/// How frequencies differ from theta's own.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scaling {
    None,
    /// All divided by a factor (position interpolation, arXiv:2306.15595).
    Linear(f32),
    /// Llama 3's: slow ones divided, fast ones kept, a ramp between.
    Llama3 {
        factor: f32,
        low_freq_factor: f32,
        high_freq_factor: f32,
        original_context: f32,
    },
    /// Each divided by a factor of its own: what converters to GGUF make of Llama 3's.
    Factors(Vec<f32>),
}

impl Rope {
    /// Radians per position of each pair of a head's dimensions, `[D / 2]`.
    pub(crate) fn frequencies(&self, head_dim: usize) -> Result<Vec<f32>, String> {
        if !(self.theta.is_finite() && self.theta > 0.0) {
            return Err(format!("a rotary base of {} is not a positive number", self.theta));
        }
        self.scaling.check(head_dim)?;
        let frequency = |i: usize| self.theta.powf(-(2.0 * i as f32) / head_dim as f32);
        Ok((0..head_dim / 2).map(|i| self.scaling.apply(i, frequency(i))).collect())
    }
}

impl Scaling {
    fn check(&self, head_dim: usize) -> Result<(), String> {
        let positive = |name: &str, x: f32| match x.is_finite() && x > 0.0 {
            true => Ok(()),
            false => Err(format!("rope scaling: `{name}` = {x} is not a positive number")),
        };
        match self {
            Self::None => Ok(()),
            Self::Linear(factor) => positive("factor", *factor),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                positive("factor", *factor)?;
                positive("low_freq_factor", *low_freq_factor)?;
                positive("original_max_position_embeddings", *original_context)?;
                if high_freq_factor > low_freq_factor {
                    return positive("high_freq_factor", *high_freq_factor);
                }
                Err(format!(
                    "rope scaling: `high_freq_factor` = {high_freq_factor} must exceed `low_freq_factor` = {low_freq_factor}"
                ))
            }
            Self::Factors(factors) if factors.len() != head_dim / 2 => Err(format!(
                "rope scaling: {} factors for heads of size {head_dim}; half as many are due",
                factors.len()
            )),
            Self::Factors(factors) => factors.iter().try_for_each(|x| positive("rope_freqs.weight", *x)),
        }
    }

    fn apply(&self, index: usize, frequency: f32) -> f32 {
        match self {
            Self::None => frequency,
            Self::Linear(factor) => frequency / factor,
            Self::Factors(factors) => frequency / factors[index],
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                // Turns that the pair makes within the context the model was first trained on.
                let turns = original_context * frequency / (2.0 * std::f32::consts::PI);
                let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                (1.0 - kept) * frequency / factor + kept * frequency
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frequencies(scaling: Scaling) -> Vec<f32> {
        Rope { theta: 500_000.0, scaling }.frequencies(128).expect("valid")
    }

    /// Llama 3.1's own numbers: fast pairs as they were, slow ones eight times slower, the rest between.
    #[test]
    fn llama3_stretches_the_slow_ones() {
        let plain = frequencies(Scaling::None);
        let scaled = frequencies(Scaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 8192.0,
        });
        for (i, (a, b)) in plain.iter().zip(&scaled).enumerate() {
            let wavelength = 2.0 * std::f32::consts::PI / a;
            match wavelength {
                w if w < 8192.0 / 4.0 => assert_eq!(a, b, "{i}"),
                w if w > 8192.0 => assert_eq!(a / 8.0, *b, "{i}"),
                _ => assert!(a / 8.0 < *b && b < a, "{i}"),
            }
        }
        assert!(scaled.is_sorted_by(|a, b| a > b));
    }

    #[test]
    fn impossible_scalings_are_refused() {
        let refused = |scaling| Rope { theta: 1e4, scaling }.frequencies(8).expect_err("impossible");
        assert!(refused(Scaling::Linear(0.0)).contains("`factor` = 0"));
        assert!(refused(Scaling::Factors(vec![1.0; 3])).contains("3 factors"));
        assert!(refused(Scaling::Factors(vec![1.0, 1.0, f32::NAN, 1.0])).contains("rope_freqs"));
        let flat =
            Scaling::Llama3 { factor: 8.0, low_freq_factor: 4.0, high_freq_factor: 4.0, original_context: 8192.0 };
        assert!(refused(flat).contains("`high_freq_factor` = 4"));
        assert!(Rope { theta: -1.0, scaling: Scaling::None }.frequencies(8).is_err());
    }
}
