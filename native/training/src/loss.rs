//! The one loss, against a teacher's row p of which the top m tokens are known one by one and the rest as one probability:
//! the Kullback-Leibler divergence of the learner's row q from it, and, for a share of the whole, −ln α, where α is the
//! probability that the two draw the same token with the same noise. Small drafts that cannot have both come nearer to
//! what counts by the latter (arXiv:2602.23881, there with the α of the ratio test). Plain text is a teacher that is
//! certain: m = 1, and nothing is left.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, Var, bail};
use candle_nn::ops::log_softmax;
use rayon::prelude::*;
use specula_decoding::TokenId;

/// What R rows of a batch should be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Goals {
    /// m.
    top: usize,
    /// Part of the loss that is −ln α, 0 to 1.
    acceptance: f32,
    /// `[R, m]`, each row's most likely tokens.
    tokens: Vec<TokenId>,
    /// `[R, m]`, their probabilities.
    probabilities: Vec<f32>,
    /// Weight of each row in the mean, `[R]`.
    weights: Vec<f32>,
}

/// Below this a probability counts as this: keeps logarithms finite.
const LEAST: f32 = 1e-9;

impl Goals {
    pub(crate) fn new(top: usize, acceptance: f32) -> Self {
        Self { top, acceptance, ..Self::default() }
    }

    /// Adds a row; `tokens` and `probabilities` have m entries.
    pub(crate) fn push(&mut self, tokens: &[TokenId], probabilities: &[f32], weight: f32) {
        self.tokens.extend_from_slice(tokens);
        self.probabilities.extend_from_slice(probabilities);
        self.weights.push(weight);
    }

    /// R.
    pub(crate) fn rows(&self) -> usize {
        self.weights.len()
    }

    /// Weighted mean over rows of the loss of softmax(`logits`) `[R, V]`.
    pub(crate) fn loss(self, logits: &Tensor) -> Result<Tensor> {
        if self.rows() != logits.dim(0)? {
            bail!("{} goals for {} rows", self.rows(), logits.dim(0)?);
        }
        if logits.device().is_cpu() {
            logits.contiguous()?.apply_op1(Fused { goals: self, slope: Mutex::new(None) })
        } else {
            self.composed(logits)
        }
    }

    /// The loss, and its gradient by the logits `[R, V]`.
    pub(crate) fn slope(self, logits: &Tensor) -> Result<(Tensor, Tensor)> {
        let logits = Var::from_tensor(logits)?;
        let loss = self.loss(&logits)?;
        let slope = loss.backward()?.remove(&logits);
        Ok((loss.detach(), slope.ok_or_else(|| candle_core::Error::msg("a loss without a gradient"))?))
    }

    /// The same from candle's own operations, for devices that [`Fused`] has no code for.
    fn composed(&self, logits: &Tensor) -> Result<Tensor> {
        let device = logits.device();
        let shape = (self.rows(), self.top);
        let tokens = Tensor::from_slice(&self.tokens, shape, device)?;
        let p = Tensor::from_slice(&self.probabilities, shape, device)?;
        let weights = Tensor::from_slice(&self.weights, self.rows(), device)?;
        let log_q = log_softmax(logits, D::Minus1)?.gather(&tokens, 1)?;
        let rest = |sum: Tensor| (1.0 - sum)?.maximum(f64::from(LEAST));
        let (p_rest, q_rest) = (rest(p.sum(1)?)?, rest(log_q.exp()?.sum(1)?)?);
        let known = (&p * (p.maximum(f64::from(LEAST))?.log()? - &log_q)?)?.sum(1)?;
        // A goal that leaves nothing to the others asks nothing of them.
        let others = p_rest.gt(1e-6)?.to_dtype(p_rest.dtype())?;
        let unknown = ((&p_rest * others)? * (p_rest.log()? - q_rest.log()?)?)?;
        let mut losses = (known + unknown)?;
        if self.acceptance > 0.0 {
            let all = |known: &Tensor, rest: &Tensor| -> Result<Tensor> {
                let known = known.maximum(f64::from(LEAST))?;
                Tensor::cat(&[&known, &rest.unsqueeze(1)?], 1)?.log()
            };
            let odds = |log: Tensor| log.unsqueeze(1)?.broadcast_sub(&log.unsqueeze(2)?);
            let most = odds(all(&p, &p_rest)?)?.maximum(&odds(all(&log_q.exp()?, &q_rest)?)?)?;
            let alpha = most.exp()?.sum(2)?.recip()?.narrow(1, 0, self.top)?.sum(1)?;
            let share = f64::from(self.acceptance);
            losses = ((losses * (1.0 - share))? - (alpha.log()? * share)?)?;
        }
        (losses * &weights)?.sum_all()? / self.total()
    }

    fn total(&self) -> f64 {
        self.weights.iter().map(|w| f64::from(*w)).sum::<f64>().max(f64::from(f32::MIN_POSITIVE))
    }

