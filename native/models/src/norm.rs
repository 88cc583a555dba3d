//! Norms on candle. The root-mean-square norm has its gradient in one pass; candle's fused norms have none, and its
//! differentiable ones take twenty passes over the rows.

use candle_core::{CpuStorage, CustomOp2, Device, Layout, Result, Shape, Tensor};
use candle_nn::ops::{layer_norm, layer_norm_slow, rms_norm, rms_norm_slow};
use rayon::prelude::*;

use crate::floats::{floats, with_floats};

/// A norm over the last dimension, f32; differentiable.
#[derive(Clone)]
pub struct Norm {
    /// `[width]`.
    pub weight: Tensor,
    /// `[width]`, of a layer norm; a root-mean-square norm has none.
    pub bias: Option<Tensor>,
    /// ε.
    pub epsilon: f32,
}

impl Norm {
    /// Norms `x`, `[…, width]`: x / √(mean x² + ε) · weight, or (x − mean x) / √(var x + ε) · weight + bias.
    ///
    /// # Errors
    /// Candle's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Self { weight, bias, epsilon } = self;
        let tracked = x.track_op() || weight.track_op();
        match bias {
            Some(bias) if tracked => layer_norm_slow(x, weight, bias, *epsilon),
            Some(bias) => layer_norm(x, weight, bias, *epsilon),
            None if !tracked => rms_norm(x, weight, *epsilon),
            None if x.device().is_cpu() => {
                x.contiguous()?.apply_op2(&weight.contiguous()?, Fused { epsilon: *epsilon })
            }
            None => rms_norm_slow(x, weight, *epsilon),
        }
    }

    /// The same on another device.
    pub(crate) fn to_device(&self, device: &Device) -> Result<Self> {
        let bias = self.bias.as_ref().map(|bias| bias.to_device(device)).transpose()?;
        Ok(Self { weight: self.weight.to_device(device)?, bias, epsilon: self.epsilon })
    }
}

/// The root-mean-square norm with its gradient.
struct Fused {
    epsilon: f32,
}

/// Rows that one task takes.
const ROWS: usize = 64;

impl Fused {
    fn inverse(&self, x: &[f32]) -> f32 {
        let mean = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
        1.0 / (mean + self.epsilon).sqrt()
    }

    /// Gradients by `x` and by the weights.
    fn slopes(&self, x: &[f32], weights: &[f32], gradients: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let width = weights.len();
        let mut by_x = vec![0.0; x.len()];
        let tasks = by_x.par_chunks_mut(ROWS * width).zip(x.par_chunks(ROWS * width));
        let parts = tasks.zip(gradients.par_chunks(ROWS * width)).map(|((by_x, x), gradient)| {
            let mut by_weights = vec![0.0; width];
            let rows = x.chunks_exact(width).zip(gradient.chunks_exact(width));
            for (by_x, (x, gradient)) in by_x.chunks_exact_mut(width).zip(rows) {
                let inverse = self.inverse(x);
                let mut along = 0.0;
                for i in 0..width {
                    along += gradient[i] * weights[i] * x[i];
                    by_weights[i] += gradient[i] * x[i] * inverse;
                }
                let along = along * inverse * inverse / width as f32;
                for i in 0..width {
                    by_x[i] = inverse * (gradient[i] * weights[i] - x[i] * along);
                }
            }
            by_weights
        });
        // Collected first: the order of a sum must not depend on threads.
        let parts: Vec<Vec<f32>> = parts.collect();
        let mut by_weights = vec![0.0; width];
        for part in parts {
            by_weights.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        (by_x, by_weights)
    }
}

impl CustomOp2 for Fused {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weights: &CpuStorage,
        weights_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weights) = (floats(x, x_layout)?, floats(weights, weights_layout)?);
        let mut out = vec![0.0; x.len()];
        let width = weights.len();
        let tasks = out.par_chunks_mut(ROWS * width).zip(x.par_chunks(ROWS * width));
        tasks.for_each(|(out, x)| {
            for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                let inverse = self.inverse(x);
                for (out, (x, weight)) in out.iter_mut().zip(x.iter().zip(weights)) {
                    *out = x * inverse * weight;
                }
            }
        });
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weights: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (by_x, by_weights) = with_floats(x, |x| {
            with_floats(weights, |weights| with_floats(gradient, |gradient| Ok(self.slopes(x, weights, gradient))))
        })?;
        let by_x = Tensor::from_vec(by_x, x.shape(), x.device())?;
        Ok((Some(by_x), Some(Tensor::from_vec(by_weights, weights.shape(), x.device())?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    #[test]
    fn the_gradient_is_that_of_candles_own_operations() -> Result<()> {
        let device = Device::Cpu;
        let x = Var::randn(0f32, 2.0, (3, 70, 16), &device)?;
        let weights = Var::randn(1f32, 0.5, 16, &device)?;
        let slope = Tensor::randn(0f32, 1.0, (3, 70, 16), &device)?;
        let gap = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.max_all()?.to_scalar::<f32>();
        let norm = Norm { weight: weights.as_tensor().clone(), bias: None, epsilon: 1e-6 };
        let (ours, theirs) = (norm.forward(&x)?, rms_norm_slow(&x, &weights, 1e-6)?);
        assert!(gap(&ours, &theirs)? < 1e-5);
        let (a, b) = ((ours * &slope)?.sum_all()?.backward()?, (theirs * &slope)?.sum_all()?.backward()?);
        for var in [&x, &weights] {
            let (Some(a), Some(b)) = (a.get(var), b.get(var)) else { panic!("no gradient") };
            assert!(gap(a, b)? < 1e-4);
        }
        Ok(())
    }
}
