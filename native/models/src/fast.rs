//! The decoder on the CPU kernels: what [`Transformer`](crate::transformer::Transformer) computes, on packed weights and
//! buffers that are made once.

use std::collections::BTreeMap;

use candle_core::Tensor;
use specula_decoding::{Logits, ModelError, NewNode, TokenId};
use specula_kernels::{
    HeadNorm, HeadShape, Isa, KeyValues, Matrix, Path, Scratch, Team, Turn, add_rows, add_to_rows, attend, gate,
    layer_norm_rows, norm_rows, products, relu, turn_heads,
};

use crate::config::{Activation, ModelConfig, NormKind};
use crate::cores::{Cores, Crew, Part};
use crate::exit::{Adapter, Exits};
use crate::session::{Decoder, new_paths, stream_nodes};
use crate::slots::Slots;
use crate::streams::Streams;
use crate::weights::Weights;

/// Immutable weights; sequences bring their caches.
pub(crate) struct FastDecoder {
    config: ModelConfig,
    crew: Crew,
    /// `None`: the head's rows.
    embeddings: Option<Matrix>,
    /// Learned positions, `[context, hidden]`, if the model has them.
    positions: Option<Vec<f32>>,
    layers: Vec<Layer>,
    norm: Norm,
    head: Matrix,
    exits: BTreeMap<usize, ExitLayer>,
    /// The head that exits read with, unless it is the head itself: they only rank, so int8 serves.
    exit_head: Option<Matrix>,
    streams: Option<StreamLayers>,
}

/// Streams of a draft.
struct StreamLayers {
    /// `[η, hidden]`.
    embeddings: Vec<f32>,
    /// Nₛ.
    layers: usize,
}

/// An early exit's adapter.
struct ExitLayer {
    weights: Matrix,
    bias: Vec<f32>,
}

struct Norm {
    weight: Vec<f32>,
    /// Of a layer norm.
    bias: Option<Vec<f32>>,
}

/// A product and, where the architecture has one, its bias.
struct Output {
    weights: Matrix,
    bias: Option<Vec<f32>>,
}

struct Layer {
    input_norm: Norm,
    /// Queries, keys, values.
    qkv: [Matrix; 3],
    /// Theirs, side by side.
    qkv_bias: Option<Vec<f32>>,
    /// Of queries and keys.
    qk_norm: Option<(Vec<f32>, Vec<f32>)>,
    output: Output,
    feed_norm: Norm,
    /// Where the activation has one.
    gate: Option<Matrix>,
    up: Output,
    down: Output,
}

/// What a sequence holds.
pub(crate) struct FastCache {
    slots: Slots,
    layers: Vec<KeyValues>,
    rows: Buffers,
}

/// The rows of a pass, `[L, …]`; their memory is reused.
#[derive(Default)]
struct Buffers {
    states: Vec<f32>,
    normed: Vec<f32>,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    /// Of a gated block: gates and what they gate, side by side.
    gates: Vec<f32>,
    inner: Vec<f32>,
    change: Vec<f32>,
    scratch: Scratch,
}

/// A pass on its way through the layers.
#[derive(Default)]
pub(crate) struct FastPass {
    paths: Vec<Path>,
    /// cos and sin of the rows' angles, `[L, D / 2]`.
    cos: Vec<f32>,
    sin: Vec<f32>,
    first_slot: usize,
    next_layer: usize,
}

impl FastDecoder {
    /// Packs the weights that a configuration asks for, all of them and no others.
    ///
    /// # Errors
    /// If one is missing, or the kernels do not have its format.
    pub(crate) fn new(config: ModelConfig, weights: &Weights<'_>) -> Result<Self, String> {
        let c = &config;
        const EMBEDDINGS: &str = "model.embed_tokens";
        let table = |name| weights.packed(c.vocab_size, c.hidden, name);
        let head = table(if c.tied_head { EMBEDDINGS } else { "lm_head" })?;
        let decoder = Self {
            embeddings: if c.tied_head { None } else { Some(table(EMBEDDINGS)?) },
            exit_head: head.in_int8(),
            head,
            positions: weights.positions(c)?.map(|table| flat(&table)).transpose()?,
            layers: (0..c.layers).map(|i| Layer::new(c, weights, i)).collect::<Result<_, _>>()?,
            norm: Norm::new(c, weights, "model.norm")?,
            crew: Crew::alone(),
            exits: BTreeMap::new(),
            streams: None,
            config,
        };
        weights.finish()?;
        Ok(decoder)
    }

