//! Attention over a cache with a tree on top. Each row sums over its own path, in path order, whatever else is in the
//! cache or in the pass: that makes it row-invariant by construction. The same instructions on every CPU (no fused
//! multiply-add), only their width differs.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, bail};
use specula_kernels::Path;

/// Softmax(q kᵀ / √D) v for q `[L, H, D]` over caches k and v `[S, K, D]`; gives `[L, H·D]`.
pub(crate) struct TreeAttention {
    /// One entry a row.
    pub(crate) visible: Vec<Path>,
}

impl CustomOp3 for TreeAttention {
    fn name(&self) -> &'static str {
        "tree-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, heads, dim) = q_layout.shape().dims3()?;
        let (slots, kv_heads, _) = k_layout.shape().dims3()?;
        if self.visible.len() != rows || k_layout.shape() != v_layout.shape() {
            bail!("attention: {} masks for {rows} rows, caches {k_layout:?} and {v_layout:?}", self.visible.len());
        }
        if let Some(bad) = self.visible.iter().flat_map(|v| &v.extra).find(|s| **s as usize >= slots) {
            bail!("attention: slot {bad} of a cache of {slots}");
        }
        if let Some(bad) = self.visible.iter().find(|v| v.prefix > slots || v.is_empty()) {
            bail!("attention: a prefix of {} in a cache of {slots}", bad.prefix);
        }
        let shape = HeadShape { heads, kv_heads, dim };
        let (q, k, v) = (flat(q, q_layout)?, flat(k, k_layout)?, flat(v, v_layout)?);
        let mut out = vec![0.0; rows * heads * dim];
        let mut scratch = Vec::new();
        for (row, visible) in self.visible.iter().enumerate() {
            let at = row * heads * dim..(row + 1) * heads * dim;
            attend(&q[at.clone()], (k, v), visible, shape, &mut scratch, &mut out[at]);
        }
        Ok((CpuStorage::F32(out), (rows, heads * dim).into()))
    }
}

#[inline(always)]
fn slot(path: &Path, i: usize) -> usize {
    if i < path.prefix { i } else { path.extra[i - path.prefix] as usize }
}

fn flat<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((from, to))) => Ok(&data[from..to]),
        _ => bail!("attention needs contiguous f32, got {layout:?}"),
    }
}

#[derive(Clone, Copy)]
struct HeadShape {
    heads: usize,
    kv_heads: usize,
    dim: usize,
}

/// One row: q `[H, D]` → out `[H, D]`.
fn attend(
    q: &[f32],
    cache: (&[f32], &[f32]),
    visible: &Path,
    shape: HeadShape,
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was just detected, and the function needs nothing else.
        unsafe { attend_avx2(q, cache, visible, shape, scratch, out) };
        return;
    }
    attend_body(q, cache, visible, shape, scratch, out);
}

/// The same arithmetic compiled for 8 lanes at once.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn attend_avx2(
    q: &[f32],
    cache: (&[f32], &[f32]),
    visible: &Path,
    shape: HeadShape,
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) {
    attend_body(q, cache, visible, shape, scratch, out);
}

#[inline(always)]
fn attend_body(
    q: &[f32],
    (k, v): (&[f32], &[f32]),
    visible: &Path,
    shape: HeadShape,
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) {
    let HeadShape { heads, kv_heads, dim } = shape;
    let group = heads / kv_heads;
    let keys = visible.len();
    let scale = 1.0 / (dim as f32).sqrt();
    scratch.clear();
    scratch.resize(group * keys, 0.0);
    for kv in 0..kv_heads {
        for t in 0..keys {
            let from = (slot(visible, t) * kv_heads + kv) * dim;
            let key = &k[from..from + dim];
            for g in 0..group {
                let head = kv * group + g;
                scratch[g * keys + t] = dot(&q[head * dim..(head + 1) * dim], key) * scale;
            }
        }
        for g in 0..group {
            let weights = &mut scratch[g * keys..(g + 1) * keys];
            let sum = exponentiate(weights);
            let head = kv * group + g;
            let out = &mut out[head * dim..(head + 1) * dim];
            out.fill(0.0);
            for (t, weight) in weights.iter().enumerate() {
                let from = (slot(visible, t) * kv_heads + kv) * dim;
                for (o, value) in out.iter_mut().zip(&v[from..from + dim]) {
                    *o += weight * value;
                }
            }
            for o in out {
                *o /= sum;
            }
        }
    }
}

