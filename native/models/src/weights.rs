//! Where weights come from. One naming (Hugging Face's of Llama) for every source; others' names and GGUF's order of rows
//! are translated here. Every complaint names the tensor; tensors that nobody asked for are refused, since leaving them out
//! may change what is computed.

mod names;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::safetensors::{Load, MmapedSafetensors};
use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use specula_kernels::Matrix;

use crate::config::{Architecture, FREQUENCY_FACTORS, ModelConfig, NormKind};
use crate::gguf::{Gguf, quantised_tensor};
use crate::linear::Linear;
use crate::mixed::Precision;
use crate::norm::Norm;
use crate::padding::Padding;
pub use names::folder_name;
use names::halves_from_interleaved;
pub(crate) use names::{gguf_name, interleaved_from_halves};

/// Ends of names that may stay unused: rotary frequencies (the configuration's business, where they were read from), and
/// the head that some files hold beside the embedding table it is tied to.
const INERT: [&str; 3] = [FREQUENCY_FACTORS, "rotary_emb.inv_freq", "lm_head.weight"];

/// Weights by name.
pub(crate) struct Weights<'a> {
    source: Source<'a>,
    architecture: Architecture,
    used: RefCell<HashSet<String>>,
    /// `None`: the source's own layers.
    padding: Option<Padding>,
    /// Whether matrices are given in f32 whatever they are stored in.
    dequantised: bool,
    /// Where tensors are to lie, if not in the memory of the CPU's two decoders.
    device: Option<Device>,
    /// Of products in training.
    precision: Precision,
}

enum Source<'a> {
    Gguf(&'a Gguf<'a>),
    /// One or more files: bf16, f16 or f32, computed in f32 on the CPU, on devices as they are.
    Safetensors(&'a MmapedSafetensors),
    /// Tensors of a model in training, f32, on any device.
    Trained(&'a TensorSource<'a>),
}

/// Gives the tensor of a name and a shape, or says why there is none.
pub type TensorSource<'a> = dyn Fn(&str, &[usize]) -> Result<Tensor, String> + 'a;

impl<'a> Weights<'a> {
    pub(crate) fn gguf(file: &'a Gguf<'a>, architecture: Architecture) -> Self {
        Self::of(Source::Gguf(file), architecture)
    }

    pub(crate) fn safetensors(files: &'a MmapedSafetensors, architecture: Architecture) -> Self {
        Self::of(Source::Safetensors(files), architecture)
    }

    pub(crate) fn trained(tensors: &'a TensorSource<'a>, architecture: Architecture, precision: Precision) -> Self {
        Self { precision, ..Self::of(Source::Trained(tensors), architecture) }
    }

    fn of(source: Source<'a>, architecture: Architecture) -> Self {
        Self {
            source,
            architecture,
            used: RefCell::default(),
            padding: None,
            dequantised: false,
            device: None,
            precision: Precision::default(),
        }
    }

    /// The same on a device: dense tensors in the type of the model's matrices, quantised ones as they are.
    pub(crate) fn on(self, device: Device) -> Self {
        Self { device: Some(device), ..self }
    }

    /// Whether products over these weights give a row the same bits in every pass.
    pub(crate) fn row_invariant(&self) -> bool {
        self.device.is_none() && !matches!(self.source, Source::Trained(_))
    }

    /// Whether tensors are given on a device.
    pub(crate) fn on_device(&self) -> bool {
        self.device.is_some()
    }

    fn place(&self) -> &Device {
        self.device.as_ref().unwrap_or(&Device::Cpu)
    }

    /// What is computed in: f32 but for matrices of halves on a device. Candle has no products of bf16 on the CPU.
    fn kind(&self) -> DType {
        let Some(device) = self.device.as_ref().filter(|_| !self.dequantised) else { return DType::F32 };
        let stored = match self.source {
            Source::Gguf(file) => match file.kind("blk.0.attn_q.weight") {
                Some(GgmlDType::F16) => DType::F16,
                Some(GgmlDType::BF16) => DType::BF16,
                _ => DType::F32,
            },
            Source::Safetensors(files) => files
                .get(&self.sourced("model.embed_tokens.weight").0)
                .ok()
                .and_then(|view| DType::try_from(view.dtype()).ok())
                .filter(|kind| [DType::F16, DType::BF16].contains(kind))
                .unwrap_or(DType::F32),
            Source::Trained(_) => DType::F32,
        };
        if device.is_cpu() && stored == DType::BF16 { DType::F32 } else { stored }
    }