    /// Takes the adapters of early exits, whose shapes are checked.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub(crate) fn set_exits(&mut self, exits: &Exits) -> Result<(), String> {
        let hidden = self.config.hidden;
        let pack = |(layer, adapter): (&usize, &Adapter)| {
            let weights = Matrix::f32(hidden, hidden, &flat(&adapter.weights)?).map_err(|e| e.to_string())?;
            let weights = weights.in_int8().unwrap_or(weights);
            Ok((*layer, ExitLayer { weights, bias: flat(&adapter.bias)? }))
        };
        self.exits = exits.adapters.iter().map(pack).collect::<Result<_, String>>()?;
        Ok(())
    }

    /// Takes streams, whose shape is checked.
    ///
    /// # Errors
    /// Candle's.
    pub(crate) fn set_streams(&mut self, streams: &Streams) -> Result<(), String> {
        self.streams = Some(StreamLayers { embeddings: flat(&streams.embeddings)?, layers: streams.layers });
        Ok(())
    }

    /// Takes cores to work on.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub(crate) fn set_cores(&mut self, cores: &Cores) -> Result<(), String> {
        self.crew = Crew::start(cores)?;
        Ok(())
    }

    /// η embeddings and Nₛ.
    pub(crate) fn stream_embeddings(&self) -> Option<(Vec<f32>, usize)> {
        self.streams.as_ref().map(|streams| (streams.embeddings.clone(), streams.layers))
    }

    /// Rows of the embedding table, of tokens in the vocabulary.
    pub(crate) fn embeddings(&self, tokens: &[TokenId]) -> Vec<f32> {
        let mut rows = vec![0.0; tokens.len() * self.config.hidden];
        self.embed(tokens.iter().copied(), &mut rows);
        rows
    }

    fn embed(&self, tokens: impl Iterator<Item = TokenId>, rows: &mut [f32]) {
        let table = self.embeddings.as_ref().unwrap_or(&self.head);
        for (token, row) in tokens.zip(rows.chunks_exact_mut(self.config.hidden)) {
            table.row(token as usize, row);
        }
    }

    pub(crate) fn crew(&self) -> &Crew {
        &self.crew
    }

    /// The instructions in use.
    pub(crate) fn isa(&self) -> Isa {
        self.crew.isa()
    }

    /// Final norm and head over the states after `layer` layers; before them the adapter, where the layer has one.
    fn head_rows(&self, team: &Team, layer: usize, rows: &mut Buffers, logits: &mut [f32]) {
        let states = match self.exits.get(&layer) {
            None => &rows.states,
            Some(exit) => {
                products(team, &[&exit.weights], &rows.states, &mut rows.scratch, &mut rows.change);
                for (change, states) in
                    rows.change.chunks_exact_mut(self.config.hidden).zip(rows.states.chunks_exact(self.config.hidden))
                {
                    for (change, (state, bias)) in change.iter_mut().zip(states.iter().zip(&exit.bias)) {
                        *change += state + bias;
                    }
                }
                &rows.change
            }
        };
        self.norm.forward(team.isa(), &self.config, states, &mut rows.normed);
        let head = match &self.exit_head {
            Some(head) if layer < self.config.layers => head,
            _ => &self.head,
        };
        products(team, &[head], &rows.normed, &mut rows.scratch, logits);
    }
}

impl Decoder for FastDecoder {
    type Cache = FastCache;
    type Pass = FastPass;

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn cache(&self) -> Result<FastCache, ModelError> {
        let ModelConfig { heads, kv_heads, head_dim: dim, layers, .. } = self.config;
        let layers = (0..layers).map(|_| KeyValues::new(HeadShape { heads, kv_heads, dim })).collect();
        Ok(FastCache { slots: Slots::default(), layers, rows: Buffers::default() })
    }

    fn slots(cache: &FastCache) -> &Slots {
        &cache.slots
    }

    fn begin(&self, cache: &mut FastCache, nodes: &[NewNode]) -> Result<FastPass, ModelError> {
        let first_slot = cache.slots.len();
        cache.slots.add(nodes).map_err(ModelError)?;
        let paths = new_paths(&cache.slots, nodes.len(), &self.config)?;
        for layer in &mut cache.layers {
            layer.reserve(cache.slots.len());
        }
        cache.rows.fit(&self.config, nodes.len());
        self.embed(nodes.iter().map(|node| node.token), &mut cache.rows.states);
        if let Some(positions) = &self.positions {
            let hidden = self.config.hidden;
            for (path, state) in paths.iter().zip(cache.rows.states.chunks_exact_mut(hidden)) {
                add_rows(self.isa(), state, &positions[(path.len() - 1) * hidden..path.len() * hidden]);
            }
        }
        let mut pass = FastPass { first_slot, ..FastPass::default() };
        pass.add(&self.config, paths);
        Ok(pass)
    }