const LANES: usize = 8;

/// Dot product summed in eight interleaved lanes, then pairwise.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for i in 0..LANES {
            lanes[i] += x[i] * y[i];
        }
    }
    reduce(lanes) + tail
}

/// Replaces scores by exp(score − max) and returns their sum, taken in eight lanes by position in the path.
#[inline(always)]
pub(crate) fn exponentiate(scores: &mut [f32]) -> f32 {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for score in scores.iter_mut() {
        *score = exp(*score - max);
    }
    let mut lanes = [0.0_f32; LANES];
    let chunks = scores.chunks_exact(LANES);
    for (lane, score) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = *score;
    }
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += chunk[i];
        }
    }
    reduce(lanes)
}

#[inline(always)]
fn reduce(l: [f32; LANES]) -> f32 {
    ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

/// eˣ for x ≤ 0 within 2 ulp (Cephes `expf` without its branches, so that it vectorises); 0 below −87.
#[inline(always)]
fn exp(x: f32) -> f32 {
    let clamped = x.max(-87.0);
    // Adding and subtracting 1.5·2²³ rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let n = (clamped * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = clamped - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4_f32;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let y = p * r * r + r + 1.0;
    let power = f32::from_bits(((n as i32 + 127) << 23) as u32);
    if x < -87.0 { 0.0 } else { y * power }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    #[test]
    fn exp_is_within_two_ulp() {
        for i in 0..87_000 {
            let x = -(i as f32) / 1000.0;
            let want = f64::from(x).exp();
            assert!((f64::from(exp(x)) - want).abs() <= want * 2.4e-7, "exp({x})");
        }
        assert_eq!(exp(-100.0), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }

    /// A path scattered over the cache gives the bits of the same path laid out in a row.
    #[test]
    fn layout_does_not_change_bits() {
        let device = Device::Cpu;
        let (slots, heads, kv_heads, dim) = (40, 4, 2, 16);
        let k = Tensor::randn(0f32, 1.0, (slots, kv_heads, dim), &device).expect("cpu");
        let v = Tensor::randn(0f32, 1.0, (slots, kv_heads, dim), &device).expect("cpu");
        let q = Tensor::randn(0f32, 1.0, (1, heads, dim), &device).expect("cpu");
        let path: Vec<u32> = (0..21).chain([30, 25, 39, 33]).collect();
        let index = Tensor::new(path.as_slice(), &device).expect("cpu");
        let run = |k: &Tensor, v: &Tensor, visible: Path| {
            let op = TreeAttention { visible: vec![visible] };
            let out = q.apply_op3_no_bwd(k, v, &op).expect("valid shapes");
            out.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("cpu")
        };
        let scattered = run(&k, &v, Path { prefix: 21, extra: path[21..].to_vec() });
        let (k2, v2) = (k.index_select(&index, 0).expect("cpu"), v.index_select(&index, 0).expect("cpu"));
        assert_eq!(scattered, run(&k2, &v2, Path { prefix: 25, extra: vec![] }));
    }

    #[test]
    fn agrees_with_softmax_by_tensors() {
        let device = Device::Cpu;
        let (slots, heads, dim) = (19, 2, 8);
        let k = Tensor::randn(0f32, 1.0, (slots, heads, dim), &device).expect("cpu");
        let v = Tensor::randn(0f32, 1.0, (slots, heads, dim), &device).expect("cpu");
        let q = Tensor::randn(0f32, 1.0, (1, heads, dim), &device).expect("cpu");
        let op = TreeAttention { visible: vec![Path { prefix: slots, extra: vec![] }] };
        let got = q.apply_op3_no_bwd(&k, &v, &op).expect("valid shapes");
        let reference = || -> Result<Tensor> {
            let scores = q.transpose(0, 1)?.contiguous()?.matmul(&k.transpose(0, 1)?.t()?.contiguous()?)?;
            let weights = candle_nn::ops::softmax_last_dim(&(scores / (dim as f64).sqrt())?)?;
            weights.matmul(&v.transpose(0, 1)?.contiguous()?)?.reshape((1, heads * dim))
        };
        let gap = (got - reference().expect("valid shapes")).and_then(|d| d.abs()?.max_all()?.to_scalar::<f32>());
        assert!(gap.expect("cpu") < 1e-5);
    }
}
