//! Matrix products whose rows do not depend on how many rows are computed at once.

use candle_core::quantized::{GgmlDType, QMatMul};
use candle_core::{DType, Module, Result, Tensor};

use crate::mixed::Precision;

/// `y = x Wᵀ + b` for `x` `[L, in]`.
pub(crate) struct Linear {
    weights: Weights,
    bias: Option<Tensor>,
}

enum Weights {
    Quantised(QMatMul),
    /// f32, stored `[out, in]`.
    Dense(Tensor),
    /// In any type, where the bits of a row need not be the same in every pass: in training, and on devices.
    Direct(Tensor, Precision),
}

/// Rows of one product. gemm picks its kernel and blocking by the number of rows, which changes the order of sums; with
/// a constant number of rows every row goes through the same kernel.
const ROWS: usize = 16;

impl Linear {
    pub(crate) fn quantised(weights: QMatMul, bias: Option<Tensor>) -> Self {
        Self { weights: Weights::Quantised(weights), bias }
    }

    pub(crate) fn dense(weights: Tensor, bias: Option<Tensor>) -> Self {
        Self { weights: Weights::Dense(weights), bias }
    }

    pub(crate) fn direct(weights: Tensor, precision: Precision, bias: Option<Tensor>) -> Self {
        Self { weights: Weights::Direct(weights, precision), bias }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let product = match &self.weights {
            Weights::Quantised(weights) => quantised(x, weights),
            Weights::Dense(weights) => {
                let weights_t = weights.t()?;
                in_chunks(x, ROWS, |x| x.matmul(&weights_t))
            }
            Weights::Direct(weights, precision) => precision.product(x, weights),
        }?;
        match &self.bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }
}

/// Candle's kernels for blocks are row-invariant but for two that it picks by the number of rows: Q6_K has one of its
/// own for a single row, Q4_K one from 32 rows on (on CPUs with AMX).
fn quantised(x: &Tensor, weights: &QMatMul) -> Result<Tensor> {
    let QMatMul::QTensor(tensor) = weights else { candle_core::bail!("a dense matrix among quantised ones") };
    let kind = x.dtype();
    // Halves meet blocks in files that mix them.
    let x = &x.to_dtype(DType::F32)?;
    let product = match tensor.dtype() {
        _ if !x.device().is_cpu() => weights.forward(x),
        GgmlDType::Q6K if x.dim(0)? == 1 => in_chunks(x, 2, |x| weights.forward(x)),
        GgmlDType::Q4K => in_chunks(x, ROWS, |x| weights.forward(x)),
        _ => weights.forward(x),
    };
    product?.to_dtype(kind)
}

/// A product computed `size` rows at a time, the last ones filled up with zeros.
fn in_chunks(x: &Tensor, size: usize, product: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let mut parts = Vec::with_capacity(rows.div_ceil(size));
    for from in (0..rows).step_by(size) {
        let len = size.min(rows - from);
        let part = x.narrow(0, from, len)?;
        let padded = if len == size {
            part
        } else {
            let zeros = Tensor::zeros((size - len, width), x.dtype(), x.device())?;
            Tensor::cat(&[&part, &zeros], 0)?
        };
        parts.push(product(&padded)?.narrow(0, 0, len)?);
    }
    if parts.len() == 1 { parts[0].contiguous() } else { Tensor::cat(&parts, 0) }
}
