//! The file of a draft's weights, which all graphs of a variant share: what lies where follows from the model's shape.

use std::io::{self, Write};

use half::f16;
use sha2::{Digest, Sha256};
use specula_models::{DenseWeights, ModelConfig};

use crate::onnx::{FLOAT, FLOAT16, INT8};
use crate::variant::Variant;

/// The file's name, beside the graphs.
pub(crate) const FILE: &str = "weights.bin";

/// Tensors begin at multiples of this, so that runtimes can map the file.
const ALIGNMENT: u64 = 4096;

/// A tensor of the model.
#[derive(Debug, Clone)]
struct Tensor {
    /// As in the model's own files.
    name: String,
    shape: Shape,
    /// What its values are multiplied by.
    scale: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// A norm's weights or a bias: f32 in every variant.
    Vector(usize),
    /// `[out, in]` in the model, written `[in, out]`.
    Matrix { out: usize, input: usize },
}

/// A tensor of the file.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) data_type: i32,
    pub(crate) dims: Vec<usize>,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// What the file holds.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    variant: Variant,
    tensors: Vec<Tensor>,
    stored: Vec<Stored>,
    length: u64,
}

impl Layout {
    pub(crate) fn new(config: &ModelConfig, variant: Variant) -> Self {
        let mut layout = Self { variant, tensors: tensors(config), stored: Vec::new(), length: 0 };
        for tensor in layout.tensors.clone() {
            let name = &tensor.name;
            match (tensor.shape, variant) {
                (Shape::Vector(len), _) => layout.add(name.clone(), FLOAT, &[len]),
                (Shape::Matrix { out, input }, Variant::F32) => layout.add(name.clone(), FLOAT, &[input, out]),
                (Shape::Matrix { out, input }, Variant::F16) => layout.add(name.clone(), FLOAT16, &[input, out]),
                (Shape::Matrix { out, input }, Variant::W8 | Variant::Dyn8) => {
                    layout.add(int8(name), INT8, &[input, out]);
                    layout.add(scales(name), FLOAT, &[out]);
                }
            }
        }
        layout
    }

    fn add(&mut self, name: String, data_type: i32, dims: &[usize]) {
        let size = match data_type {
            INT8 => 1,
            FLOAT16 => 2,
            _ => 4,
        };
        let offset = self.length.next_multiple_of(ALIGNMENT);
        let length = dims.iter().product::<usize>() as u64 * size;
        self.length = offset + length;
        self.stored.push(Stored { name, data_type, dims: dims.to_vec(), offset, length });
    }

    /// Bytes of the file.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// All that it holds, in order.
    pub(crate) fn all_stored(&self) -> impl Iterator<Item = &Stored> {
        self.stored.iter()
    }