    fn run(&self, pass: &mut FastPass, cache: &mut FastCache, until: usize) -> Result<(), ModelError> {
        self.crew.work(pass.paths.len(), Part::Layers(until - pass.next_layer), |team| {
            for index in pass.next_layer..until {
                self.layers[index].forward((&self.config, team), pass, &mut cache.layers[index], &mut cache.rows);
            }
        });
        pass.next_layer = until;
        Ok(())
    }

    fn streams(&self) -> Option<(usize, usize)> {
        let streams = self.streams.as_ref()?;
        Some((streams.embeddings.len() / self.config.hidden, streams.layers))
    }

    fn fork(&self, pass: &mut FastPass, cache: &mut FastCache, from: &[usize], count: usize) -> Result<(), ModelError> {
        let Some(streams) = &self.streams else { return Ok(()) };
        let hidden = self.config.hidden;
        let rows = pass.paths.len();
        let nodes = stream_nodes(&cache.slots, rows, from, count);
        cache.slots.add(&nodes).map_err(ModelError)?;
        let paths = new_paths(&cache.slots, nodes.len(), &self.config)?;
        for layer in &mut cache.layers[pass.next_layer..] {
            layer.reserve(cache.slots.len());
        }
        cache.rows.fit(&self.config, rows + nodes.len());
        let (main, new) = cache.rows.states.split_at_mut(rows * hidden);
        let begun = from.iter().flat_map(|row| {
            let state = &main[row * hidden..(row + 1) * hidden];
            streams.embeddings.chunks_exact(hidden).take(count).map(move |embedding| (state, embedding))
        });
        for (stream, (state, embedding)) in new.chunks_exact_mut(hidden).zip(begun) {
            stream.copy_from_slice(state);
            add_rows(self.isa(), stream, embedding);
        }
        pass.add(&self.config, paths);
        Ok(())
    }

    fn drop_newest(&self, cache: &mut FastCache, count: usize) {
        cache.slots.drop_newest(count);
    }

    fn rows(&self, pass: &FastPass, cache: &mut FastCache) -> Result<Logits, ModelError> {
        let rows = &mut cache.rows;
        let mut logits = vec![0.0; pass.paths.len() * self.config.vocab_size];
        self.crew.work(pass.paths.len(), Part::Head, |team| self.head_rows(team, pass.next_layer, rows, &mut logits));
        Ok(Logits::new(logits, self.config.vocab_size))
    }

    fn states(&self, _: &FastPass, cache: &FastCache) -> Result<Vec<f32>, ModelError> {
        Ok(cache.rows.states.clone())
    }

    fn keep(&self, cache: &mut FastCache, from: usize, path: &[usize]) -> Result<(), ModelError> {
        for (from, to) in cache.slots.keep(from, path).map_err(ModelError)? {
            for layer in &mut cache.layers {
                layer.copy(from, to);
            }
        }
        Ok(())
    }
}

fn flat(tensor: &Tensor) -> Result<Vec<f32>, String> {
    tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(|e| e.to_string())
}

impl FastPass {
    /// Takes rows that see these paths.
    fn add(&mut self, config: &ModelConfig, paths: Vec<Path>) {
        for path in &paths {
            let position = (path.len() - 1) as f32;
            for frequency in config.rope_frequencies.iter() {
                let angle = position * frequency;
                self.cos.push(angle.cos());
                self.sin.push(angle.sin());
            }
        }
        self.paths.extend(paths);
    }
}

impl Norm {
    fn new(c: &ModelConfig, weights: &Weights<'_>, name: &str) -> Result<Self, String> {
        let vector = |part: &str| weights.values(c.hidden, &format!("{name}.{part}"));
        let bias = match c.norm {
            NormKind::RootMeanSquare => None,
            NormKind::Layer => Some(vector("bias")?),
        };
        Ok(Self { weight: vector("weight")?, bias })
    }

    fn forward(&self, isa: Isa, c: &ModelConfig, x: &[f32], to: &mut [f32]) {
        match &self.bias {
            None => norm_rows(isa, x, &self.weight, c.norm_eps, to),
            Some(bias) => layer_norm_rows(isa, x, (&self.weight, bias), c.norm_eps, to),
        }
    }
}

