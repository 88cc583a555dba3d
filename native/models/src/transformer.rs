//! The reference, on candle: one decoder for all families: grouped-query attention, rotary or learned positions, a
//! feed-forward block with or without a gate; norms and biases as [`ModelConfig`] says.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor};
use specula_decoding::{Logits, ModelError, NewNode, Reduction, Rows, TokenId};
use specula_kernels::Path;

use crate::cache::Cache;
use crate::config::{Activation, ModelConfig};
use crate::device_rows::{self, DeviceRows};
use crate::exit::{Adapter, Exits};
use crate::gated::gated;
use crate::linear::Linear;
use crate::mixed::Precision;
use crate::norm::Norm;
use crate::rotary::{Rotary, turn};
use crate::seeing::Seeing;
use crate::session::{Coming, Decoder, new_paths, stream_nodes};
use crate::slots::Slots;
use crate::streams::Streams;
use crate::weights::Weights;

/// Immutable weights; sequences bring their caches.
pub(crate) struct Transformer {
    pub(crate) config: ModelConfig,
    device: Device,
    /// Whether a row has the same bits in every pass.
    row_invariant: bool,
    /// How rows leave a device.
    device_rows: Option<DeviceRows>,
    embeddings: Tensor,
    /// Learned positions, if the model has them.
    positions: Option<Tensor>,
    pub(crate) layers: Vec<Layer>,
    norm: Norm,
    head: Linear,
    exits: BTreeMap<usize, Linear>,
    streams: Option<Streams>,
}

pub(crate) struct Layer {
    input_norm: Norm,
    q: Linear,
    k: Linear,
    v: Linear,
    /// Of queries and keys, where the architecture has them.
    qk_norm: Option<(Norm, Norm)>,
    output: Linear,
    feed_norm: Norm,
    /// Where the activation has one.
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
}

/// The new rows of a pass.
struct Pass {
    rotary: Rotary,
    /// One entry a row.
    visible: Vec<Path>,
    seeing: Seeing,
}

/// Queries `[L, H, D]`, keys and values `[L, K, D]`.
pub(crate) type Heads = (Tensor, Tensor, Tensor);

impl Transformer {
    /// Takes the weights that a configuration asks for, all of them and no others.
    pub(crate) fn new(config: ModelConfig, weights: &Weights<'_>) -> std::result::Result<Self, String> {
        let c = &config;
        const EMBEDDINGS: &str = "model.embed_tokens";
        let head = if c.tied_head { EMBEDDINGS } else { "lm_head" };
        let embeddings = weights.table(c.vocab_size, c.hidden, EMBEDDINGS)?;
        let model = Self {
            device: embeddings.device().clone(),
            row_invariant: weights.row_invariant(),
            device_rows: match weights.on_device() {
                true => Some(DeviceRows::new(embeddings.device()).map_err(|error| error.to_string())?),
                false => None,
            },
            embeddings,
            positions: weights.positions(c)?,
            layers: (0..c.layers).map(|i| Layer::new(c, weights, i)).collect::<std::result::Result<_, _>>()?,
            norm: weights.norm(c, "model.norm")?,
            head: weights.linear(c.vocab_size, c.hidden, head, false)?,
            exits: BTreeMap::new(),
            streams: None,
            config,
        };
        weights.finish()?;
        Ok(model)
    }

