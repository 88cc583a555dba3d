//! Rows that a device computed, on their way to the host.

use candle_core::{DType, Device, Result, Tensor};
use specula_decoding::{Fetch, Logits, ModelError, Reduction, Rows};

use crate::session::Coming;

/// Sends rows from where a model's tensors lie.
pub(crate) struct DeviceRows {
    #[cfg(feature = "cuda")]
    cuda: Option<crate::cuda::Outbox>,
}

impl DeviceRows {
    pub(crate) fn new(device: &Device) -> Result<Self> {
        #[cfg(feature = "cuda")]
        return Ok(Self {
            cuda: match device {
                Device::Cuda(device) => Some(crate::cuda::Outbox::new(device)?),
                _ => None,
            },
        });
        #[cfg(not(feature = "cuda"))]
        match device {
            Device::Cpu | Device::Cuda(_) | Device::Metal(_) => Ok(Self {}),
        }
    }

    /// Begins to send what suffices of rows `[L, V]`.
    pub(crate) fn begin(&self, logits: Tensor, reduction: Option<&Reduction>) -> Result<Coming> {
        let logits = logits.to_dtype(DType::F32)?;
        #[cfg(feature = "cuda")]
        if let Some(outbox) = &self.cuda {
            return outbox.begin(logits, reduction).map(Coming::Later);
        }
        let whole = read(&logits)?;
        // Metal's rows come whole: no kernel of ours reduces them.
        let reduction = reduction.filter(|_| logits.device().is_cpu());
        Ok(Coming::There(match reduction {
            Some(reduction) => Rows::reduced(reduction.of(&whole), Box::new(Elsewhere(logits))),
            None => Rows::whole(whole),
        }))
    }
}

/// Rows `[L, V]` that stay where they are until they are fetched.
pub(crate) struct Elsewhere(pub(crate) Tensor);

impl Fetch for Elsewhere {
    fn fetch(&self) -> std::result::Result<Logits, ModelError> {
        read(&self.0).map_err(|error| ModelError(error.to_string()))
    }
}

/// Rows `[L, V]` of any type.
pub(crate) fn read(logits: &Tensor) -> Result<Logits> {
    let vocab = logits.dims2()?.1;
    Ok(Logits::new(logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?, vocab))
}
