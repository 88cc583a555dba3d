//! Attention by candle's own operations, for devices that have no kernel of ours: every row's scores over the whole cache,
//! what lies off its path masked. Not row-invariant: sums are taken over the cache, in an order of candle's choice.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::ops::softmax_last_dim;
use specula_kernels::Path;

/// What each of L rows sees of S slots.
pub(crate) struct Mask {
    /// `[L, S]`, f32: 0 where a row sees a slot, −∞ elsewhere.
    additive: Tensor,
}

impl Mask {
    pub(crate) fn new(visible: &[Path], slots: usize, device: &Device) -> Result<Self> {
        let mut mask = vec![f32::NEG_INFINITY; visible.len() * slots];
        for (row, path) in mask.chunks_exact_mut(slots).zip(visible) {
            row[..path.prefix].fill(0.0);
            path.extra.iter().for_each(|slot| row[*slot as usize] = 0.0);
        }
        Ok(Self { additive: Tensor::from_vec(mask, (visible.len(), slots), device)? })
    }

    /// Softmax(q kᵀ / √D) v for q `[L, H, D]` over caches k and v of S slots or more, `[·, K, D]`; gives `[L, H·D]`.
    /// Weights are f32, whatever the rest is.
    pub(crate) fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let ((rows, heads, dim), kv_heads) = (q.dims3()?, k.dim(1)?);
        let (slots, group) = (self.additive.dim(1)?, heads / kv_heads);
        // [S, K, D] → [K, S, D].
        let cached = |cache: &Tensor| cache.narrow(0, 0, slots)?.transpose(0, 1)?.contiguous();
        // Heads that share keys are rows of one product: [L, K, G, D] → [K, G·L, D].
        let q = q.reshape((rows, kv_heads, group, dim))?.permute((1, 2, 0, 3))?.contiguous()?;
        let q = q.reshape((kv_heads, group * rows, dim))?;
        let scores = (q.matmul(&cached(k)?.t()?)?.to_dtype(DType::F32)? / (dim as f64).sqrt())?;
        let scores = scores.reshape((kv_heads, group, rows, slots))?.broadcast_add(&self.additive)?;
        let weights = softmax_last_dim(&scores)?.to_dtype(q.dtype())?;
        let summed = weights.reshape((kv_heads, group * rows, slots))?.matmul(&cached(v)?)?;
        let summed = summed.reshape((kv_heads, group, rows, dim))?.permute((2, 0, 1, 3))?;
        summed.contiguous()?.reshape((rows, heads * dim))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::TreeAttention;

    #[test]
    fn agrees_with_attention_along_paths() -> Result<()> {
        let device = Device::Cpu;
        let (capacity, slots, heads, kv_heads, dim) = (32, 26, 6, 2, 16);
        let random = |shape: (usize, usize, usize)| Tensor::randn(0f32, 1.0, shape, &device);
        let (k, v) = (random((capacity, kv_heads, dim))?, random((capacity, kv_heads, dim))?);
        let path = |prefix, extra: &[u32]| Path { prefix, extra: extra.to_vec() };
        let visible = vec![path(21, &[]), path(20, &[22, 25]), path(20, &[23]), path(1, &[])];
        let q = random((visible.len(), heads, dim))?;
        let masked = Mask::new(&visible, slots, &device)?.attend(&q, &k, &v)?;
        let along = q.apply_op3_no_bwd(&k, &v, &TreeAttention { visible })?;
        assert_eq!(masked.dims(), along.dims());
        let gap = (masked - along)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(gap < 1e-5, "{gap}");
        Ok(())
    }
}
