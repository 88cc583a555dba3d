//! A transformer in training: the reference's own layers over whole batches, differentiable, with speculative streams.

use candle_core::{D, Device, Result, Tensor};
use candle_nn::ops::softmax;
use specula_decoding::TokenId;

use crate::batch_attention::BatchAttention;
use crate::config::ModelConfig;
use crate::mixed::Precision;
use crate::streams::Streams;
use crate::transformer::{Heads, Transformer};
use crate::weights::{TensorSource, Weights};

/// A model whose weights may be variables.
pub struct Network {
    transformer: Transformer,
}

/// Texts packed into `B` sequences of `T` tokens. Each text begins at position 0 and sees itself alone.
pub struct Batch {
    tokens: Vec<TokenId>,
    /// Position of each token in its text.
    positions: Vec<u32>,
    length: usize,
}

impl Batch {
    /// Packs texts: each item of `sequences` is one sequence of `length` tokens at most; it is filled up with `padding`.
    ///
    /// # Panics
    /// If the texts of a sequence are longer than `length` together.
    pub fn new(sequences: &[Vec<&[TokenId]>], length: usize, padding: TokenId) -> Self {
        let mut batch = Self { tokens: Vec::new(), positions: Vec::new(), length };
        for (i, texts) in sequences.iter().enumerate() {
            for text in texts {
                batch.tokens.extend_from_slice(text);
                batch.positions.extend(0..text.len() as u32);
            }
            let end = (i + 1) * length;
            assert!(batch.tokens.len() <= end, "texts of a sequence fit into it");
            // Padding is a text of its own.
            batch.positions.extend(0..(end - batch.tokens.len()) as u32);
            batch.tokens.resize(end, padding);
        }
        batch
    }

    /// B.
    pub fn sequences(&self) -> usize {
        self.tokens.len() / self.length
    }

    /// T.
    pub fn length(&self) -> usize {
        self.length
    }

    /// `[B, 1, T, T]`: 0 where a row sees a key, −∞ (a large negative number) elsewhere.
    fn mask(&self, device: &Device) -> Result<Tensor> {
        const HIDDEN: f32 = -1e9;
        let t = self.length;
        let mut mask = vec![HIDDEN; self.tokens.len() * t];
        for (row, position) in self.positions.iter().enumerate() {
            let at = row % t;
            mask[row * t + at - *position as usize..=row * t + at].fill(0.0);
        }
        Tensor::from_vec(mask, (self.sequences(), 1, t, t), device)
    }
}

impl Network {
    /// Builds the network over tensors that `tensors` gives by the name that a folder has for them, and shape.
    ///
    /// # Errors
    /// What `tensors` says, or a tensor of another shape.
    pub fn new(
        config: ModelConfig,
        tensors: &TensorSource<'_>,
        precision: Precision,
    ) -> std::result::Result<Self, String> {
        let weights = Weights::trained(tensors, config.architecture, precision);
        Ok(Self { transformer: Transformer::new(config, &weights)? })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.transformer.config
    }

    /// States after the last layer, `[B·T, hidden]`: the main stream's, then one tensor for each stream.
    ///
    /// # Errors
    /// Candle's.
    pub fn states(&self, batch: &Batch, streams: Option<&Streams>) -> Result<Vec<Tensor>> {
        let model = &self.transformer;
        let c = &model.config;
        let mut states = model.embed(&batch.tokens, &batch.positions)?;
        let rotary = model.rotary(&batch.positions)?;
        let split = c.layers - streams.map_or(0, |s| s.layers);
        for layer in &model.layers[..split] {
            states = layer.forward(c, &states, &rotary, |heads| attend(c, batch, 1, heads))?;
        }
        let Some(streams) = streams else { return Ok(vec![states]) };
        let count = streams.embeddings.dim(0)?;
        let mut all = vec![states.clone()];
        let mut positions = batch.positions.clone();
        for j in 1..=count {
            all.push(states.broadcast_add(&streams.embeddings.get(j - 1)?)?);
            positions.extend(batch.positions.iter().map(|p| p + j as u32));
        }
        states = Tensor::cat(&all, 0)?;
        let rotary = model.rotary(&positions)?;
        for layer in &model.layers[split..] {
            states = layer.forward(c, &states, &rotary, |heads| attend(c, batch, 1 + count, heads))?;
        }
        (0..=count).map(|j| states.narrow(0, j * batch.tokens.len(), batch.tokens.len())).collect()
    }

    /// Final norm and head: `[R, hidden]` → `[R, V]`.
    ///
    /// # Errors
    /// Candle's.
    pub fn logits(&self, states: &Tensor) -> Result<Tensor> {
        self.transformer.logits(states)
    }
}

