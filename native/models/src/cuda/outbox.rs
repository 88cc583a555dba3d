//! Rows on their way from the device: copied on a stream of their own, so that neither waits the device's work for them nor
//! they for what is queued after them.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaSlice, CudaStream, CudaView, PinnedHostSlice};
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{Result, Storage, Tensor, bail};
use specula_decoding::{Logits, ModelError, Reduction, Rows};

use super::reduce::Found;
use crate::device_rows::Elsewhere;
use crate::session::Later;

/// The stream for copies, and memory of the host that the device may write.
pub(crate) struct Outbox {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    shelf: Arc<Shelf>,
}

/// Buffers that are not in use: to make one takes longer than a pass.
#[derive(Default)]
struct Shelf(Mutex<Vec<PinnedHostSlice<u32>>>);

/// Most buffers kept: of exits and passes of a few lengths of window.
const KEPT: usize = 32;

impl Shelf {
    fn take(&self, device: &CudaDevice, words: usize) -> Result<PinnedHostSlice<u32>> {
        let mut buffers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = buffers.iter().position(|buffer| buffer.len() == words) {
            return Ok(buffers.swap_remove(at));
        }
        // Not write-combined: the host reads it. SAFETY: it is read after a copy only.
        unsafe { device.cuda_stream().context().alloc_pinned_with_flags(words, 0) }.w()
    }

    fn give_back(&self, buffer: PinnedHostSlice<u32>) {
        let mut buffers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() >= KEPT {
            buffers.remove(0);
        }
        buffers.push(buffer);
    }
}

impl Outbox {
    pub(crate) fn new(device: &CudaDevice) -> Result<Self> {
        let stream = device.cuda_stream().context().new_stream().w()?;
        Ok(Self { device: device.clone(), stream, shelf: Arc::default() })
    }

    /// Queues what is to be found of rows `[L, V]`, f32, or all of them, and their copy.
    pub(crate) fn begin(&self, logits: Tensor, reduction: Option<&Reduction>) -> Result<Box<dyn Later>> {
        let (rows, vocab) = logits.dims2()?;
        let logits = logits.contiguous()?;
        let asked = reduction.and_then(|reduction| Some((reduction, Found::of(reduction, rows, vocab)?)));
        let found = {
            let (storage, layout) = logits.storage_and_layout();
            let (Storage::Cuda(storage), Some((from, to))) = (&*storage, layout.contiguous_offsets()) else {
                bail!("rows are not on the device")
            };
            let view = storage.as_cuda_slice::<f32>()?.slice(from..to);
            match asked {
                Some((reduction, found)) => {
                    let words = found.launch(&self.device, &view, reduction)?;
                    let sent = self.send(&words.as_view())?;
                    Sent { what: What::Found(found, words), ..sent }
                }
                None => {
                    // SAFETY: words are any bits.
                    let Some(words) = (unsafe { view.transmute::<u32>(rows * vocab) }) else {
                        bail!("rows are no words")
                    };
                    self.send(&words)?
                }
            }
        };
        Ok(Box::new(OnTheWay { logits, sent: Some(found), shelf: self.shelf.clone() }))
    }

    /// Queues a copy behind what the device was given so far.
    fn send(&self, words: &CudaView<'_, u32>) -> Result<Sent> {
        let mut buffer = self.shelf.take(&self.device, words.len())?;
        self.stream.join(&self.device.cuda_stream()).w()?;
        self.stream.memcpy_dtoh(words, &mut buffer).w()?;
        Ok(Sent { buffer, arrived: self.stream.record_event(None).w()?, what: What::Whole })
    }
}

struct Sent {
    buffer: PinnedHostSlice<u32>,
    arrived: CudaEvent,
    what: What,
}

enum What {
    /// All rows.
    Whole,
    /// What was found, and the memory that it is copied from.
    Found(Found, #[expect(dead_code, reason = "held until the copy is made")] CudaSlice<u32>),
}

struct OnTheWay {
    logits: Tensor,
    sent: Option<Sent>,
    shelf: Arc<Shelf>,
}

impl Later for OnTheWay {
    fn ready(&self) -> bool {
        // What went wrong is said when they are read.
        self.sent.as_ref().is_none_or(|sent| sent.arrived.try_is_complete().unwrap_or(true))
    }

    fn read(mut self: Box<Self>) -> std::result::Result<Rows, ModelError> {
        let failure = |error: &dyn std::fmt::Display| ModelError(error.to_string());
        let vocab = self.logits.dims2().map_err(|error| failure(&error))?.1;
        let Some(sent) = self.sent.take() else { return Err(failure(&"rows were read twice")) };
        sent.arrived.synchronize().map_err(|error| failure(&error))?;
        let words = sent.buffer.as_slice().map_err(|error| failure(&error))?;
        let rows = match &sent.what {
            What::Whole => Rows::whole(Logits::new(words.iter().map(|bits| f32::from_bits(*bits)).collect(), vocab)),
            What::Found(found, _) => Rows::reduced(found.read(words), Box::new(Elsewhere(self.logits.clone()))),
        };
        self.shelf.give_back(sent.buffer);
        Ok(rows)
    }
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        // The device's memory must outlive the copy that nobody waited for.
        if let Some(sent) = &self.sent {
            let _ = sent.arrived.synchronize();
        }
    }
}
