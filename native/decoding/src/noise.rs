//! Position-keyed Gumbel noise: the same number for the same (seed, position, token, choice) on every machine, so that
//! target, draft and exit rank their candidates with the noise the target will draw with.

use multiversion::multiversion;

use crate::TokenId;

/// What the generator's fourth counter word says a number is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// The target's own draw (and the coupled guesses of draft and exit).
    Draw = 0,
}

/// Smallest value [`Noise::gumbel`] returns, rounded down.
pub const GUMBEL_MIN: f32 = -2.9;
/// Largest value [`Noise::gumbel`] returns, rounded up.
pub const GUMBEL_MAX: f32 = 16.7;

/// Gumbel noise of one choice of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noise {
    seed: u64,
    choice: u32,
}

impl Noise {
    /// Noise of choice `choice` (0 unless a request asks for several) of a request with this seed.
    pub fn new(seed: u64, choice: u32) -> Self {
        Self { seed, choice }
    }

    /// Seed of the request.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Choice of the request.
    pub fn choice(&self) -> u32 {
        self.choice
    }

    /// G = −ln(−ln u) for one token at one position (counted from the first prompt token), with
    /// u = (2k + 1)·2⁻²⁴ and k the top 23 bits of Philox4x32-10 keyed by the seed, counter (position, token, choice,
    /// purpose). In (−2.9, 16.7).
    #[inline]
    pub fn gumbel(&self, position: u32, token: TokenId) -> f32 {
        self.gumbels(position, [token])[0]
    }

    /// [`Noise::gumbel`] of several tokens. Loops without closures, and inlined: only so does the compiler make wide
    /// instructions of them for callers that have some.
    #[inline(always)]
    fn gumbels<const N: usize>(&self, position: u32, tokens: [TokenId; N]) -> [f32; N] {
        let counter = [[position; N], tokens, [self.choice; N], [Purpose::Draw as u32; N]];
        let bits = philox(counter, [self.seed as u32, (self.seed >> 32) as u32])[0];
        let mut gumbels = [0.0; N];
        for i in 0..N {
            let k = bits[i] >> 9;
            // Below 2²⁴: exact, and signed numbers are turned to floats in one instruction.
            let u = (2 * k + 1) as i32 as f32 * (1.0 / 16_777_216.0);
            gumbels[i] = -ln(-ln(u));
        }
        gumbels
    }
}

/// Tokens whose noise is made at once.
pub(crate) const BLOCK: usize = 64;
/// As many of them as go through the generator side by side.
const LANES: usize = 16;

/// [`Noise::gumbel`] of the tokens from `first` on at one position, several at a time. No instruction rounds otherwise than
/// another: products and sums are never fused.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2"))]
pub(crate) fn gumbel_block(noise: Noise, position: u32, first: TokenId) -> [f32; BLOCK] {
    let mut block = [0.0; BLOCK];
    for chunk in 0..BLOCK / LANES {
        let mut tokens = [0; LANES];
        for (i, token) in tokens.iter_mut().enumerate() {
            *token = first.wrapping_add((chunk * LANES + i) as TokenId);
        }
        block[chunk * LANES..(chunk + 1) * LANES].copy_from_slice(&noise.gumbels(position, tokens));
    }
    block
}

/// Philox4x32 with ten rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", §4.3), of several counters,
/// word by word.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "as for `gumbels`")]
fn philox<const N: usize>(mut counter: [[u32; N]; 4], mut key: [u32; 2]) -> [[u32; N]; 4] {
    for round in 0..10 {
        if round > 0 {
            key[0] = key[0].wrapping_add(0x9E37_79B9);
            key[1] = key[1].wrapping_add(0xBB67_AE85);
        }
        for i in 0..N {
            let a = u64::from(counter[0][i]) * 0xD251_1F53;
            let b = u64::from(counter[2][i]) * 0xCD9E_8D57;
            counter[0][i] = (b >> 32) as u32 ^ counter[1][i] ^ key[0];
            counter[1][i] = b as u32;
            counter[2][i] = (a >> 32) as u32 ^ counter[3][i] ^ key[1];
            counter[3][i] = a as u32;
        }
    }
    counter
}

/// Natural logarithm of a positive normal f32 by one stated polynomial (Cephes `logf`, degree 8 on [√½, √2)), every
/// operation rounded to f32, no fused multiply-add: the same bits on every device. Within 2 ulp of the true value.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 23) as i32 - 126) as f32;
    let mut m = f32::from_bits((bits & 0x007F_FFFF) | 0x3F00_0000);
    if m < std::f32::consts::FRAC_1_SQRT_2 {
        exponent -= 1.0;
        m = m + m - 1.0;
    } else {
        m -= 1.0;
    }
    let z = m * m;
    let mut y = 7.037_683_6e-2_f32;
    for c in [
        -1.151_461e-1,
        1.167_699_87e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ] {
        y = y * m + c;
    }
    y = y * m * z;
    y += exponent * -2.121_944_4e-4;
    y += -0.5 * z;
    m + y + exponent * 0.693_359_4
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the Random123 distribution (kat_vectors).
    #[test]
    fn philox_matches_the_published_vectors() {
        let one = |counter: [u32; 4], key| philox(counter.map(|word| [word]), key).map(|word| word[0]);
        assert_eq!(one([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(one([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            one([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn ln_is_within_two_ulp() {
        for i in 0..(1u32 << 16) {
            let x = f32::from_bits(0x3300_0000 + i * 0x0D80 / 4);
            let want = f64::from(x).ln();
            let got = ln(x);
            let ulp = (f64::from(got.abs()).log2().floor() - 23.0).exp2();
            assert!((f64::from(got) - want).abs() <= 2.0 * ulp, "ln({x}) = {got}, want {want}");
        }
    }

    #[test]
    fn noise_spans_the_stated_interval_and_has_gumbel_moments() {
        assert!(-ln(-ln(1.0 / 16_777_216.0)) > GUMBEL_MIN);
        assert!(-ln(-ln(16_777_215.0 / 16_777_216.0)) < GUMBEL_MAX);
        let noise = Noise::new(7, 0);
        let n = 200_000;
        let values: Vec<f64> = (0..n).map(|i| f64::from(noise.gumbel(i / 1000, i % 1000))).collect();
        let mean = values.iter().sum::<f64>() / f64::from(n);
        let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / f64::from(n);
        assert!((mean - 0.577_215_66).abs() < 0.01, "mean {mean}");
        assert!((var - 1.644_934).abs() < 0.03, "variance {var}");
    }

    #[test]
    fn blocks_are_what_one_after_the_other_is() {
        let noise = Noise::new(0x1234_5678_9abc_def0, 2);
        for (position, first) in [(0, 0), (1000, 64), (u32::MAX, u32::MAX - 20)] {
            let block = gumbel_block(noise, position, first);
            for (i, made) in block.into_iter().enumerate() {
                assert_eq!(made.to_bits(), noise.gumbel(position, first.wrapping_add(i as u32)).to_bits());
            }
        }
    }

    #[test]
    fn every_key_part_changes_the_noise() {
        let base = Noise::new(1, 0).gumbel(5, 6);
        assert_ne!(base, Noise::new(2, 0).gumbel(5, 6));
        assert_ne!(base, Noise::new(1 << 40 | 1, 0).gumbel(5, 6));
        assert_ne!(base, Noise::new(1, 1).gumbel(5, 6));
        assert_ne!(base, Noise::new(1, 0).gumbel(6, 6));
        assert_ne!(base, Noise::new(1, 0).gumbel(5, 7));
    }
}
