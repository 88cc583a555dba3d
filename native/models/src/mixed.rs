//! Matrix products of training in mixed precision (arXiv:1710.03740, with bf16): operands rounded to bf16, sums, weights
//! and gradients in f32. On the tiles of [`Tiles`], and in f32 where there are none.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use serde::Deserialize;
use specula_kernels::{Tiles, View};

use crate::floats::{floats, with_floats};

/// What products in training are computed in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// f32 throughout.
    #[default]
    F32,
    /// Operands in bf16, sums in f32, on CPUs that have AMX; in f32 elsewhere.
    Bf16,
}

impl Precision {
    /// Whether products of f32 tensors are computed in less on this machine's CPU.
    pub fn is_mixed(self) -> bool {
        self.tiles().is_some()
    }

    fn tiles(self) -> Option<Tiles> {
        (self == Self::Bf16).then(Tiles::here).flatten()
    }

    /// `x wᵀ` for `x` `[L, in]` and `w` `[out, in]`; differentiable.
    ///
    /// # Errors
    /// Candle's.
    pub fn product(self, x: &Tensor, w: &Tensor) -> Result<Tensor> {
        match self.tiles().filter(|_| x.device().is_cpu()) {
            Some(tiles) => x.contiguous()?.apply_op2(&w.contiguous()?, Product(tiles)),
            None => x.matmul(&w.t()?),
        }
    }
}

struct Product(Tiles);

/// Most rows of a left operand that are packed and multiplied at a time: what stays in a core's second cache.
const ROWS: usize = 256;

impl Product {
    /// `a b`, rows shared out among the current pool's threads.
    fn of(&self, a: View<'_>, b: View<'_>) -> Vec<f32> {
        let (rows, columns) = (a.rows(), b.columns());
        let mut c = vec![0.0; rows * columns];
        let right = self.0.right(b);
        let share = rows.div_ceil(2 * rayon::current_num_threads()).next_multiple_of(32).min(ROWS);
        c.par_chunks_mut(share * columns).enumerate().for_each(|(i, c)| {
            self.0.multiply(&self.0.left(a, i * share, share), &right, c);
        });
        c
    }
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "mixed-product"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ((rows, inputs), (outputs, width)) = (x_layout.shape().dims2()?, w_layout.shape().dims2()?);
        if width != inputs {
            bail!("a product of rows of {inputs} with rows of {width}");
        }
        let (x, w) = (View::new(floats(x, x_layout)?, rows, inputs), View::new(floats(w, w_layout)?, outputs, inputs));
        Ok((CpuStorage::F32(self.of(x, w.t())), (rows, outputs).into()))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let ((rows, inputs), outputs) = (x.dims2()?, w.dim(0)?);
        let (by_x, by_w) = with_floats(gradient, |gradient| {
            let gradient = View::new(gradient, rows, outputs);
            let by_x = with_floats(w, |w| Ok(self.of(gradient, View::new(w, outputs, inputs))))?;
            Ok((by_x, with_floats(x, |x| Ok(self.of(gradient.t(), View::new(x, rows, inputs))))?))
        })?;
        let tensor = |values, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device()).map(Some);
        Ok((tensor(by_x, x)?, tensor(by_w, w)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};

    #[test]
    fn products_and_gradients_are_those_of_f32_but_for_rounding() -> Result<()> {
        let device = Device::Cpu;
        let x = Var::randn(0f32, 1.0, (300, 70), &device)?;
        let w = Var::randn(0f32, 1.0, (45, 70), &device)?;
        let slope = Tensor::randn(0f32, 1.0, (300, 45), &device)?;
        let of = |precision: Precision| -> Result<[Tensor; 3]> {
            let y = precision.product(&x, &w)?;
            let gradients = (&y * &slope)?.sum_all()?.backward()?;
            let by = |var: &Var| gradients.get(var).cloned().ok_or_else(|| candle_core::Error::msg("no gradient"));
            Ok([y.detach(), by(&x)?, by(&w)?])
        };
        for (mixed, whole) in of(Precision::Bf16)?.iter().zip(of(Precision::F32)?) {
            assert_eq!((mixed.dims(), mixed.dtype()), (whole.dims(), DType::F32));
            let gap = (mixed - &whole)?.sqr()?.mean_all()?.to_scalar::<f32>()?.sqrt();
            let size = whole.sqr()?.mean_all()?.to_scalar::<f32>()?.sqrt();
            assert!(gap < 0.006 * size, "{gap} of {size}");
        }
        Ok(())
    }
}
