//! The values of tensors, for operations of our own on the CPU.

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};

/// Those of a contiguous tensor of f32.
pub(crate) fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((from, to))) => Ok(&data[from..to]),
        _ => bail!("an operation on the CPU needs contiguous f32, got {layout:?}"),
    }
}

/// Runs `read` on a tensor's values.
pub(crate) fn with_floats<R>(x: &Tensor, read: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => read(floats(storage, layout)?),
        _ => bail!("an operation on the CPU got a tensor elsewhere"),
    }
}