    pub(crate) fn stored(&self, name: &str) -> Option<&Stored> {
        self.stored.iter().find(|stored| stored.name == name)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// A tensor that the model lacks, or the writer's.
    pub(crate) fn write(&self, weights: &DenseWeights<'_>, to: &mut impl Write) -> Result<(), String> {
        let mut at = 0;
        let mut places = self.stored.iter();
        for tensor in &self.tensors {
            for bytes in encode(tensor.shape, &tensor.read(weights)?, self.variant) {
                let offset = places.next().map_or(at, |stored| stored.offset);
                let written = fill(to, offset - at).and_then(|()| to.write_all(&bytes));
                written.map_err(|error| error.to_string())?;
                at = offset + bytes.len() as u64;
            }
        }
        Ok(())
    }
}

/// What tells a model's graphs from any other's: SHA-256 over its shape and all values in use, 64 hexadecimal digits.
///
/// # Errors
/// A tensor that the model lacks.
pub(crate) fn digest(config: &ModelConfig, contract: &str, weights: &DenseWeights<'_>) -> Result<String, String> {
    let mut hash = Sha256::new();
    hash.update(format!("{contract} {config:?}"));
    for tensor in tensors(config) {
        hash.update(&tensor.name);
        hash.update(bytes(tensor.read(weights)?.into_iter(), f32::to_le_bytes));
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Every tensor of the file, in order.
fn tensors(c: &ModelConfig) -> Vec<Tensor> {
    let (queries, keys) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
    let mut all = Vec::new();
    let mut add = |name: String, shape| all.push(Tensor { name, shape, scale: 1.0 });
    let matrix = |out, input| Shape::Matrix { out, input };
    for layer in 0..c.layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        add(name("input_layernorm.weight"), Shape::Vector(c.hidden));
        for (part, out) in [("q", queries), ("k", keys), ("v", keys)] {
            add(name(&format!("self_attn.{part}_proj.weight")), matrix(out, c.hidden));
            if c.qkv_bias {
                add(name(&format!("self_attn.{part}_proj.bias")), Shape::Vector(out));
            }
            if c.qk_norm && part != "v" {
                add(name(&format!("self_attn.{part}_norm.weight")), Shape::Vector(c.head_dim));
            }
        }
        add(name("self_attn.o_proj.weight"), matrix(c.hidden, queries));
        add(name("post_attention_layernorm.weight"), Shape::Vector(c.hidden));
        add(name("mlp.gate_proj.weight"), matrix(c.feed_forward, c.hidden));
        add(name("mlp.up_proj.weight"), matrix(c.feed_forward, c.hidden));
        add(name("mlp.down_proj.weight"), matrix(c.hidden, c.feed_forward));
    }
    add("model.norm.weight".into(), Shape::Vector(c.hidden));
    add(head(c).into(), matrix(c.vocab_size, c.hidden));
    // The scores' scale 1 / √D is part of whatever the queries are multiplied by last: an operation less in each layer.
    let last = if c.qk_norm { "self_attn.q_norm." } else { "self_attn.q_proj." };
    for tensor in all.iter_mut().filter(|tensor| tensor.name.contains(last)) {
        tensor.scale = 1.0 / (c.head_dim as f32).sqrt();
    }
    all
}

/// The head's name.
pub(crate) fn head(config: &ModelConfig) -> &'static str {
    if config.tied_head { "model.embed_tokens.weight" } else { "lm_head.weight" }
}

/// Names of the parts of a matrix in int8.
pub(crate) fn int8(name: &str) -> String {
    format!("{name}.int8")
}

pub(crate) fn scales(name: &str) -> String {
    format!("{name}.scales")
}

impl Tensor {
    /// Its values as they are written, a matrix `[in, out]`.
    fn read(&self, weights: &DenseWeights<'_>) -> Result<Vec<f32>, String> {
        let mut values = match self.shape {
            Shape::Vector(len) => weights.vector(len, &self.name)?,
            Shape::Matrix { out, input } => {
                let rows = weights.matrix(out, input, &self.name)?;
                let mut columns = vec![0.0; rows.len()];
                for (o, row) in rows.chunks_exact(input).enumerate() {
                    for (i, value) in row.iter().enumerate() {
                        columns[i * out + o] = *value;
                    }
                }
                columns
            }
        };
        if self.scale != 1.0 {
            values.iter_mut().for_each(|value| *value *= self.scale);
        }
        Ok(values)
    }
}

/// The bytes of a tensor's parts.
fn encode(shape: Shape, values: &[f32], variant: Variant) -> Vec<Vec<u8>> {
    let values_of = |values: &[f32]| bytes(values.iter().copied(), f32::to_le_bytes);
    let Shape::Matrix { out, .. } = shape else { return vec![values_of(values)] };
    match variant {
        Variant::F32 => vec![values_of(values)],
        Variant::F16 => vec![bytes(values.iter().map(|value| f16::from_f32(*value)), f16::to_le_bytes)],
        Variant::W8 | Variant::Dyn8 => {
            let mut largest = vec![f32::MIN_POSITIVE; out];
            for row in values.chunks_exact(out) {
                largest.iter_mut().zip(row).for_each(|(most, value)| *most = most.max(value.abs()));
            }
            let scales: Vec<f32> = largest.iter().map(|most| most / 127.0).collect();
            let rounded = values.chunks_exact(out).flat_map(|row| row.iter().zip(&scales));
            let rounded = rounded.map(|(value, scale)| (value / scale).round() as i8);
            vec![bytes(rounded, i8::to_le_bytes), values_of(&scales)]
        }
    }
}

fn bytes<T, const N: usize>(values: impl Iterator<Item = T>, of: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.flat_map(of).collect()
}

fn fill(to: &mut impl Write, count: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), count), to).map(drop)
}
