//! Matrix products whose rows do not depend on how many rows are computed at once.

use candle_core::quantized::QMatMul;
use candle_core::{Module, Result, Tensor};

/// `y = x Wᵀ` for `x` `[L, in]`.
pub(crate) enum Linear {
    /// Quantised weights: candle's kernels are row-invariant as they are (int8 dot products over blocks).
    Quantized(QMatMul),
    /// f32 weights, stored `[out, in]`.
    Dense(Tensor),
}

/// Rows of one f32 product. gemm picks its kernel and blocking by the number of rows, which changes the order of sums;
/// with a constant number of rows every row goes through the same kernel.
const DENSE_ROWS: usize = 16;

impl Linear {
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Quantized(weights) => weights.forward(x),
            Self::Dense(weights) => dense(x, &weights.t()?),
        }
    }
}

fn dense(x: &Tensor, weights_t: &Tensor) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let mut parts = Vec::with_capacity(rows.div_ceil(DENSE_ROWS));
    for from in (0..rows).step_by(DENSE_ROWS) {
        let len = DENSE_ROWS.min(rows - from);
        let part = x.narrow(0, from, len)?;
        let padded = if len == DENSE_ROWS {
            part
        } else {
            let zeros = Tensor::zeros((DENSE_ROWS - len, width), x.dtype(), x.device())?;
            Tensor::cat(&[&part, &zeros], 0)?
        };
        parts.push(padded.matmul(weights_t)?.narrow(0, 0, len)?);
    }
    if parts.len() == 1 { parts[0].contiguous() } else { Tensor::cat(&parts, 0) }
}
