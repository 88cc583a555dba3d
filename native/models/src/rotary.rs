//! Rotary positions, with their gradient in one pass: candle's fused operation has none.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};
use candle_nn::rotary_emb::rope_thd;
use rayon::prelude::*;

use crate::floats::{floats, with_floats};

/// cos and sin at the rows' positions, `[L, D / 2]`.
pub(crate) type Rotary = (Tensor, Tensor);

/// Turns each head's first half with its second, `[L, n, D]`.
pub(crate) fn turn(x: &Tensor, rotary: &Rotary) -> Result<Tensor> {
    let (cos, sin) = rotary;
    if !x.track_op() {
        return rope_thd(&x.unsqueeze(0)?, cos, sin)?.squeeze(0);
    }
    if x.device().is_cpu() {
        let plain = |x: &Tensor| x.flatten_all()?.to_vec1::<f32>();
        return x.contiguous()?.apply_op1(Turn { cos: plain(cos)?, sin: plain(sin)? });
    }
    composed(x, rotary)
}

fn composed(x: &Tensor, (cos, sin): &Rotary) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let (a, b) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
    let (cos, sin) = (cos.unsqueeze(1)?, sin.unsqueeze(1)?);
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    Tensor::cat(&[first, second], D::Minus1)
}

struct Turn {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Turn {
    /// Turns rows by their angles, or with `way` −1 back.
    fn by(&self, x: &[f32], (heads, dim): (usize, usize), way: f32) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        let (half, width) = (dim / 2, heads * dim);
        let angles = self.cos.par_chunks(half).zip(self.sin.par_chunks(half));
        out.par_chunks_mut(width).zip(x.par_chunks(width)).zip(angles).for_each(|((out, x), (cos, sin))| {
            for (out, x) in out.chunks_exact_mut(dim).zip(x.chunks_exact(dim)) {
                let ((first, second), (a, b)) = (out.split_at_mut(half), x.split_at(half));
                for i in 0..half {
                    let sin = sin[i] * way;
                    first[i] = a[i] * cos[i] - b[i] * sin;
                    second[i] = b[i] * cos[i] + a[i] * sin;
                }
            }
        });
        out
    }
}

impl CustomOp1 for Turn {
    fn name(&self) -> &'static str {
        "turn"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, heads, dim) = layout.shape().dims3()?;
        Ok((CpuStorage::F32(self.by(floats(x, layout)?, (heads, dim), 1.0)), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (_, heads, dim) = x.dims3()?;
        let back = with_floats(gradient, |gradient| Ok(self.by(gradient, (heads, dim), -1.0)))?;
        Tensor::from_vec(back, x.shape(), x.device()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn the_gradient_is_that_of_candles_own_operations() -> Result<()> {
        let device = Device::Cpu;
        let x = Var::randn(0f32, 1.0, (5, 3, 8), &device)?;
        let slope = Tensor::randn(0f32, 1.0, (5, 3, 8), &device)?;
        let angles = Tensor::randn(0f32, 3.0, (5, 4), &device)?;
        let rotary = (angles.cos()?, angles.sin()?);
        let gap = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.max_all()?.to_scalar::<f32>();
        let (ours, theirs) = (turn(&x, &rotary)?, composed(&x, &rotary)?);
        assert!(gap(&ours, &theirs)? < 1e-6);
        let (a, b) = ((ours * &slope)?.sum_all()?.backward()?, (theirs * &slope)?.sum_all()?.backward()?);
        let (Some(a), Some(b)) = (a.get(&x), b.get(&x)) else { panic!("no gradient") };
        assert!(gap(a, b)? < 1e-5);
        Ok(())
    }
}
