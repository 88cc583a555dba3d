//! Attention over the texts of a batch, with its gradient: one pass over the keys that a row sees, where candle's own
//! operations would make and keep `[B, H, T, T]` several times over.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::attention::{dot, exponentiate};
use crate::floats::{floats, with_floats};

/// Softmax(q kᵀ / √D) v for `S` streams of `B·T` rows: q `[S·B·T, H, D]`, k and v `[S·B·T, K, D]`; gives
/// `[S·B·T, H·D]`. Row (s, i) sees the main stream (s = 0) from the first token of its text up to token i, and of token i
/// also streams 1…s.
#[derive(Clone)]
pub(crate) struct BatchAttention {
    /// S.
    pub(crate) streams: usize,
    /// T.
    pub(crate) length: usize,
    /// Of each of `B·T` tokens: its position in its text.
    pub(crate) positions: Vec<u32>,
    /// H, K, D.
    pub(crate) shape: (usize, usize, usize),
}

/// q, k, v and the gradient by what they give.
type Inputs<'a> = (&'a [f32], &'a [f32], &'a [f32], &'a [f32]);

/// Gradients by q, k and v.
type Slopes = (Vec<f32>, Vec<f32>, Vec<f32>);

impl CustomOp3 for BatchAttention {
    fn name(&self) -> &'static str {
        "batch-attention"
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
        let (q, k, v) = (floats(q, q_layout)?, floats(k, k_layout)?, floats(v, v_layout)?);
        let (heads, _, dim) = self.shape;
        let width = heads * dim;
        if q.len() != self.streams * self.positions.len() * width || k.len() != v.len() {
            bail!("batch attention: {} queries for {} tokens", q.len(), self.positions.len());
        }
        let mut out = vec![0.0; q.len()];
        out.par_chunks_mut(width).enumerate().for_each_init(Scratch::default, |scratch, (row, out)| {
            self.forward(row, q, (k, v), scratch, out);
        });
        Ok((CpuStorage::F32(out), (self.streams * self.positions.len(), width).into()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (heads, kv_heads, dim) = self.shape;
        let sequences = self.positions.len() / self.length;
        // Sequences share no rows, so each has gradients of its own: `[S, T, …]`.
        let parts = |inputs: &Inputs<'_>| (0..sequences).into_par_iter().map(|b| self.backward(b, inputs)).collect();
        let parts: Vec<Slopes> = with_floats(q, |q| {
            with_floats(k, |k| with_floats(v, |v| with_floats(gradient, |slope| Ok(parts(&(q, k, v, slope))))))
        })?;
        let gather = |part: fn(&Slopes) -> &Vec<f32>, n: usize| {
            let chunk = self.length * n * dim;
            let mut all = Vec::with_capacity(self.streams * sequences * chunk);
            for stream in 0..self.streams {
                parts.iter().for_each(|p| all.extend_from_slice(&part(p)[stream * chunk..(stream + 1) * chunk]));
            }
            Tensor::from_vec(all, (self.streams * self.positions.len(), n, dim), q.device())
        };
        Ok((Some(gather(|p| &p.0, heads)?), Some(gather(|p| &p.1, kv_heads)?), Some(gather(|p| &p.2, kv_heads)?)))
    }
}

#[derive(Default)]
struct Scratch {
    weights: Vec<f32>,
    slopes: Vec<f32>,
}

impl BatchAttention {
    /// Rows of keys that a row sees: a run of the main stream's, then one of each of the row's streams.
    fn keys(&self, row: usize) -> impl Iterator<Item = usize> + Clone {
        let tokens = self.positions.len();
        let (stream, token) = (row / tokens, row % tokens);
        let first = token - self.positions[token] as usize;
        (first..=token).chain((1..=stream).map(move |s| s * tokens + token))
    }

    /// Softmax of a head's scores into `weights`; not divided by the sum that is returned.
    fn weigh(&self, q: &[f32], k: &[f32], row: usize, kv: usize, weights: &mut Vec<f32>) -> f32 {
        let (_, kv_heads, dim) = self.shape;
        let scale = 1.0 / (dim as f32).sqrt();
        let key = |key: usize| &k[(key * kv_heads + kv) * dim..][..dim];
        weights.clear();
        weights.extend(self.keys(row).map(|at| dot(q, key(at)) * scale));
        exponentiate(weights)
    }

    fn forward(&self, row: usize, q: &[f32], (k, v): (&[f32], &[f32]), scratch: &mut Scratch, out: &mut [f32]) {
        let (heads, kv_heads, dim) = self.shape;
        for (head, out) in out.chunks_exact_mut(dim).enumerate() {
            let kv = head * kv_heads / heads;
            let q = &q[(row * heads + head) * dim..][..dim];
            let sum = self.weigh(q, k, row, kv, &mut scratch.weights);
            for (key, weight) in self.keys(row).zip(&scratch.weights) {
                add(out, &v[(key * kv_heads + kv) * dim..][..dim], weight / sum);
            }
        }
    }

    /// Gradients of one sequence: weights are computed again rather than kept.
    fn backward(&self, sequence: usize, &(q, k, v, gradient): &Inputs<'_>) -> Slopes {
        let (heads, kv_heads, dim) = self.shape;
        let tokens = self.positions.len();
        let scale = 1.0 / (dim as f32).sqrt();
        let size = self.streams * self.length * dim;
        let (mut dq, mut dk, mut dv) =
            (vec![0.0; size * heads], vec![0.0; size * kv_heads], vec![0.0; size * kv_heads]);
        // Where a row of the batch lies among the sequence's own.
        let own = |row: usize| row / tokens * self.length + row % tokens - sequence * self.length;
        let mut scratch = Scratch::default();
        for stream in 0..self.streams {
            for token in sequence * self.length..(sequence + 1) * self.length {
                let row = stream * tokens + token;
                for head in 0..heads {
                    let kv = head * kv_heads / heads;
                    let at = (row * heads + head) * dim;
                    let (q, gradient) = (&q[at..at + dim], &gradient[at..at + dim]);
                    let sum = self.weigh(q, k, row, kv, &mut scratch.weights);
                    let value = |key: usize| &v[(key * kv_heads + kv) * dim..][..dim];
                    scratch.slopes.clear();
                    scratch.slopes.extend(self.keys(row).map(|key| dot(gradient, value(key))));
                    scratch.weights.iter_mut().for_each(|weight| *weight /= sum);
                    let mean = dot(&scratch.weights, &scratch.slopes);
                    let dq = &mut dq[(own(row) * heads + head) * dim..][..dim];
                    for (key, (weight, slope)) in self.keys(row).zip(scratch.weights.iter().zip(&scratch.slopes)) {
                        let slope = weight * (slope - mean) * scale;
                        let mine = (own(key) * kv_heads + kv) * dim;
                        add(dq, &k[(key * kv_heads + kv) * dim..][..dim], slope);
                        add(&mut dk[mine..mine + dim], q, slope);
                        add(&mut dv[mine..mine + dim], gradient, *weight);
                    }
                }
            }
        }
        (dq, dk, dv)
    }
}

/// `to += from · factor`.
#[inline(always)]
fn add(to: &mut [f32], from: &[f32], factor: f32) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from * factor;
    }
}
