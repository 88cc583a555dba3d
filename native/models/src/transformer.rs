//! One decoder for Qwen3-shaped models: grouped-query attention with normed queries and keys, rotary positions, gated
//! feed-forward (Qwen3 Technical Report, arXiv:2505.09388, §2).

use candle_core::{Device, Result, Tensor, bail};
use candle_nn::ops::rms_norm;
use candle_nn::rotary_emb::rope_thd;
use specula_decoding::{Logits, NewNode};

use crate::attention::TreeAttention;
use crate::cache::Cache;
use crate::config::ModelConfig;
use crate::linear::Linear;
use crate::weights::Weights;

/// Immutable weights; sequences bring their caches.
pub struct Transformer {
    config: ModelConfig,
    device: Device,
    embeddings: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Linear,
    /// cos and sin of the rotary angles, each `[context, D / 2]`.
    rotary: (Tensor, Tensor),
}

struct Layer {
    input_norm: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    q_norm: Tensor,
    k_norm: Tensor,
    output: Linear,
    feed_norm: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// The new rows of a pass.
struct Pass {
    /// cos and sin at the rows' positions, `[L, D / 2]`.
    rotary: (Tensor, Tensor),
    attention: TreeAttention,
}

impl Transformer {
    pub(crate) fn new(config: ModelConfig, weights: &Weights) -> Result<Self> {
        let c = &config;
        let embeddings = weights.table(c.vocab_size, c.hidden, "model.embed_tokens.weight")?;
        // A tied head reads the embedding table.
        let tied = !weights.has("lm_head.weight");
        let head = if tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
        let layers = (0..c.layers).map(|i| Layer::new(c, weights, i)).collect::<Result<_>>()?;
        Ok(Self {
            embeddings,
            layers,
            norm: weights.vector(c.hidden, "model.norm.weight")?,
            head: weights.linear(c.vocab_size, c.hidden, head)?,
            rotary: rotary_tables(c, weights.device())?,
            device: weights.device().clone(),
            config,
        })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(crate) fn cache(&self) -> Result<Cache> {
        Cache::new(self.config.layers, self.config.kv_heads, self.config.head_dim, &self.device)
    }

    /// Embeds new nodes and reserves their slots: the state before layer 1, `[L, hidden]`.
    pub(crate) fn begin(&self, cache: &mut Cache, nodes: &[NewNode]) -> Result<Running> {
        if let Some(bad) = nodes.iter().find(|n| n.token as usize >= self.config.vocab_size) {
            bail!("token {} lies outside the vocabulary of {}", bad.token, self.config.vocab_size);
        }
        let first = cache.slots();
        cache.add(nodes)?;
        let visible: Vec<_> = (first..cache.slots()).map(|slot| cache.visible(slot)).collect();
        let positions: Vec<u32> = visible.iter().map(|v| v.len() as u32 - 1).collect();
        if let Some(bad) = positions.iter().find(|p| **p as usize >= self.config.context_length) {
            bail!("position {bad} lies outside the context of {}", self.config.context_length);
        }
        let positions = Tensor::new(positions, &self.device)?;
        let tokens = Tensor::new(nodes.iter().map(|n| n.token).collect::<Vec<_>>(), &self.device)?;
        let rotary = (self.rotary.0.index_select(&positions, 0)?, self.rotary.1.index_select(&positions, 0)?);
        Ok(Running {
            states: self.embeddings.index_select(&tokens, 0)?,
            pass: Pass { rotary, attention: TreeAttention { visible } },
            next_layer: 0,
        })
    }

    /// Runs layers up to, not including, layer `until` (0-based).
    pub(crate) fn run(&self, running: &mut Running, cache: &mut Cache, until: usize) -> Result<()> {
        for index in running.next_layer..until {
            running.states =
                self.layers[index].forward(&self.config, &running.states, &running.pass, (cache, index))?;
        }
        running.next_layer = until;
        Ok(())
    }

    /// Final norm and head over the current states: `[L, V]`. After all layers these are the model's rows, before that
    /// an early exit's.
    pub(crate) fn rows(&self, running: &Running) -> Result<Logits> {
        let normed = rms_norm(&running.states, &self.norm, self.config.rms_eps)?;
        let rows = self.head.forward(&normed)?;
        Ok(Logits::new(rows.flatten_all()?.to_vec1()?, self.config.vocab_size))
    }
}

/// A pass on its way through the layers.
pub(crate) struct Running {
    states: Tensor,
    pass: Pass,
    next_layer: usize,
}

impl Layer {
    fn new(c: &ModelConfig, weights: &Weights, index: usize) -> Result<Self> {
        let name = |part: &str| format!("model.layers.{index}.{part}.weight");
        let (q_width, kv_width) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let linear = |out, input, part: &str| weights.linear(out, input, &name(part));
        Ok(Self {
            input_norm: weights.vector(c.hidden, &name("input_layernorm"))?,
            q: linear(q_width, c.hidden, "self_attn.q_proj")?,
            k: linear(kv_width, c.hidden, "self_attn.k_proj")?,
            v: linear(kv_width, c.hidden, "self_attn.v_proj")?,
            q_norm: weights.vector(c.head_dim, &name("self_attn.q_norm"))?,
            k_norm: weights.vector(c.head_dim, &name("self_attn.k_norm"))?,
            output: linear(c.hidden, q_width, "self_attn.o_proj")?,
            feed_norm: weights.vector(c.hidden, &name("post_attention_layernorm"))?,
            gate: linear(c.feed_forward, c.hidden, "mlp.gate_proj")?,
            up: linear(c.feed_forward, c.hidden, "mlp.up_proj")?,
            down: linear(c.hidden, c.feed_forward, "mlp.down_proj")?,
        })
    }