    /// The same with identity layers between the source's own.
    pub(crate) fn padded(self, padding: Padding) -> Self {
        Self { padding: (padding.own() < padding.all()).then_some(padding), ..self }
    }

    /// The same with all matrices in f32, if so asked.
    pub(crate) fn dequantised(self, dequantised: bool) -> Self {
        Self { dequantised, ..self }
    }

    /// The source's name of a tensor, and whether zeros stand for its values: those of an identity layer's outputs do.
    fn sourced<'n>(&self, name: &'n str) -> (Cow<'n, str>, bool) {
        const LAYERS: &str = "model.layers.";
        const OUTPUTS: [&str; 2] = ["self_attn.o_proj.", "mlp.down_proj."];
        let parts = name.strip_prefix(LAYERS).and_then(|rest| rest.split_once('.'));
        let parsed = parts.and_then(|(index, part)| Some((self.padding?.at(index.parse().ok()?), part)));
        let (name, zero) = match parsed {
            None => (Cow::from(name), false),
            Some((stand, part)) => (
                format!("{LAYERS}{}.{part}", stand.layer).into(),
                stand.identity && OUTPUTS.iter().any(|output| part.starts_with(output)),
            ),
        };
        match self.source {
            Source::Gguf(_) => (gguf_name(&name).into(), zero),
            _ => (folder_name(self.architecture, name), zero),
        }
    }

    /// A matrix `[out, in]` as a linear map, with a bias `[out]` if `name.bias` is due.
    pub(crate) fn linear(&self, out: usize, input: usize, name: &str, bias: bool) -> Result<Linear, String> {
        self.ordered_linear((out, input), name, bias, None)
    }

    /// The same for queries and keys, whose rows come in heads: `[heads · D, in]`.
    pub(crate) fn heads_linear(
        &self,
        (heads, head_dim): (usize, usize),
        input: usize,
        name: &str,
        bias: bool,
    ) -> Result<Linear, String> {
        let order = self.order_of_heads(heads, head_dim);
        self.ordered_linear((heads * head_dim, input), name, bias, order.as_deref())
    }

    fn order_of_heads(&self, heads: usize, head_dim: usize) -> Option<Vec<usize>> {
        let interleaved = matches!(self.source, Source::Gguf(_)) && self.architecture.interleaved_in_gguf();
        interleaved.then(|| halves_from_interleaved(heads, head_dim))
    }

    fn ordered_linear(
        &self,
        (out, input): (usize, usize),
        name: &str,
        bias: bool,
        order: Option<&[usize]>,
    ) -> Result<Linear, String> {
        let bias = if bias { Some(self.vector(out, &format!("{name}.bias"))?) } else { None };
        let name = format!("{name}.weight");
        match self.source {
            Source::Gguf(_) if self.dequantised => {
                Ok(self.dense_linear(self.dense(&[out, input], &name, order)?, bias))
            }
            Source::Gguf(_) => {
                let quantised = self.quantised(&[out, input], &name, order, self.place())?;
                let found = QMatMul::from_qtensor(quantised).and_then(|matrix| match matrix {
                    QMatMul::Tensor(dense) => Ok(self.dense_linear(dense.to_dtype(self.kind())?, bias)),
                    quantised => Ok(Linear::quantised(quantised, bias)),
                });
                found.map_err(|error| format!("tensor `{name}`: {error}"))
            }
            Source::Safetensors(_) | Source::Trained(_) => {
                Ok(self.dense_linear(self.dense(&[out, input], &name, None)?, bias))
            }
        }
    }

    fn dense_linear(&self, weights: Tensor, bias: Option<Tensor>) -> Linear {
        match self.row_invariant() {
            true => Linear::dense(weights, bias),
            false => Linear::direct(weights, self.precision, bias),
        }
    }

    /// A matrix `[out, in]` packed for the kernels.
    ///
    /// # Errors
    /// Also if they do not have its format.
    pub(crate) fn packed(&self, out: usize, input: usize, name: &str) -> Result<Matrix, String> {
        self.ordered_packed((out, input), name, None)
    }

    /// The same for queries and keys, as for [`Weights::heads_linear`].
    pub(crate) fn heads_packed(
        &self,
        (heads, head_dim): (usize, usize),
        input: usize,
        name: &str,
    ) -> Result<Matrix, String> {
        let order = self.order_of_heads(heads, head_dim);
        self.ordered_packed((heads * head_dim, input), name, order.as_deref())
    }

    fn ordered_packed(
        &self,
        (out, input): (usize, usize),
        name: &str,
        order: Option<&[usize]>,
    ) -> Result<Matrix, String> {
        let name = format!("{name}.weight");
        let packed = match self.source {
            Source::Gguf(_) | Source::Safetensors(_) if self.dequantised => {
                Matrix::f32(out, input, &self.dense_values(&[out, input], &name, order)?)
            }
            Source::Gguf(_) => {
                let (gguf, kind, raw) = self.raw(&[out, input], &name, order)?;
                match kind {
                    GgmlDType::Q8_0 => Matrix::q8_0(out, input, &raw),
                    GgmlDType::Q4K => Matrix::q4_k(out, input, &raw),
                    GgmlDType::Q5K => Matrix::q5_k(out, input, &raw),
                    GgmlDType::Q6K => Matrix::q6_k(out, input, &raw),
                    GgmlDType::F32 => Matrix::f32(out, input, &from_bytes(&raw, f32::from_le_bytes)),
                    GgmlDType::F16 => Matrix::f16(out, input, &from_bytes(&raw, f16::from_le_bytes)),
                    GgmlDType::BF16 => Matrix::bf16(out, input, &from_bytes(&raw, bf16::from_le_bytes)),
                    other => return Err(format!("tensor `{gguf}` is of type {other:?}")),
                }
            }
            Source::Safetensors(files) => {
                let (name, zero) = self.sourced(&name);
                let view = files.get(&name).map_err(|_| missing(&name))?;
                self.check_shape(&name, view.shape(), &[out, input])?;
                let raw = zeros_if(zero, view.data().into());
                match DType::try_from(view.dtype()) {
                    Ok(DType::F32) => Matrix::f32(out, input, &from_bytes(&raw, f32::from_le_bytes)),
                    Ok(DType::F16) => Matrix::f16(out, input, &from_bytes(&raw, f16::from_le_bytes)),
                    Ok(DType::BF16) => Matrix::bf16(out, input, &from_bytes(&raw, bf16::from_le_bytes)),
                    _ => return Err(format!("tensor `{name}` is of type {:?}", view.dtype())),
                }
            }
            Source::Trained(_) => return Err(format!("tensor `{name}` is in training; the kernels have no gradients")),
        };
        packed.map_err(|error| format!("tensor `{name}`: {error}"))
    }

    /// A matrix `[out, in]` in f32, row after row; of queries and keys, whose rows come in heads, with the heads' size.
    pub(crate) fn dense_rows(
        &self,
        (out, input): (usize, usize),
        name: &str,
        head_dim: Option<usize>,
    ) -> Result<Vec<f32>, String> {
        let order = head_dim.and_then(|dim| self.order_of_heads(out / dim, dim));
        self.dense_values(&[out, input], name, order.as_deref())
    }

    fn dense_values(&self, shape: &[usize], name: &str, order: Option<&[usize]>) -> Result<Vec<f32>, String> {
        let values = self.dense(shape, name, order)?.flatten_all().and_then(|values| values.to_vec1());
        values.map_err(|error| format!("tensor `{name}`: {error}"))
    }

    /// A matrix `[rows, width]`, for look-ups; in f32 but on a device.
    pub(crate) fn table(&self, rows: usize, width: usize, name: &str) -> Result<Tensor, String> {
        self.dense(&[rows, width], &format!("{name}.weight"), None)
    }

    /// The rows of learned positions from position 0 on, `[context, hidden]`, if the model has them.
    pub(crate) fn positions(&self, c: &ModelConfig) -> Result<Option<Tensor>, String> {
        let Some(first) = c.learned_positions else { return Ok(None) };
        const NAME: &str = "model.embed_positions";
        let table = self.table(c.context_length + first, c.hidden, NAME)?;
        table.narrow(0, first, c.context_length).map(Some).map_err(|error| format!("tensor `{NAME}.weight`: {error}"))
    }

    /// A norm of states, of the kind that the model has.
    pub(crate) fn norm(&self, c: &ModelConfig, name: &str) -> Result<Norm, String> {
        let vector = |part: &str| self.vector(c.hidden, &format!("{name}.{part}"));
        let bias = match c.norm {
            NormKind::RootMeanSquare => None,
            NormKind::Layer => Some(vector("bias")?),
        };
        Ok(Norm { weight: vector("weight")?, bias, epsilon: c.norm_eps })
    }

    /// A vector; in f32 but on a device.
    pub(crate) fn vector(&self, len: usize, name: &str) -> Result<Tensor, String> {
        self.dense(&[len], name, None)
    }

    /// The same as plain numbers.
    pub(crate) fn values(&self, len: usize, name: &str) -> Result<Vec<f32>, String> {
        self.vector(len, name)?.to_vec1().map_err(|error| format!("tensor `{name}`: {error}"))
    }

    fn dense(&self, shape: &[usize], name: &str, order: Option<&[usize]>) -> Result<Tensor, String> {
        let tensor = match self.source {
            Source::Gguf(_) => self
                .quantised(shape, name, order, &Device::Cpu)?
                .dequantize(&Device::Cpu)
                .and_then(|tensor| tensor.to_dtype(self.kind())?.to_device(self.place())),
            Source::Safetensors(files) => {
                let (name, zero) = self.sourced(name);
                let view = files.get(&name).map_err(|_| missing(&name))?;
                self.check_shape(&name, view.shape(), shape)?;
                view.load(self.place()).and_then(|tensor| match tensor.dtype() {
                    _ if zero => Tensor::zeros(shape, self.kind(), self.place()),
                    DType::F32 | DType::F16 | DType::BF16 => tensor.to_dtype(self.kind()),
                    other => candle_core::bail!("type {other:?} is not supported; supported: F32, F16, BF16"),
                })
            }
            Source::Trained(tensors) => {
                let (name, _) = self.sourced(name);
                let tensor = tensors(&name, shape)?;
                self.check_shape(&name, tensor.dims(), shape)?;
                Ok(tensor)
            }
        };
        tensor.map_err(|error| format!("tensor `{name}`: {error}"))
    }

    fn quantised(
        &self,
        shape: &[usize],
        name: &str,
        order: Option<&[usize]>,
        device: &Device,
    ) -> Result<QTensor, String> {
        let (gguf, kind, raw) = self.raw(shape, name, order)?;
        quantised_tensor(kind, raw, shape, device).map_err(|error| format!("tensor `{gguf}`: {error}"))
    }

    /// GGUF's name of a tensor that is there and has this shape, its type and its bytes.
    fn raw(
        &self,
        shape: &[usize],
        name: &str,
        order: Option<&[usize]>,
    ) -> Result<(String, GgmlDType, Cow<'a, [u8]>), String> {
        let Source::Gguf(file) = self.source else { return Err(missing(name)) };
        let (gguf, zero) = self.sourced(name);
        self.check_shape(&gguf, file.shape(&gguf).ok_or_else(|| missing(&gguf))?, shape)?;
        let (kind, raw) = file.raw(&gguf, order)?;
        Ok((gguf.into_owned(), kind, zeros_if(zero, raw)))
    }

    fn check_shape(&self, name: &str, found: &[usize], due: &[usize]) -> Result<(), String> {
        self.used.borrow_mut().insert(name.to_owned());
        if found == due {
            return Ok(());
        }
        Err(format!("tensor `{name}` has the shape {found:?}, but the model's configuration makes it {due:?}"))
    }

    /// Refuses a file that holds tensors nobody asked for.
    pub(crate) fn finish(&self) -> Result<(), String> {
        let names: Vec<String> = match self.source {
            Source::Gguf(file) => file.tensor_names().map(str::to_owned).collect(),
            Source::Safetensors(files) => files.tensors().into_iter().map(|(name, _)| name).collect(),
            // Whoever gives them knows what was asked for.
            Source::Trained(_) => return Ok(()),
        };
        refuse_unasked(&names, &self.used.borrow())
    }
}

/// Refuses names that nobody asked for.
pub(crate) fn refuse_unasked(names: &[String], asked: &HashSet<String>) -> Result<(), String> {
    let unasked = |name: &&String| !asked.contains(*name) && !INERT.iter().any(|end| name.ends_with(end));
    match names.iter().filter(unasked).min() {
        None => Ok(()),
        Some(name) => Err(format!(
            "tensor `{name}` is not one that this architecture has; it would be left out, which may change what is computed"
        )),
    }
}

/// Bytes as they are, or as many zeros, which stand for the value 0 in every format.
fn zeros_if(zero: bool, raw: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if zero { vec![0; raw.len()].into() } else { raw }
}

/// Little-endian values of N bytes each.
fn from_bytes<T, const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|bytes| value(*bytes)).collect()
}

fn missing(name: &str) -> String {
    format!("tensor `{name}` is missing: the files are incomplete or of another architecture")
}
