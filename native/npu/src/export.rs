//! A draft as graphs of static shapes, by the contract `draft-v1`. Batch size 1; q rows, f rows of streams, T slots of the
//! cache, H heads, K key/value heads, D head size, N layers.
//!
//! | input | shape | what |
//! |---|---|---|
//! | `inputs_embeds` | `[1, q, hidden]` | rows of the embedding table |
//! | `cos`, `sin` | `[1, 1, q + f, D]` | of the rows' angles; the first half of `sin` is negated |
//! | `attention_mask` | `[1, 1, q + f, T + q + f]` | 0 where a row sees a column, −10⁴ elsewhere: the cache's slots, then the pass's own rows |
//! | `stream_rows`, `stream_embeds` | `[1, f, q]`, `[1, f, hidden]` | with streams alone: which row each begins at (1, elsewhere 0), and its learned embedding |
//! | `past_k_i`, `past_v_i` | `[1, K, T, D]` | what layer i gave for the slots, keys turned; f16 in variant `f16`, as the outputs |
//!
//! | output | shape | what |
//! |---|---|---|
//! | `logits` | `[1, q + f, V]` | not of prefills |
//! | `new_k`, `new_v` | `[N, 1, K, q, D]` | to be written to slots of the cache; streams leave nothing |
//!
//! The cache is the caller's: cutting it back is a shorter mask, a tree is another one, and nothing but new columns moves.
//! All operators are among those that CoreML's ML programs and Qualcomm's HTP have, but for those of the int8 variants.

use specula_models::{Activation, DenseWeights, Model, ModelConfig, NormKind};

use crate::bucket::Bucket;
use crate::graph::{Graph, Port, int};
use crate::onnx::{FLOAT, FLOAT16};
use crate::variant::Variant;
use crate::weights::{self, Layout};

/// The contract's name and version.
pub const CONTRACT: &str = "draft-v1";

/// One draft in one variant.
pub struct Exporter {
    config: ModelConfig,
    /// η and Nₛ.
    streams: Option<(usize, usize)>,
    variant: Variant,
    digest: String,
    layout: Layout,
}

