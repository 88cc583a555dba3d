//! How the rows of a pass attend: along their paths on the CPU and where a device has a kernel of ours, else by a mask.

use candle_core::{Device, Result, Tensor};
use specula_kernels::Path;

use crate::attention::TreeAttention;
#[cfg(feature = "cuda")]
use crate::cuda::Spans;
use crate::masked::Mask;

/// What each row sees, in the form in which it is computed.
pub(crate) enum Seeing {
    /// The reference.
    Paths(TreeAttention),
    #[cfg(feature = "cuda")]
    Spans(Spans),
    Masked(Mask),
}

impl Seeing {
    /// For rows that see `visible` of a cache of `slots`, on the CPU, to the same bits in every pass.
    pub(crate) fn reference(visible: &[Path]) -> Self {
        Self::Paths(TreeAttention { visible: visible.to_vec() })
    }

    /// The same on a device.
    pub(crate) fn on(device: &Device, visible: &[Path], slots: usize, _head_dim: usize) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if device.is_cuda() && Spans::takes(_head_dim) {
            return Spans::new(visible, device).map(Self::Spans);
        }
        Mask::new(visible, slots, device).map(Self::Masked)
    }

    /// Softmax(q kᵀ / √D) v for q `[L, H, D]` over caches k and v `[S, K, D]`; gives `[L, H·D]`.
    pub(crate) fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        match self {
            Self::Paths(paths) => q.apply_op3_no_bwd(k, v, paths),
            #[cfg(feature = "cuda")]
            Self::Spans(spans) => q.apply_op3_no_bwd(k, v, spans),
            Self::Masked(mask) => mask.attend(q, k, v),
        }
    }
}