    /// Takes the adapters of early exits, whose shapes are checked.
    pub(crate) fn set_exits(&mut self, exits: &Exits) -> std::result::Result<(), String> {
        let linear = |a: &Adapter| -> Result<Linear> {
            let (weights, bias) = (self.placed(&a.weights)?, Some(self.placed(&a.bias)?));
            Ok(match self.row_invariant {
                true => Linear::dense(weights, bias),
                false => Linear::direct(weights, Precision::default(), bias),
            })
        };
        let placed = exits.adapters.iter().map(|(layer, adapter)| Ok((*layer, linear(adapter)?)));
        self.exits = placed.collect::<Result<_>>().map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Takes streams, whose shape is checked.
    pub(crate) fn set_streams(&mut self, streams: &Streams) -> std::result::Result<(), String> {
        let embeddings = self.placed(&streams.embeddings).map_err(|error| error.to_string())?;
        self.streams = Some(Streams { embeddings, ..streams.clone() });
        Ok(())
    }

    /// A tensor where the model's own are, and of their type.
    fn placed(&self, tensor: &Tensor) -> Result<Tensor> {
        tensor.to_device(&self.device)?.to_dtype(self.embeddings.dtype())
    }

    fn pass(&self, cache: &Cache, visible: Vec<Path>) -> Result<Pass> {
        let seeing = match self.row_invariant {
            true => Seeing::reference(&visible),
            false => Seeing::on(&self.device, &visible, cache.slots().len(), self.config.head_dim)?,
        };
        Ok(Pass { rotary: self.rotary(&positions_of(&visible))?, visible, seeing })
    }

    /// `[L, V]` of the states so far, with the adapter of an exit if one stands there.
    fn read_out(&self, running: &Running) -> Result<Tensor> {
        match self.exits.get(&running.next_layer) {
            Some(adapter) => self.logits(&(&running.states + adapter.forward(&running.states)?)?),
            None => self.logits(&running.states),
        }
    }

    /// Whether a row has the same bits in every pass.
    pub(crate) fn row_invariant(&self) -> bool {
        self.row_invariant
    }

    /// What is computed in.
    pub(crate) fn kind(&self) -> DType {
        self.embeddings.dtype()
    }

    /// η embeddings and Nₛ, where they can be read.
    pub(crate) fn stream_embeddings(&self) -> Option<(Vec<f32>, usize)> {
        let streams = self.streams.as_ref()?;
        Some((streams.embeddings.flatten_all().and_then(|e| e.to_vec1()).ok()?, streams.layers))
    }

    /// Rows of the embedding table as plain numbers.
    pub(crate) fn embeddings(&self, tokens: &[TokenId]) -> std::result::Result<Vec<f32>, ModelError> {
        self.rows_of(&self.embeddings, tokens).and_then(|rows| rows.flatten_all()?.to_vec1()).map_err(failure)
    }

    fn rows_of(&self, table: &Tensor, rows: &[u32]) -> Result<Tensor> {
        table.index_select(&Tensor::new(rows, &self.device)?, 0)
    }

    /// Tokens and their positions, `[L]` → `[L, hidden]`: the state before layer 1.
    pub(crate) fn embed(&self, tokens: &[TokenId], positions: &[u32]) -> Result<Tensor> {
        let states = self.rows_of(&self.embeddings, tokens)?;
        match &self.positions {
            Some(table) => states + self.rows_of(table, positions)?,
            None => Ok(states),
        }
    }

    /// cos and sin of the rows' angles. Computed for each pass: a table would grow with the context a file declares, and
    /// costs more than the few angles of a pass.
    pub(crate) fn rotary(&self, positions: &[u32]) -> Result<Rotary> {
        let frequencies = &self.config.rope_frequencies;
        let angles: Vec<f32> = positions.iter().flat_map(|p| frequencies.iter().map(move |f| *p as f32 * f)).collect();
        let angles = Tensor::from_vec(angles, (positions.len(), frequencies.len()), &self.device)?;
        let kind = self.embeddings.dtype();
        Ok((angles.cos()?.to_dtype(kind)?, angles.sin()?.to_dtype(kind)?))
    }

    /// Final norm and head: `[L, hidden]` → `[L, V]`.
    pub(crate) fn logits(&self, states: &Tensor) -> Result<Tensor> {
        self.head.forward(&self.norm.forward(states)?)
    }
}

impl Decoder for Transformer {
    type Cache = Cache;
    type Pass = Running;

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn cache(&self) -> std::result::Result<Cache, ModelError> {
        let shape = (self.config.kv_heads, self.config.head_dim);
        Cache::new(self.config.layers, shape, self.embeddings.dtype(), &self.device).map_err(failure)
    }

    fn slots(cache: &Cache) -> &Slots {
        cache.slots()
    }

    fn begin(&self, cache: &mut Cache, nodes: &[NewNode]) -> std::result::Result<Running, ModelError> {
        cache.add(nodes).map_err(failure)?;
        let visible = new_paths(cache.slots(), nodes.len(), &self.config)?;
        let tokens: Vec<TokenId> = nodes.iter().map(|n| n.token).collect();
        let states = self.embed(&tokens, &positions_of(&visible)).map_err(failure)?;
        Ok(Running { states, pass: self.pass(cache, visible).map_err(failure)?, next_layer: 0 })
    }

    fn run(&self, running: &mut Running, cache: &mut Cache, until: usize) -> std::result::Result<(), ModelError> {
        for index in running.next_layer..until {
            let attend = |(q, k, v): Heads| {
                let (keys, values) = cache.store(index, &k, &v)?;
                running.pass.seeing.attend(&q, keys, values)
            };
            let states = self.layers[index].forward(&self.config, &running.states, &running.pass.rotary, attend);
            running.states = states.map_err(failure)?;
        }
        running.next_layer = until;
        Ok(())
    }

    fn streams(&self) -> Option<(usize, usize)> {
        self.streams.as_ref().map(|streams| (streams.count(), streams.layers))
    }

    fn fork(
        &self,
        running: &mut Running,
        cache: &mut Cache,
        from: &[usize],
        count: usize,
    ) -> std::result::Result<(), ModelError> {
        let Some(streams) = &self.streams else { return Ok(()) };
        let mut visible = std::mem::take(&mut running.pass.visible);
        let nodes = stream_nodes(cache.slots(), visible.len(), from, count);
        cache.add(&nodes).map_err(failure)?;
        visible.extend(new_paths(cache.slots(), nodes.len(), &self.config)?);
        let begin = || {
            let mut states = vec![running.states.clone()];
            for &row in from {
                let embeddings = streams.embeddings.narrow(0, 0, count)?;
                states.push(running.states.narrow(0, row, 1)?.broadcast_add(&embeddings)?);
            }
            Ok((Tensor::cat(&states, 0)?, self.pass(cache, visible)?))
        };
        (running.states, running.pass) = begin().map_err(failure)?;
        Ok(())
    }