impl Exporter {
    /// Of a model with these weights.
    ///
    /// # Errors
    /// A tensor that cannot be read, or what the graphs cannot say of the model.
    pub fn new(model: &Model, weights: &DenseWeights<'_>, variant: Variant) -> Result<Self, String> {
        let config = model.config().clone();
        if config.layers != weights.config().layers {
            return Err("a padded model is not exported; export the model itself".into());
        }
        let said = config.norm == NormKind::RootMeanSquare && config.activation == Activation::GatedSilu;
        if !said || config.learned_positions.is_some() || config.output_bias {
            return Err(format!(
                "`{}` models are not exported: the graphs have root-mean-square norms, gated feed-forward blocks and rotary \
                 positions alone",
                config.architecture.name()
            ));
        }
        let streams = model.stream_embeddings().map(|(embeddings, layers)| (embeddings.len() / config.hidden, layers));
        let digest = weights::digest(&config, CONTRACT, weights)?;
        Ok(Self { layout: Layout::new(&config, variant), config, streams, variant, digest })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// η; 0 for a draft without streams.
    pub fn streams(&self) -> usize {
        self.streams.map_or(0, |(count, _)| count)
    }

    /// The variant.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// SHA-256 of shape and weights.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What lies where in the weights' file.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Bytes of the weights' file.
    pub fn weights_length(&self) -> u64 {
        self.layout.length()
    }

    /// Writes the weights' file, which every graph expects beside it as `weights.bin`.
    ///
    /// # Errors
    /// A tensor that cannot be read, or the writer's.
    pub fn write_weights(&self, weights: &DenseWeights<'_>, to: &mut impl std::io::Write) -> Result<(), String> {
        self.layout.write(weights, to)
    }

    /// Inputs of a bucket's graph: name, ONNX's element type, shape.
    pub(crate) fn inputs(&self, bucket: Bucket) -> Vec<Port> {
        let (c, all) = (&self.config, bucket.rows + bucket.ahead);
        let mut inputs = vec![("inputs_embeds".to_owned(), FLOAT, vec![1, bucket.rows, c.hidden])];
        inputs.extend(["cos", "sin"].map(|name| (name.to_owned(), FLOAT, vec![1, 1, all, c.head_dim])));
        inputs.push(("attention_mask".into(), FLOAT, vec![1, 1, all, bucket.past + all]));
        if bucket.ahead > 0 {
            inputs.push(("stream_rows".into(), FLOAT, vec![1, bucket.ahead, bucket.rows]));
            inputs.push(("stream_embeds".into(), FLOAT, vec![1, bucket.ahead, c.hidden]));
        }
        for name in ["past_k", "past_v"] {
            let shape = vec![1, c.kv_heads, bucket.past, c.head_dim];
            inputs.extend((0..c.layers).map(|layer| (format!("{name}_{layer}"), self.half(), shape.clone())));
        }
        inputs
    }

    fn outputs(&self, bucket: Bucket) -> Vec<Port> {
        let c = &self.config;
        let new = vec![c.layers, 1, c.kv_heads, bucket.rows, c.head_dim];
        let logits = ("logits".to_owned(), FLOAT, vec![1, bucket.rows + bucket.ahead, c.vocab_size]);
        let mut outputs = if bucket.head { vec![logits] } else { Vec::new() };
        outputs.extend(["new_k", "new_v"].map(|name| (name.to_owned(), self.half(), new.clone())));
        outputs
    }

    /// The element type of keys, values and products.
    fn half(&self) -> i32 {
        if self.variant == Variant::F16 { FLOAT16 } else { FLOAT }
    }

    /// The bytes of a bucket's graph.
    pub fn graph(&self, bucket: Bucket) -> Vec<u8> {
        let mut decoder = Decoder {
            c: &self.config,
            variant: self.variant,
            graph: Graph::new(&self.layout),
            bucket,
            ahead: 0,
            inputs: PLAIN.map(str::to_owned),
        };
        let forks = self.streams.filter(|_| bucket.ahead > 0).map(|(_, layers)| self.config.layers - layers);
        decoder.write(forks);
        let notes = [
            ("contract", CONTRACT.to_owned()),
            ("model", self.digest.clone()),
            ("variant", self.variant.name().to_owned()),
            ("bucket", bucket.name()),
        ];
        decoder.graph.encode(self.inputs(bucket), self.outputs(bucket), &notes)
    }
}

/// What every layer reads beside the states: cos, sin, mask.
const PLAIN: [&str; 3] = ["cos", "sin", "attention_mask"];

/// A graph on its way through the layers.
struct Decoder<'a> {
    c: &'a ModelConfig,
    variant: Variant,
    graph: Graph<'a>,
    bucket: Bucket,
    /// Rows of streams that have begun.
    ahead: usize,
    /// cos, sin and mask of the rows that are there.
    inputs: [String; 3],
}