    /// `[L, hidden]` → `[L, hidden]`; stores the rows' keys and values.
    fn forward(&self, c: &ModelConfig, x: &Tensor, pass: &Pass, (cache, index): (&mut Cache, usize)) -> Result<Tensor> {
        let rows = x.dim(0)?;
        let normed = rms_norm(x, &self.input_norm, c.rms_eps)?;
        let heads = |linear: &Linear, n: usize| linear.forward(&normed)?.reshape((rows, n, c.head_dim));
        // (L, n, D): norm each head, then turn it to its row's position.
        let turned = |x: Tensor, norm: &Tensor| -> Result<Tensor> {
            let x = rms_norm(&x, norm, c.rms_eps)?.unsqueeze(0)?;
            rope_thd(&x, &pass.rotary.0, &pass.rotary.1)?.squeeze(0)
        };
        let q = turned(heads(&self.q, c.heads)?, &self.q_norm)?;
        let k = turned(heads(&self.k, c.kv_heads)?, &self.k_norm)?;
        let v = heads(&self.v, c.kv_heads)?;
        let (keys, values) = cache.store(index, &k, &v)?;
        let attended = q.apply_op3_no_bwd(keys, values, &pass.attention)?;
        let x = (x + self.output.forward(&attended)?)?;
        let normed = rms_norm(&x, &self.feed_norm, c.rms_eps)?;
        let gated = (self.gate.forward(&normed)?.silu()? * self.up.forward(&normed)?)?;
        x + self.down.forward(&gated)?
    }
}

fn rotary_tables(c: &ModelConfig, device: &Device) -> Result<(Tensor, Tensor)> {
    let half = c.head_dim / 2;
    let inverse: Vec<f32> = (0..half).map(|i| c.rope_theta.powf(-(2.0 * i as f32) / c.head_dim as f32)).collect();
    let angles: Vec<f32> = (0..c.context_length).flat_map(|p| inverse.iter().map(move |f| p as f32 * f)).collect();
    let angles = Tensor::from_vec(angles, (c.context_length, half), device)?;
    Ok((angles.cos()?, angles.sin()?))
}