/// [`BatchAttention`], on devices that it has no code for by candle's own operations.
fn attend(c: &ModelConfig, batch: &Batch, streams: usize, heads: Heads) -> Result<Tensor> {
    let (q, k, v) = heads;
    if q.device().is_cpu() {
        let (length, positions) = (batch.length, batch.positions.clone());
        let attention = BatchAttention { streams, length, positions, shape: (c.heads, c.kv_heads, c.head_dim) };
        return q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, attention);
    }
    composed(c, batch, streams, &(q, k, v))
}

fn composed(c: &ModelConfig, batch: &Batch, streams: usize, (q, k, v): &Heads) -> Result<Tensor> {
    let (b, t) = (batch.sequences(), batch.length);
    let ModelConfig { heads, kv_heads, head_dim, .. } = *c;
    let group = heads / kv_heads;
    let mask = batch.mask(q.device())?;
    // [S·B·T, n, D] → of one stream [B, n, T, D]
    let split = |x: &Tensor, stream: usize, n: usize| {
        x.narrow(0, stream * b * t, b * t)?.reshape((b, t, n, head_dim))?.transpose(1, 2)?.contiguous()
    };
    // A stream's key stands at the row's own token: one score a row.
    let spread = |x: &Tensor, stream: usize| -> Result<Tensor> {
        let x = split(x, stream, kv_heads)?.unsqueeze(2)?;
        x.broadcast_as((b, kv_heads, group, t, head_dim))?.reshape((b, heads, t, head_dim))
    };
    let (main_k, main_v) = (split(k, 0, kv_heads)?.t()?, split(v, 0, kv_heads)?);
    let mut all = Vec::with_capacity(streams);
    for stream in 0..streams {
        let q = (split(q, stream, heads)? / (head_dim as f64).sqrt())?;
        let scores = q.reshape((b, kv_heads, group * t, head_dim))?.matmul(&main_k)?.reshape((b, heads, t, t))?;
        let mut scores = vec![scores.broadcast_add(&mask)?];
        for s in 1..=stream {
            scores.push((&q * spread(k, s)?)?.sum_keepdim(D::Minus1)?);
        }
        let weights = softmax(&Tensor::cat(&scores, D::Minus1)?, D::Minus1)?;
        let main = weights.narrow(D::Minus1, 0, t)?.contiguous()?.reshape((b, kv_heads, group * t, t))?;
        let mut out = main.matmul(&main_v)?.reshape((b, heads, t, head_dim))?;
        for s in 1..=stream {
            out = (out + weights.narrow(D::Minus1, t + s - 1, 1)?.broadcast_mul(&spread(v, s)?)?)?;
        }
        all.push(out.transpose(1, 2)?.contiguous()?.reshape((b * t, heads * head_dim))?);
    }
    Tensor::cat(&all, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    /// The attention of one's own and candle's give the same states and the same gradients, with streams.
    #[test]
    fn both_attentions_agree() -> Result<()> {
        let c = ModelConfig::for_tests(4, 2, 8);
        let texts: [&[TokenId]; 3] = [&[1, 2, 3, 4, 5], &[6, 7, 8], &[9, 1, 2, 3]];
        let batch = Batch::new(&[vec![texts[0], texts[1]], vec![texts[2]]], 9, 0);
        let device = Device::Cpu;
        for streams in [1, 3] {
            let rows = streams * 18;
            let random = |n: usize| Var::randn(0f32, 1.0, (rows, n, 8), &device);
            let (q, k, v) = (random(4)?, random(2)?, random(2)?);
            let heads = (q.as_tensor().clone(), k.as_tensor().clone(), v.as_tensor().clone());
            let slope = Tensor::randn(0f32, 1.0, (rows, 32), &device)?;
            let (ours, theirs) = (attend(&c, &batch, streams, heads.clone())?, composed(&c, &batch, streams, &heads)?);
            let gap = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.max_all()?.to_scalar::<f32>();
            assert!(gap(&ours, &theirs)? < 1e-5, "values");
            let (a, b) = ((ours * &slope)?.sum_all()?.backward()?, (theirs * &slope)?.sum_all()?.backward()?);
            for (name, var) in [("q", &q), ("k", &k), ("v", &v)] {
                let (Some(a), Some(b)) = (a.get(var), b.get(var)) else { panic!("no gradient by {name}") };
                assert!(gap(a, b)? < 1e-4, "gradient by {name}, {streams} streams");
            }
        }
        Ok(())
    }
}
