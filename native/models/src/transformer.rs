//! The reference, on candle: one decoder for Llama, Qwen2 and Qwen3: grouped-query attention, rotary positions, gated feed-forward; biases and
//! norms on queries and keys where [`ModelConfig`] says so.

use candle_core::{Device, Result, Tensor};
use candle_nn::ops::rms_norm;
use candle_nn::rotary_emb::rope_thd;
use specula_decoding::{Logits, ModelError, NewNode};

use crate::attention::TreeAttention;
use crate::cache::Cache;
use crate::config::ModelConfig;
use crate::linear::Linear;
use crate::session::{Decoder, new_paths};
use crate::slots::Slots;
use crate::weights::Weights;

/// Immutable weights; sequences bring their caches.
pub(crate) struct Transformer {
    config: ModelConfig,
    device: Device,
    embeddings: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Linear,
}

struct Layer {
    input_norm: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    /// Of queries and keys, where the architecture has them.
    qk_norm: Option<(Tensor, Tensor)>,
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
    /// Takes the weights that a configuration asks for, all of them and no others.
    pub(crate) fn new(config: ModelConfig, weights: &Weights<'_>) -> std::result::Result<Self, String> {
        let c = &config;
        const EMBEDDINGS: &str = "model.embed_tokens";
        let head = if c.tied_head { EMBEDDINGS } else { "lm_head" };
        let model = Self {
            device: Device::Cpu,
            embeddings: weights.table(c.vocab_size, c.hidden, EMBEDDINGS)?,
            layers: (0..c.layers).map(|i| Layer::new(c, weights, i)).collect::<std::result::Result<_, _>>()?,
            norm: weights.vector(c.hidden, "model.norm.weight")?,
            head: weights.linear(c.vocab_size, c.hidden, head, false)?,
            config,
        };
        weights.finish()?;
        Ok(model)
    }

    fn states(&self, nodes: &[NewNode], positions: &[u32]) -> Result<(Tensor, (Tensor, Tensor))> {
        let tokens = Tensor::new(nodes.iter().map(|n| n.token).collect::<Vec<_>>(), &self.device)?;
        let rotary = rotary(positions, &self.config.rope_frequencies, &self.device)?;
        Ok((self.embeddings.index_select(&tokens, 0)?, rotary))
    }

    fn logits(&self, states: &Tensor) -> Result<Vec<f32>> {
        let normed = rms_norm(states, &self.norm, self.config.rms_eps)?;
        self.head.forward(&normed)?.flatten_all()?.to_vec1()
    }
}

impl Decoder for Transformer {
    type Cache = Cache;
    type Pass = Running;

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn cache(&self) -> std::result::Result<Cache, ModelError> {
        Cache::new(self.config.layers, self.config.kv_heads, self.config.head_dim, &self.device).map_err(failure)
    }

    fn slots(cache: &Cache) -> &Slots {
        cache.slots()
    }

    fn begin(&self, cache: &mut Cache, nodes: &[NewNode]) -> std::result::Result<Running, ModelError> {
        cache.add(nodes).map_err(failure)?;
        let visible = new_paths(cache.slots(), nodes.len(), &self.config)?;
        let positions: Vec<u32> = visible.iter().map(|path| path.len() as u32 - 1).collect();
        let (states, rotary) = self.states(nodes, &positions).map_err(failure)?;
        Ok(Running { states, pass: Pass { rotary, attention: TreeAttention { visible } }, next_layer: 0 })
    }

    fn run(&self, running: &mut Running, cache: &mut Cache, until: usize) -> std::result::Result<(), ModelError> {
        for index in running.next_layer..until {
            let states = self.layers[index].forward(&self.config, &running.states, &running.pass, (cache, index));
            running.states = states.map_err(failure)?;
        }
        running.next_layer = until;
        Ok(())
    }

    fn rows(&self, running: &Running, _: &mut Cache) -> std::result::Result<Logits, ModelError> {
        Ok(Logits::new(self.logits(&running.states).map_err(failure)?, self.config.vocab_size))
    }

    fn keep(&self, cache: &mut Cache, from: usize, path: &[usize]) -> std::result::Result<(), ModelError> {
        cache.keep(from, path).map_err(failure)
    }
}

fn failure(error: candle_core::Error) -> ModelError {
    ModelError(error.to_string())
}

/// A pass on its way through the layers.
pub(crate) struct Running {
    states: Tensor,
    pass: Pass,
    next_layer: usize,
}

impl Layer {
    fn new(c: &ModelConfig, weights: &Weights<'_>, index: usize) -> std::result::Result<Self, String> {
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let linear = |out, input, part: &str| weights.linear(out, input, &name(part), false);
        let norm = |len, part: &str| weights.vector(len, &format!("{}.weight", name(part)));
        let heads = |n, part: &str| weights.heads_linear((n, c.head_dim), c.hidden, &name(part), c.qkv_bias);
        let qk_norm = match c.qk_norm {
            true => Some((norm(c.head_dim, "self_attn.q_norm")?, norm(c.head_dim, "self_attn.k_norm")?)),
            false => None,
        };
        Ok(Self {
            input_norm: norm(c.hidden, "input_layernorm")?,
            q: heads(c.heads, "self_attn.q_proj")?,
            k: heads(c.kv_heads, "self_attn.k_proj")?,
            v: weights.linear(c.kv_heads * c.head_dim, c.hidden, &name("self_attn.v_proj"), c.qkv_bias)?,
            qk_norm,
            output: linear(c.hidden, c.heads * c.head_dim, "self_attn.o_proj")?,
            feed_norm: norm(c.hidden, "post_attention_layernorm")?,
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
        let turned = |x: Tensor, norm: Option<&Tensor>| -> Result<Tensor> {
            let x = match norm {
                Some(norm) => rms_norm(&x, norm, c.rms_eps)?,
                None => x,
            };
            rope_thd(&x.unsqueeze(0)?, &pass.rotary.0, &pass.rotary.1)?.squeeze(0)
        };
        let q = turned(heads(&self.q, c.heads)?, self.qk_norm.as_ref().map(|n| &n.0))?;
        let k = turned(heads(&self.k, c.kv_heads)?, self.qk_norm.as_ref().map(|n| &n.1))?;
        let v = heads(&self.v, c.kv_heads)?;
        let (keys, values) = cache.store(index, &k, &v)?;
        let attended = q.apply_op3_no_bwd(keys, values, &pass.attention)?;
        let x = (x + self.output.forward(&attended)?)?;
        let normed = rms_norm(&x, &self.feed_norm, c.rms_eps)?;
        let gated = (self.gate.forward(&normed)?.silu()? * self.up.forward(&normed)?)?;
        x + self.down.forward(&gated)?
    }
}

/// cos and sin of the rows' angles, each `[L, D / 2]`. Computed for each pass: a table would grow with the context a
/// file declares, and costs more than the few angles of a pass.
fn rotary(positions: &[u32], frequencies: &[f32], device: &Device) -> Result<(Tensor, Tensor)> {
    let angles: Vec<f32> = positions.iter().flat_map(|p| frequencies.iter().map(move |f| *p as f32 * f)).collect();
    let angles = Tensor::from_vec(angles, (positions.len(), frequencies.len()), device)?;
    Ok((angles.cos()?, angles.sin()?))
}
