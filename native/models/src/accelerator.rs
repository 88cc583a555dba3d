//! Devices that candle computes on, and what keeps one from being there.

use std::fmt::{Display, Formatter};
use std::str::FromStr;

use candle_core::Device;

/// A device of candle's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// Candle on the CPU in the manner of a device: no row-invariance, matrices as they are stored, rows reduced where they
    /// lie. For tests and trials where there is no device.
    Host,
    /// An NVIDIA device, by its number.
    Cuda(usize),
    /// An Apple device, by its number.
    Metal(usize),
}

/// Most devices of a kind that are looked for.
const MOST: usize = 16;

impl FromStr for Accelerator {
    type Err = String;

    /// `cuda`, `cuda:1`, `metal`, `candle`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, number) = text.split_once(':').unwrap_or((text, "0"));
        let number = number.parse().map_err(|_| format!("`{text}`: `{number}` is no device's number"));
        match kind {
            "cuda" => Ok(Self::Cuda(number?)),
            "metal" => Ok(Self::Metal(number?)),
            "candle" if kind == text => Ok(Self::Host),
            _ => Err(format!("`{text}` is none of cuda, cuda:1, metal, candle")),
        }
    }
}

impl Display for Accelerator {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host => f.pad("candle"),
            Self::Cuda(number) => f.pad(&format!("cuda:{number}")),
            Self::Metal(number) => f.pad(&format!("metal:{number}")),
        }
    }
}

impl Accelerator {
    /// What this build or this machine lacks for it; `None` if nothing is known to be missing.
    pub fn lacks(self) -> Option<String> {
        match self {
            Self::Host => None,
            Self::Cuda(_) => cuda::lacks(),
            Self::Metal(_) => (!cfg!(feature = "metal")).then(|| {
                "this build has no Metal; build with `cargo build --release --package specula --features metal` on macOS"
                    .into()
            }),
        }
    }

    /// The device and its name, for people.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub fn open(self) -> Result<(Device, String), String> {
        if let Some(lacks) = self.lacks() {
            return Err(format!("device `{self}`: {lacks}"));
        }
        let opened = match self {
            Self::Host => Ok((Device::Cpu, "CPU".into())),
            Self::Cuda(number) => cuda::open(number),
            Self::Metal(number) => Device::new_metal(number).map(|device| (device, "Metal".into())),
        };
        // What follows an error's first line is where in candle it arose.
        let reason = |error: candle_core::Error| error.to_string().lines().next().unwrap_or_default().to_owned();
        opened.map_err(|error| format!("device `{self}`: {}", reason(error)))
    }

    /// The devices of this machine by their names, or why there is none of a kind.
    pub fn found() -> Vec<(Self, Result<String, String>)> {
        let named = |device: Self| (device, device.open().map(|(_, name)| name));
        let first = [Self::Cuda(0), Self::Metal(0)].map(named);
        let more = (1..).map(|number| named(Self::Cuda(number))).take_while(|(_, found)| found.is_ok());
        let more = more.take(if first[0].1.is_ok() { MOST } else { 0 }).collect::<Vec<_>>();
        first.into_iter().chain(more).collect()
    }
}

#[cfg(not(feature = "cuda"))]
mod cuda {
    use candle_core::{Device, Result};

    pub(super) fn lacks() -> Option<String> {
        Some("this build has no CUDA; build with `cargo xtask cuda`, which needs neither device nor driver".into())
    }

    pub(super) fn open(number: usize) -> Result<(Device, String)> {
        Ok((Device::new_cuda_with_stream(number)?, String::new()))
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use candle_core::cuda_backend::WrapErr;
    use candle_core::cuda_backend::cudarc::driver::{CudaContext, result, sys};
    use candle_core::cuda_backend::cudarc::{cublas, curand};
    use candle_core::{Device, Result};

    /// Asked before the first call: where one of these libraries cannot be loaded, cudarc panics.
    pub(super) fn lacks() -> Option<String> {
        // SAFETY: they load a library and let go of it; NVIDIA's run no code of their own then that minds.
        let (driver, blas, rand) =
            unsafe { (sys::is_culib_present(), cublas::sys::is_culib_present(), curand::sys::is_culib_present()) };
        if !driver {
            return Some(
                "no NVIDIA driver here (libcuda.so.1 cannot be loaded); install one, of the 580 series or newer".into(),
            );
        }
        let missing = [(blas, "cuBLAS"), (rand, "cuRAND")].into_iter().find(|(present, _)| !present)?.1;
        Some(format!(
            "{missing} of CUDA 13 cannot be loaded; install it (on PyPI: nvidia-cublas and nvidia-curand) and name its folder in \
             LD_LIBRARY_PATH"
        ))
    }

    pub(super) fn open(number: usize) -> Result<(Device, String)> {
        let context = CudaContext::new(number).w()?;
        // Not the per-thread stream of `new_cuda`: a model is loaded by one thread and run by another.
        let device = Device::new_cuda_with_stream(number)?;
        // SAFETY: nothing was allocated yet, and tensors are used on this device's one stream; the one copy that is made on
        // another waits by events of its own.
        unsafe { device.as_cuda_device()?.disable_event_tracking() };
        keep_freed_memory(&context)?;
        let (major, minor) = context.compute_capability().w()?;
        let gigabytes = context.total_mem().w()? >> 30;
        Ok((device, format!("{}, compute capability {major}.{minor}, {gigabytes} GiB", context.name().w()?)))
    }

    /// Has the driver keep what tensors free for those that follow. By default it gives all of it back to the system whenever
    /// somebody waits for an event, as every pass does, and the next pass asks the system for it anew.
    fn keep_freed_memory(context: &CudaContext) -> Result<()> {
        if !context.has_async_alloc() {
            return Ok(());
        }
        let mut all = u64::MAX;
        // SAFETY: the device is the context's, the pool the device's, and the attribute a number of 64 bits.
        unsafe {
            let pool = result::device::get_default_mem_pool(context.cu_device()).w()?;
            let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            result::mem_pool::set_attribute(pool, threshold, (&raw mut all).cast()).w()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_shown() {
        for (text, device) in [
            ("cuda", Accelerator::Cuda(0)),
            ("cuda:1", Accelerator::Cuda(1)),
            ("metal", Accelerator::Metal(0)),
            ("candle", Accelerator::Host),
        ] {
            assert_eq!(text.parse(), Ok(device));
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for bad in ["cuda:x", "cuda:", "rocm", "candle:0", ""] {
            let refused = bad.parse::<Accelerator>().expect_err(bad);
            assert!(refused.contains(bad), "{refused}");
        }
    }

    #[test]
    fn what_this_build_or_machine_lacks_is_said_with_its_remedy() {
        assert!(Accelerator::Host.open().is_ok());
        for (device, found) in Accelerator::found() {
            let Some(lacks) = device.lacks() else { continue };
            let refused = found.expect_err("it lacks something");
            assert!(refused.contains(&lacks) && refused.contains(&device.to_string()), "{refused}");
            assert!(lacks.contains("build with") || lacks.contains("install"), "{lacks}");
        }
    }
}