impl Decoder<'_> {
    /// All layers; before layer `forks`, if there is one, streams begin.
    fn write(&mut self, forks: Option<usize>) {
        let mut x = "inputs_embeds".to_owned();
        if forks.is_some() {
            self.inputs = self.without_streams();
        }
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for layer in 0..self.c.layers {
            if forks == Some(layer) {
                x = self.fork(&x);
            }
            let (new_keys, new_values, states) = self.layer(layer, &x);
            keys.push(new_keys);
            values.push(new_values);
            x = states;
        }
        if self.bucket.head {
            let normed = self.normed(&x, "model.norm.weight");
            let logits = self.linear(&normed, weights::head(self.c));
            self.full(&logits);
            self.graph.name_newest("logits");
        }
        for (name, new) in [("new_k", keys), ("new_v", values)] {
            self.graph.concat(&new.iter().map(String::as_str).collect::<Vec<_>>(), 0);
            self.graph.name_newest(name);
        }
    }

    fn rows(&self) -> usize {
        self.bucket.rows + self.ahead
    }

    /// cos, sin and mask of the main rows alone.
    fn without_streams(&mut self) -> [String; 3] {
        let Bucket { rows, ahead, past, .. } = self.bucket;
        let [cos, sin, mask] = PLAIN.map(|name| self.graph.split(name, 2, &[rows, ahead]).swap_remove(0));
        [cos, sin, self.graph.split(&mask, 3, &[past + rows, ahead]).swap_remove(0)]
    }

    /// Streams begin as the state of the row that they fork from, plus their embedding.
    fn fork(&mut self, x: &str) -> String {
        self.inputs = PLAIN.map(str::to_owned);
        self.ahead = self.bucket.ahead;
        let states = self.graph.op("MatMul", &["stream_rows", x]);
        let streams = self.graph.op("Add", &[&states, "stream_embeds"]);
        self.graph.concat(&[x, &streams], 1)
    }

    /// New keys and values `[1, 1, K, q, D]`, and the states after the layer.
    fn layer(&mut self, layer: usize, x: &str) -> (String, String, String) {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let (heads, kv_heads) = (self.c.heads, self.c.kv_heads);
        let normed = self.normed(x, &name("input_layernorm.weight"));
        let queries = self.heads(&normed, layer, ("q", heads));
        let keys = self.heads(&normed, layer, ("k", kv_heads));
        let values = self.heads(&normed, layer, ("v", kv_heads));
        let attended = self.attend(layer, &queries, &keys, &values);
        let change = self.linear(&attended, &name("self_attn.o_proj.weight"));
        let x = self.add_to(x, &change);
        let normed = self.normed(&x, &name("post_attention_layernorm.weight"));
        let gate = self.linear(&normed, &name("mlp.gate_proj.weight"));
        let up = self.linear(&normed, &name("mlp.up_proj.weight"));
        let open = self.graph.op("Sigmoid", &[&gate]);
        let gated = self.graph.op("Mul", &[&gate, &open]);
        let gated = self.graph.op("Mul", &[&gated, &up]);
        let change = self.linear(&gated, &name("mlp.down_proj.weight"));
        let states = self.add_to(&x, &change);
        (self.new_columns(&keys), self.new_columns(&values), states)
    }

    /// Queries, keys or values, `[1, n, rows, D]`, normed and turned where they are due to be.
    fn heads(&mut self, normed: &str, layer: usize, (part, n): (&str, usize)) -> String {
        let c = self.c;
        let name = |end: &str| format!("model.layers.{layer}.self_attn.{part}_{end}");
        let mut x = self.linear(normed, &name("proj.weight"));
        if c.qkv_bias {
            let bias = self.graph.weights(&name("proj.bias"));
            x = self.full(&x);
            x = self.graph.op("Add", &[&x, &bias]);
        }
        x = self.graph.reshape(&x, &[1, self.rows(), n, c.head_dim]);
        if part == "v" {
            let values = self.graph.transpose(&x, &[0, 2, 1, 3]);
            return if c.qkv_bias { self.low(&values) } else { values };
        }
        if !c.qkv_bias {
            x = self.full(&x);
        }
        if c.qk_norm {
            x = self.graph.norm(&x, &name("norm.weight"), c.norm_eps);
        }
        let x = self.graph.transpose(&x, &[0, 2, 1, 3]);
        let turned = self.turn(&x);
        self.low(&turned)
    }

    /// x · cos + (halves of x swapped) · sin.
    fn turn(&mut self, x: &str) -> String {
        let half = self.c.head_dim / 2;
        let halves = self.graph.split(x, 3, &[half, half]);
        let swapped = self.graph.concat(&[&halves[1], &halves[0]], 3);
        let [cos, sin, _] = self.inputs.clone();
        let along = self.graph.op("Mul", &[x, &cos]);
        let across = self.graph.op("Mul", &[&swapped, &sin]);
        self.graph.op("Add", &[&along, &across])
    }

    /// `[1, rows, H·D]`. Cached and new columns are multiplied apart: the cache is not copied to join them. Heads that share
    /// keys are rows of one product.
    fn attend(&mut self, layer: usize, queries: &str, keys: &str, values: &str) -> String {
        let (c, rows) = (self.c, self.rows());
        let (columns, group) = ([self.bucket.past, rows], c.heads / c.kv_heads * rows);
        let (past_keys, past_values) = (format!("past_k_{layer}"), format!("past_v_{layer}"));
        let queries = self.graph.reshape(queries, &[1, c.kv_heads, group, c.head_dim]);
        let scores = [&past_keys, keys].map(|keys| {
            let across = self.graph.transpose(keys, &[0, 1, 3, 2]);
            self.graph.op("MatMul", &[&queries, &across])
        });
        let scores = self.graph.concat(&[&scores[0], &scores[1]], 3);
        let scores = self.full(&scores);
        let scores = self.graph.reshape(&scores, &[1, c.heads, rows, columns[0] + columns[1]]);
        let mask = self.inputs[2].clone();
        let scores = self.graph.op("Add", &[&scores, &mask]);
        let shares = self.graph.op_with("Softmax", &[&scores], vec![int("axis", -1)]);
        let shares = self.low(&shares);
        let shares = self.graph.reshape(&shares, &[1, c.kv_heads, group, columns[0] + columns[1]]);
        let shares = self.graph.split(&shares, 3, &columns);
        let past = self.graph.op("MatMul", &[&shares[0], &past_values]);
        let new = self.graph.op("MatMul", &[&shares[1], values]);
        let attended = self.graph.op("Add", &[&past, &new]);
        let attended = self.graph.reshape(&attended, &[1, c.heads, rows, c.head_dim]);
        let attended = self.graph.transpose(&attended, &[0, 2, 1, 3]);
        self.graph.reshape(&attended, &[1, rows, c.heads * c.head_dim])
    }

    /// The main rows' columns, with an axis for the layer.
    fn new_columns(&mut self, columns: &str) -> String {
        let main = match self.ahead {
            0 => columns.to_owned(),
            ahead => self.graph.split(columns, 2, &[self.bucket.rows, ahead]).swap_remove(0),
        };
        self.graph.reshape(&main, &[1, 1, self.c.kv_heads, self.bucket.rows, self.c.head_dim])
    }

    /// States normed, in the numbers that products are of.
    fn normed(&mut self, x: &str, weights: &str) -> String {
        let normed = self.graph.norm(x, weights, self.c.norm_eps);
        self.low(&normed)
    }

    /// A product with a matrix.
    fn linear(&mut self, x: &str, name: &str) -> String {
        match self.variant {
            Variant::F32 | Variant::F16 => {
                let weights = self.graph.weights(name);
                self.graph.op("MatMul", &[x, &weights])
            }
            Variant::W8 => {
                let (int8, scales) = self.int8(name);
                let weights = self.graph.op_with("DequantizeLinear", &[&int8, &scales], vec![int("axis", 1)]);
                self.graph.op("MatMul", &[x, &weights])
            }
            Variant::Dyn8 => {
                let (int8, scales) = self.int8(name);
                let rounded = self.graph.ops("DynamicQuantizeLinear", &[x], Vec::new(), 3);
                let sums = self.graph.op("MatMulInteger", &[&rounded[0], &int8, &rounded[2]]);
                let sums = self.graph.cast(&sums, FLOAT);
                let scales = self.graph.op("Mul", &[&rounded[1], &scales]);
                self.graph.op("Mul", &[&sums, &scales])
            }
        }
    }

    fn int8(&mut self, name: &str) -> (String, String) {
        (self.graph.weights(&weights::int8(name)), self.graph.weights(&weights::scales(name)))
    }

    /// The states with a product added.
    fn add_to(&mut self, x: &str, change: &str) -> String {
        let change = self.full(change);
        self.graph.op("Add", &[x, &change])
    }

    /// f32 values in the numbers that products are of.
    fn low(&mut self, x: &str) -> String {
        self.cast(x, FLOAT16)
    }

    /// A product in f32.
    fn full(&mut self, x: &str) -> String {
        self.cast(x, FLOAT)
    }

    fn cast(&mut self, x: &str, to: i32) -> String {
        if self.variant == Variant::F16 { self.graph.cast(x, to) } else { x.to_owned() }
    }
}
