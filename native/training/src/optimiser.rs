//! AdamW (arXiv:1711.05101) for everything, or Muon (arXiv:2502.16982) for the layers' matrices, with gradient clipping;
//! the state is saved with the weights.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use specula_models::Precision;

use crate::recipe::{Method, Schedule};

const BETAS: (f64, f64) = (0.9, 0.99);
const EPSILON: f64 = 1e-8;
/// Muon's.
const MOMENTUM: f64 = 0.95;

/// Learned tensors by name.
pub(crate) type Variables = BTreeMap<String, Var>;

/// The optimiser of some variables.
pub(crate) struct Optimiser {
    /// Running means of gradients and of their squares; Muon has no use for the second.
    moments: BTreeMap<String, (Tensor, Tensor)>,
    /// Gradients of the passes since the last step.
    sums: BTreeMap<String, Tensor>,
}

impl Optimiser {
    pub(crate) fn new(variables: &Variables) -> Result<Self> {
        let zeros =
            |(name, var): (&String, &Var)| Ok((name.clone(), (var.zeros_like()?.detach(), var.zeros_like()?.detach())));
        Ok(Self { moments: variables.iter().map(zeros).collect::<Result<_>>()?, sums: BTreeMap::new() })
    }

    /// Adds a pass's gradients.
    pub(crate) fn add(&mut self, variables: &Variables, gradients: &GradStore) -> Result<()> {
        for (name, var) in variables {
            let gradient = gradients.get(var).with_context(|| format!("`{name}` takes no part in the loss"))?;
            let sum = match self.sums.remove(name) {
                Some(sum) => (sum + gradient)?,
                None => gradient.clone(),
            };
            self.sums.insert(name.clone(), sum);
        }
        Ok(())
    }

    /// One step with the mean of `passes` added gradients; gives the gradient's norm before it was clipped.
    pub(crate) fn step(&mut self, variables: &Variables, s: &Schedule, step: usize, passes: usize) -> Result<f64> {
        let mut square = 0.0;
        for sum in self.sums.values() {
            square += f64::from(sum.sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
        let norm = square.sqrt() / passes as f64;
        let scale = (s.clip / norm.max(1e-12)).min(1.0) / passes as f64;
        let rate = s.rate(step);
        let t = (step + 1) as i32;
        let (correct_m, correct_v) = (1.0 - BETAS.0.powi(t), 1.0 - BETAS.1.powi(t));
        for (name, sum) in std::mem::take(&mut self.sums) {
            let (var, Some((m, v))) = (&variables[&name], self.moments.get_mut(&name)) else { continue };
            let gradient = (sum * scale)?;
            // Norms and biases are no matrices to be kept small.
            let decay = if var.rank() == 2 { rate * s.weight_decay } else { 0.0 };
            let kept = (var.as_tensor() * (1.0 - decay))?;
            if s.optimiser == Method::Muon && is_layers_matrix(&name, var) {
                *m = ((&*m * MOMENTUM)? + &gradient)?;
                let change = orthogonal(&(gradient + (&*m * MOMENTUM)?)?.detach(), s.precision)?;
                // As large a change as AdamW's usual one, so that one learning rate serves both.
                let size = 0.2 * (var.dim(0)?.max(var.dim(1)?) as f64).sqrt();
                var.set(&(kept - (change * (rate * size))?)?.detach())?;
                continue;
            }
            *m = ((&*m * BETAS.0)? + (&gradient * (1.0 - BETAS.0))?)?;
            *v = ((&*v * BETAS.1)? + (gradient.sqr()? * (1.0 - BETAS.1))?)?;
            let change = ((&*m / correct_m)? / ((&*v / correct_v)?.sqrt()? + EPSILON)?)?;
            var.set(&(kept - (change * rate)?)?.detach())?;
        }
        Ok(norm)
    }

    /// The state, for a checkpoint.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (String, Tensor)> {
        self.moments
            .iter()
            .flat_map(|(name, (m, v))| [(format!("m.{name}"), m.clone()), (format!("v.{name}"), v.clone())])
    }

    /// Takes the state of a checkpoint.
    pub(crate) fn restore(&mut self, tensor: impl Fn(&str) -> Result<Tensor>) -> Result<()> {
        for (name, (m, v)) in &mut self.moments {
            let at_home = |kept: Tensor, old: &Tensor| kept.to_device(old.device());
            *m = at_home(tensor(&format!("m.{name}"))?, m)?;
            *v = at_home(tensor(&format!("v.{name}"))?, v)?;
        }
        Ok(())
    }
}

fn is_layers_matrix(name: &str, var: &Var) -> bool {
    var.rank() == 2 && name.contains(".layers.")
}

/// The nearest matrix whose singular values are all about 1, by five steps of Newton and Schulz.
fn orthogonal(x: &Tensor, precision: Precision) -> Result<Tensor> {
    let tall = x.dim(0)? > x.dim(1)?;
    let x = if tall { x.t()?.contiguous()? } else { x.clone() };
    let norm = x.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>()?;
    let mut x = (x / f64::from(norm.max(1e-7)))?;
    for _ in 0..5 {
        let square = precision.product(&x, &x)?;
        // The square is symmetric, and so is what is made of it.
        let polynomial = ((&square * -4.775)? + (precision.product(&square, &square)? * 2.0315)?)?;
        x = ((&x * 3.4445)? + precision.product(&polynomial, &x.t()?)?)?;
    }
    Ok(if tall { x.t()?.contiguous()? } else { x })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn orthogonal_matrices_have_singular_values_near_one() -> Result<()> {
        let cases = [(4, 12), (12, 4)].map(|shape| [(shape, Precision::F32), (shape, Precision::Bf16)]);
        for ((rows, columns), precision) in cases.into_iter().flatten() {
            let x = orthogonal(&Tensor::randn(0f32, 3.0, (rows, columns), &Device::Cpu)?, precision)?;
            let small = if rows < columns { x.matmul(&x.t()?)? } else { x.t()?.matmul(&x)? };
            // The polynomial leaves singular values between 0.7 and 1.2: their squares stand on the diagonal's scale.
            let trace: f32 =
                (0..4).map(|i| small.get(i)?.get(i)?.to_scalar::<f32>()).sum::<candle_core::Result<_>>()?;
            assert!((2.0..6.0).contains(&trace), "{trace}");
        }
        Ok(())
    }
}