impl Output {
    fn forward(&self, team: &Team, x: &[f32], scratch: &mut Scratch, to: &mut [f32]) {
        products(team, &[&self.weights], x, scratch, to);
        if let Some(bias) = &self.bias {
            add_to_rows(team.isa(), to, bias);
        }
    }
}

impl Layer {
    fn new(c: &ModelConfig, weights: &Weights<'_>, index: usize) -> Result<Self, String> {
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let packed = |out, input, part: &str| weights.packed(out, input, &name(part));
        let vector = |len, part: &str| weights.values(len, &name(part));
        let output = |out, input, part: &str| {
            let bias = c.output_bias.then(|| vector(out, &format!("{part}.bias"))).transpose()?;
            Ok::<_, String>(Output { weights: packed(out, input, part)?, bias })
        };
        let heads = |n, part: &str| weights.heads_packed((n, c.head_dim), c.hidden, &name(part));
        let (queries, keys) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let qkv_bias = match c.qkv_bias {
            true => {
                let parts = [(queries, "q_proj"), (keys, "k_proj"), (keys, "v_proj")];
                let bias = |(len, part)| vector(len, &format!("self_attn.{part}.bias"));
                Some(parts.into_iter().map(bias).collect::<Result<Vec<_>, _>>()?.concat())
            }
            false => None,
        };
        let qk_norm = match c.qk_norm {
            true => {
                Some((vector(c.head_dim, "self_attn.q_norm.weight")?, vector(c.head_dim, "self_attn.k_norm.weight")?))
            }
            false => None,
        };
        Ok(Self {
            input_norm: Norm::new(c, weights, &name("input_layernorm"))?,
            qkv: [
                heads(c.heads, "self_attn.q_proj")?,
                heads(c.kv_heads, "self_attn.k_proj")?,
                packed(keys, c.hidden, "self_attn.v_proj")?,
            ],
            qkv_bias,
            qk_norm,
            output: output(c.hidden, queries, "self_attn.o_proj")?,
            feed_norm: Norm::new(c, weights, &name("post_attention_layernorm"))?,
            gate: match c.activation {
                Activation::GatedSilu => Some(packed(c.feed_forward, c.hidden, "mlp.gate_proj")?),
                Activation::Relu => None,
            },
            up: output(c.feed_forward, c.hidden, "mlp.up_proj")?,
            down: output(c.hidden, c.feed_forward, "mlp.down_proj")?,
        })
    }

    fn forward(&self, (c, team): (&ModelConfig, &Team), pass: &FastPass, cache: &mut KeyValues, rows: &mut Buffers) {
        let Buffers { states, normed, qkv, attended, gates, inner, change, scratch } = rows;
        let isa = team.isa();
        self.input_norm.forward(isa, c, states, normed);
        products(team, &self.qkv.each_ref(), normed, scratch, qkv);
        let how = Turn {
            bias: self.qkv_bias.as_deref(),
            norm: self.qk_norm.as_ref().map(|(query, key)| HeadNorm { query, key, epsilon: c.norm_eps }),
            cos: &pass.cos,
            sin: &pass.sin,
        };
        turn_heads(isa, qkv, how, cache, pass.first_slot);
        attend(team, (qkv, qkv.len() / pass.paths.len()), cache, &pass.paths, attended);
        self.output.forward(team, attended, scratch, change);
        add_rows(isa, states, change);
        self.feed_norm.forward(isa, c, states, normed);
        match &self.gate {
            Some(gated) => {
                products(team, &[gated, &self.up.weights], normed, scratch, gates);
                gate(team, gates, c.feed_forward, inner);
            }
            None => {
                self.up.forward(team, normed, scratch, inner);
                relu(isa, inner);
            }
        }
        self.down.forward(team, inner, scratch, change);
        add_rows(isa, states, change);
    }
}

impl Buffers {
    /// Takes the sizes that a pass of `rows` rows needs.
    fn fit(&mut self, c: &ModelConfig, rows: usize) {
        let queries = c.heads * c.head_dim;
        for (buffer, width) in [
            (&mut self.states, c.hidden),
            (&mut self.normed, c.hidden),
            (&mut self.qkv, queries + 2 * c.kv_heads * c.head_dim),
            (&mut self.attended, queries),
            (&mut self.gates, 2 * c.feed_forward),
            (&mut self.inner, c.feed_forward),
            (&mut self.change, c.hidden),
        ] {
            buffer.resize(rows * width, 0.0);
        }
    }
}
