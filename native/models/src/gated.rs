//! The gate of a feed-forward block, with its gradient in one pass.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use specula_kernels::{Isa, gate_row, gate_slopes};

use crate::floats::{floats, with_floats};

/// silu(`gate`) · `up`, differentiable.
pub(crate) fn gated(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if gate.track_op() && gate.device().is_cpu() {
        gate.contiguous()?.apply_op2(&up.contiguous()?, Gated)
    } else {
        gate.silu()? * up
    }
}

struct Gated;

/// Values that one task takes.
const VALUES: usize = 1 << 14;

impl CustomOp2 for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (gate, up) = (floats(gate, gate_layout)?, floats(up, up_layout)?);
        let mut out = vec![0.0; gate.len()];
        let tasks = out.par_chunks_mut(VALUES).zip(gate.par_chunks(VALUES).zip(up.par_chunks(VALUES)));
        tasks.for_each(|(out, (gate, up))| {
            gate_row(Isa::best(), gate, up, out);
        });
        Ok((CpuStorage::F32(out), gate_layout.shape().clone()))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let shape = gate.shape();
        let slopes = |gate: &[f32], up: &[f32], gradient: &[f32]| {
            let (mut by_gate, mut by_up) = (vec![0.0; gate.len()], vec![0.0; gate.len()]);
            let out = by_gate.par_chunks_mut(VALUES).zip(by_up.par_chunks_mut(VALUES));
            let inputs = gate.par_chunks(VALUES).zip(up.par_chunks(VALUES)).zip(gradient.par_chunks(VALUES));
            out.zip(inputs).for_each(|((by_gate, by_up), ((gate, up), gradient))| {
                gate_slopes(Isa::best(), gate, up, gradient, by_gate, by_up);
            });
            (by_gate, by_up)
        };
        let (by_gate, by_up) = with_floats(gate, |gate| {
            with_floats(up, |up| with_floats(gradient, |gradient| Ok(slopes(gate, up, gradient))))
        })?;
        let tensor = |values| Tensor::from_vec(values, shape, gate.device()).map(Some);
        Ok((tensor(by_gate)?, tensor(by_up)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn the_gradient_is_that_of_candles_own_operations() -> Result<()> {
        let device = Device::Cpu;
        let (x, y) = (Var::randn(0f32, 3.0, (7, 40), &device)?, Var::randn(0f32, 1.0, (7, 40), &device)?);
        let slope = Tensor::randn(0f32, 1.0, (7, 40), &device)?;
        let gap = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.max_all()?.to_scalar::<f32>();
        let (ours, theirs) = (gated(&x, &y)?, (x.silu()? * y.as_tensor())?);
        assert!(gap(&ours, &theirs)? < 1e-5);
        let (a, b) = ((ours * &slope)?.sum_all()?.backward()?, (theirs * &slope)?.sum_all()?.backward()?);
        for var in [&x, &y] {
            let (Some(a), Some(b)) = (a.get(var), b.get(var)) else { panic!("no gradient") };
            assert!(gap(a, b)? < 1e-5);
        }
        Ok(())
    }
}