    /// Loss of row `r` with `logits`, and its slope by them into `slope`, both unweighted.
    fn row(&self, r: usize, logits: &[f32], slope: &mut [f32]) -> f32 {
        let at = r * self.top..(r + 1) * self.top;
        let (tokens, p) = (&self.tokens[at.clone()], &self.probabilities[at]);
        let max = in_lanes(logits, f32::NEG_INFINITY, |a, b| if a > b { a } else { b });
        slope.iter_mut().zip(logits).for_each(|(q, logit)| *q = exp(*logit - max));
        let sum = in_lanes(slope, 0.0, |a, b| a + b);
        let inverse = 1.0 / sum;
        let q: Vec<f32> = tokens.iter().map(|token| (logits[*token as usize] - max).exp() * inverse).collect();
        let left = |known: &[f32]| (1.0 - known.iter().sum::<f32>()).max(LEAST);
        let rest = Odds { p: left(p), q: left(&q) };
        let known = p.iter().zip(&q).map(|(p, q)| Odds { p: p.max(LEAST), q: q.max(LEAST) });
        let odds: Vec<Odds> = known.chain([rest]).collect();
        let log_sum = sum.ln();
        // Slopes by ln q of each known token and of the rest.
        let mut slopes = vec![0.0; odds.len()];
        let mut loss = 0.0;
        for ((token, p), slope) in tokens.iter().zip(p).zip(&mut slopes) {
            loss += p * (p.max(LEAST).ln() - (logits[*token as usize] - max - log_sum));
            *slope = -p;
        }
        // Where the known tokens are all there is, the others are only to vanish.
        if rest.p > 1e-6 {
            loss += rest.p * (rest.p.ln() - rest.q.ln());
            slopes[self.top] = -rest.p;
        }
        if self.acceptance > 0.0 {
            let share = self.acceptance;
            loss *= 1.0 - share;
            slopes.iter_mut().for_each(|slope| *slope *= 1.0 - share);
            loss += share * unaccepted(&odds, share, &mut slopes);
        }
        let all: f32 = slopes.iter().sum();
        let others = slopes[self.top] / rest.q - all;
        slope.iter_mut().for_each(|q| *q *= inverse * others);
        for ((token, q), known) in tokens.iter().zip(q).zip(slopes) {
            slope[*token as usize] = known - q * all;
        }
        loss
    }
}

/// What the teacher and the learner give a token, or all those that the teacher does not name.
#[derive(Clone, Copy)]
struct Odds {
    p: f32,
    q: f32,
}

/// −ln α; adds `share` of its slopes by the ln q. α is the sum over tokens i of 1 / Σⱼ max(pⱼ / pᵢ, qⱼ / qᵢ): that both
/// exponential races under one noise are won by i (arXiv:2408.07978). The last odds are of many tokens: if they win both
/// races, it need not be by the same one, so they do not count.
fn unaccepted(odds: &[Odds], share: f32, slopes: &mut [f32]) -> f32 {
    let winners = &odds[..odds.len() - 1];
    let alpha_of = |i: &Odds| {
        let (of_p, of_q) = (1.0 / i.p, 1.0 / i.q);
        1.0 / odds.iter().map(|j| (j.p * of_p).max(j.q * of_q)).sum::<f32>()
    };
    let alphas: Vec<f32> = winners.iter().map(alpha_of).collect();
    let alpha: f32 = alphas.iter().sum();
    for (i, (winner, own)) in winners.iter().zip(&alphas).enumerate() {
        let (of_p, of_q, factor) = (1.0 / winner.p, 1.0 / winner.q, share / alpha * own * own);
        let mut lost = 0.0;
        for (slope, odds) in slopes.iter_mut().zip(odds) {
            let ratio = odds.q * of_q;
            let change = if ratio > odds.p * of_p { factor * ratio } else { 0.0 };
            *slope += change;
            lost += change;
        }
        slopes[i] -= lost;
    }
    -alpha.ln()
}

/// The loss with its slope computed in one go: as single operations it takes a dozen passes over `[R, V]`.
struct Fused {
    goals: Goals,
    slope: Mutex<Option<Vec<f32>>>,
}

impl CustomOp1 for Fused {
    fn name(&self) -> &'static str {
        "loss"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, vocab) = layout.shape().dims2()?;
        let (CpuStorage::F32(data), Some((from, to))) = (storage, layout.contiguous_offsets()) else {
            bail!("the loss needs contiguous f32, got {layout:?}");
        };
        let logits = &data[from..to];
        let mut slope = vec![0.0; logits.len()];
        let total = self.goals.total() as f32;
        let rows = slope.par_chunks_exact_mut(vocab).zip(logits.par_chunks_exact(vocab)).enumerate();
        let losses: Vec<f32> = rows
            .map(|(r, (slope, logits))| {
                let weight = self.goals.weights[r] / total;
                let loss = self.goals.row(r, logits, slope) * weight;
                slope.iter_mut().for_each(|s| *s *= weight);
                loss
            })
            .collect();
        *self.slope.lock().unwrap_or_else(PoisonError::into_inner) = Some(slope);
        Ok((CpuStorage::F32(vec![losses.iter().sum()]), Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let slope = self.slope.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(slope) = slope else { bail!("loss: the slope was taken before") };
        let slope = Tensor::from_vec(slope, logits.shape(), logits.device())?;
        let factor = gradient.to_scalar::<f32>()?;
        Ok(Some(if factor == 1.0 { slope } else { (slope * f64::from(factor))? }))
    }
}