    fn drop_newest(&self, cache: &mut Cache, count: usize) {
        cache.drop_newest(count);
    }

    fn rows(&self, running: &Running, _: &mut Cache) -> std::result::Result<Logits, ModelError> {
        self.read_out(running).and_then(|logits| device_rows::read(&logits)).map_err(failure)
    }

    fn begin_rows(
        &self,
        running: &Running,
        cache: &mut Cache,
        reduction: Option<&Reduction>,
    ) -> std::result::Result<Coming, ModelError> {
        match &self.device_rows {
            Some(rows) => self.read_out(running).and_then(|logits| rows.begin(logits, reduction)).map_err(failure),
            None => Ok(Coming::There(Rows::whole(self.rows(running, cache)?))),
        }
    }

    fn states(&self, running: &Running, _: &Cache) -> std::result::Result<Vec<f32>, ModelError> {
        let states = running.states.flatten_all().and_then(|states| states.to_dtype(DType::F32)?.to_vec1());
        states.map_err(failure)
    }

    fn keep(&self, cache: &mut Cache, from: usize, path: &[usize]) -> std::result::Result<(), ModelError> {
        cache.keep(from, path).map_err(failure)
    }
}

fn positions_of(visible: &[Path]) -> Vec<u32> {
    visible.iter().map(|path| path.len() as u32 - 1).collect()
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
        let linear = |out, input, part: &str| weights.linear(out, input, &name(part), c.output_bias);
        let head_norm = |part: &str| {
            let weight = weights.vector(c.head_dim, &format!("{}.weight", name(part)))?;
            Ok::<_, String>(Norm { weight, bias: None, epsilon: c.norm_eps })
        };
        let heads = |n, part: &str| weights.heads_linear((n, c.head_dim), c.hidden, &name(part), c.qkv_bias);
        let qk_norm = match c.qk_norm {
            true => Some((head_norm("self_attn.q_norm")?, head_norm("self_attn.k_norm")?)),
            false => None,
        };
        Ok(Self {
            input_norm: weights.norm(c, &name("input_layernorm"))?,
            q: heads(c.heads, "self_attn.q_proj")?,
            k: heads(c.kv_heads, "self_attn.k_proj")?,
            v: weights.linear(c.kv_heads * c.head_dim, c.hidden, &name("self_attn.v_proj"), c.qkv_bias)?,
            qk_norm,
            output: linear(c.hidden, c.heads * c.head_dim, "self_attn.o_proj")?,
            feed_norm: weights.norm(c, &name("post_attention_layernorm"))?,
            gate: match c.activation {
                Activation::GatedSilu => Some(linear(c.feed_forward, c.hidden, "mlp.gate_proj")?),
                Activation::Relu => None,
            },
            up: linear(c.feed_forward, c.hidden, "mlp.up_proj")?,
            down: linear(c.hidden, c.feed_forward, "mlp.down_proj")?,
        })
    }

    /// `[L, hidden]` → `[L, hidden]`; `attend` gives `[L, H·D]`.
    pub(crate) fn forward(
        &self,
        c: &ModelConfig,
        x: &Tensor,
        rotary: &Rotary,
        attend: impl FnOnce(Heads) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let attended = attend(self.heads(c, x, rotary)?)?;
        self.finish(x, &attended)
    }

    /// Queries, keys and values of the rows, normed and turned to their positions.
    pub(crate) fn heads(&self, c: &ModelConfig, x: &Tensor, rotary: &Rotary) -> Result<Heads> {
        let rows = x.dim(0)?;
        let normed = self.input_norm.forward(x)?;
        let heads = |linear: &Linear, n: usize| linear.forward(&normed)?.reshape((rows, n, c.head_dim));
        let turned = |x: Tensor, norm: Option<&Norm>| match norm {
            Some(norm) => turn(&norm.forward(&x)?, rotary),
            None => turn(&x, rotary),
        };
        let q = turned(heads(&self.q, c.heads)?, self.qk_norm.as_ref().map(|n| &n.0))?;
        let k = turned(heads(&self.k, c.kv_heads)?, self.qk_norm.as_ref().map(|n| &n.1))?;
        Ok((q, k, heads(&self.v, c.kv_heads)?))
    }

    /// What follows attention: `attended` `[L, H·D]` → `[L, hidden]`.
    pub(crate) fn finish(&self, x: &Tensor, attended: &Tensor) -> Result<Tensor> {
        let x = (x + self.output.forward(attended)?)?;
        let normed = self.feed_norm.forward(&x)?;
        let up = self.up.forward(&normed)?;
        let inner = match &self.gate {
            Some(gate) => gated(&gate.forward(&normed)?, &up)?,
            None => up.relu()?,
        };
        x + self.down.forward(&inner)?
    }
}
