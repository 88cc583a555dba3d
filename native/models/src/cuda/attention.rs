//! Attention along the paths of a tree, as `attention.rs` has it for the CPU.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{CudaView, DeviceRepr, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::{CpuStorage, CudaStorage, CustomOp3, DType, Device, Layout, Result, Shape, Storage, Tensor, bail};
use half::{bf16, f16};
use specula_kernels::Path;

const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/attention.ptx"));
/// As the kernel has them.
const THREADS: u32 = 256;
const LANES: usize = 32;
const MOST_DIM: usize = 256;

/// The paths of a pass's rows, on the device: softmax(q kᵀ / √D) v for q `[L, H, D]` over caches k and v `[S, K, D]`; gives
/// `[L, H·D]`.
pub(crate) struct Spans {
    /// Of each row, where its path lies: so many slots from 0 on, then from where and how many of those that follow.
    spans: Tensor,
    rows: usize,
}

impl Spans {
    /// Whether the kernel takes heads of this size.
    pub(crate) fn takes(head_dim: usize) -> bool {
        head_dim.is_multiple_of(LANES) && head_dim <= MOST_DIM
    }

    /// The rows' paths, one upload for all layers.
    pub(crate) fn new(visible: &[Path], device: &Device) -> Result<Self> {
        let mut spans = Vec::with_capacity(4 * visible.len() + 1);
        let mut from = 0;
        for path in visible {
            spans.extend([path.prefix as u32, from, path.extra.len() as u32]);
            from += path.extra.len() as u32;
        }
        visible.iter().for_each(|path| spans.extend_from_slice(&path.extra));
        // What follows must not be empty.
        spans.push(0);
        Ok(Self { spans: Tensor::new(spans, device)?, rows: visible.len() })
    }

    fn launch<T: CudaDType + DeviceRepr>(
        &self,
        name: &str,
        inputs: [(&CudaStorage, &Layout); 3],
    ) -> Result<(CudaStorage, Shape)> {
        let [(q, q_layout), (k, k_layout), (v, v_layout)] = inputs;
        let (rows, heads, dim) = q_layout.shape().dims3()?;
        let (_, kv_heads, _) = k_layout.shape().dims3()?;
        if rows != self.rows || k_layout.shape() != v_layout.shape() || !Self::takes(dim) {
            bail!(
                "attention: {} paths for {rows} rows of heads of {dim}, caches {k_layout:?} and {v_layout:?}",
                self.rows
            );
        }
        let (storage, _) = self.spans.storage_and_layout();
        let Storage::Cuda(spans) = &*storage else { bail!("attention: paths are not on the device") };
        let spans = spans.as_cuda_slice::<u32>()?;
        let (spans, extra) = (spans.slice(..3 * rows), spans.slice(3 * rows..));
        let (query, keys, values) = (view::<T>(q, q_layout)?, view::<T>(k, k_layout)?, view::<T>(v, v_layout)?);
        let device = &q.device;
        // SAFETY: the kernel writes all of it.
        let out = unsafe { device.alloc::<T>(rows * heads * dim)? };
        let function = device.get_or_load_custom_func(name, "specula-attention", PTX)?;
        let mut launch = function.builder();
        launch.arg(&query).arg(&keys).arg(&values).arg(&spans).arg(&extra).arg(&out);
        let (all, shared, width) = (heads as u32, kv_heads as u32, dim as u32);
        let scale = 1.0 / (dim as f32).sqrt();
        launch.arg(&all).arg(&shared).arg(&width).arg(&scale);
        let grid = LaunchConfig { grid_dim: (all, rows as u32, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the arguments are the kernel's; paths name slots of the cache, which `Slots` and `new_paths` see to.
        unsafe { launch.launch(grid) }.w()?;
        drop(launch);
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), (rows, heads * dim).into()))
    }
}

fn view<'a, T: CudaDType>(storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, T>> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(storage.as_cuda_slice::<T>()?.slice(from..to)),
        None => bail!("attention needs contiguous tensors, got {layout:?}"),
    }
}

impl CustomOp3 for Spans {
    fn name(&self) -> &'static str {
        "tree-attention"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("attention of a device, on the CPU")
    }

    fn cuda_fwd(
        &self,
        q: &CudaStorage,
        q_layout: &Layout,
        k: &CudaStorage,
        k_layout: &Layout,
        v: &CudaStorage,
        v_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let inputs = [(q, q_layout), (k, k_layout), (v, v_layout)];
        match q.dtype() {
            DType::F32 => self.launch::<f32>("tree_attention_f32", inputs),
            DType::F16 => self.launch::<f16>("tree_attention_f16", inputs),
            DType::BF16 => self.launch::<bf16>("tree_attention_bf16", inputs),
            other => bail!("attention in {other:?}; it has f32, f16 and bf16"),
        }
    }
}