/// Folds values in lanes, which compilers turn to vectors, and then the lanes.
#[inline(always)]
fn in_lanes(values: &[f32], first: f32, fold: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [first; 32];
    let chunks = values.chunks_exact(32);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = fold(*lane, *value);
        }
    }
    lanes.iter().chain(rest).fold(first, |a, b| fold(a, *b))
}

/// eˣ for x ≤ 0 to about 1e-7, in a form that compilers turn to vectors (Cephes' `expf` without its branches).
#[inline(always)]
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let x = x.max(-87.0);
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4_f32;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    (p * r * r + r + 1.0) * f32::from_bits(((n as i32 + 127) << 23) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn goals(rest: bool, acceptance: f32) -> Goals {
        let mut goals = Goals::new(2, acceptance);
        goals.push(&[3, 0], if rest { &[0.5, 0.2] } else { &[0.7, 0.3] }, 1.0);
        goals.push(&[1, 4], if rest { &[0.6, 0.1] } else { &[1.0, 0.0] }, 0.5);
        goals
    }

    /// The fused operation and candle's own give the same loss and slope.
    #[test]
    fn fused_and_composed_agree() -> Result<()> {
        for (rest, acceptance) in [(false, 0.0), (true, 0.0), (false, 0.4), (true, 0.4), (true, 1.0)] {
            let logits = Tensor::new(&[[0.3f32, -1.0, 2.0, 0.5, 0.1], [1.0, 0.2, -0.7, 0.0, 0.9]], &Device::Cpu)?;
            let (a, b) = (Var::from_tensor(&logits)?, Var::from_tensor(&logits)?);
            let (fused, composed) = (goals(rest, acceptance).loss(&a)?, goals(rest, acceptance).composed(&b)?);
            let gap = (fused.to_scalar::<f32>()? - composed.to_scalar::<f32>()?).abs();
            assert!(gap < 1e-6, "losses differ by {gap}");
            let slopes = (fused.backward()?, composed.backward()?);
            let (Some(x), Some(y)) = (slopes.0.get(&a), slopes.1.get(&b)) else { panic!("no gradient") };
            let gap = (x - y)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(gap < 1e-6, "slopes differ by {gap}, rest {rest}, acceptance {acceptance}");
        }
        Ok(())
    }

    /// A row that is what it should be costs nothing and asks for no change.
    #[test]
    fn the_teacher_itself_has_no_loss() -> Result<()> {
        let p = [0.4f32, 0.3, 0.2, 0.1];
        let mut goals = Goals::new(2, 0.0);
        goals.push(&[0, 1], &p[..2], 1.0);
        let logits = Var::from_tensor(&Tensor::new(&[p.map(f32::ln)], &Device::Cpu)?)?;
        let loss = goals.loss(&logits)?;
        assert!(loss.to_scalar::<f32>()?.abs() < 1e-6);
        let slope = loss.backward()?.get(&logits).expect("a gradient").abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(slope < 1e-6, "{slope}");
        Ok(())
    }

    /// α is how often two exponential races under one noise have one winner.
    #[test]
    fn alpha_counts_races_won_by_one_token() -> Result<()> {
        let (p, q) = ([0.5f32, 0.3, 0.15, 0.05], [0.2f32, 0.35, 0.4, 0.05]);
        let mut goals = Goals::new(4, 1.0);
        goals.push(&[0, 1, 2, 3], &p, 1.0);
        let loss = goals.loss(&Tensor::new(&[q.map(f32::ln)], &Device::Cpu)?)?.to_scalar::<f32>()?;
        let mut noise = crate::order::Shuffle::new(1, 0);
        let races = 100_000;
        let mut same = 0;
        for _ in 0..races {
            // The squares of two normal numbers add up to an exponential one.
            let times: [f32; 4] = std::array::from_fn(|_| noise.normal().powi(2) + noise.normal().powi(2));
            let winner = |p: [f32; 4]| (0..4).min_by(|a, b| (times[*a] / p[*a]).total_cmp(&(times[*b] / p[*b])));
            same += usize::from(winner(p) == winner(q));
        }
        let counted = same as f32 / races as f32;
        assert!(((-loss).exp() - counted).abs() < 0.01, "{} said, {counted} counted", (-loss).exp());
        Ok(())
    }
}
