//! Early exits: what a layer's states are turned into before the model's own norm and head read them, trained to say
//! early what the last layer will say (a tuned lens, arXiv:2303.08112).

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};

use crate::padding::Padding;

/// An affine map beside the identity: states + states Wᵀ + b.
#[derive(Debug, Clone)]
pub(crate) struct Adapter {
    /// W, `[hidden, hidden]`.
    pub(crate) weights: Tensor,
    /// b, `[hidden]`.
    pub(crate) bias: Tensor,
}

/// Adapters by layer: after how many layers the exit stands.
#[derive(Debug, Clone, Default)]
pub struct Exits {
    pub(crate) adapters: BTreeMap<usize, Adapter>,
}

impl Exits {
    /// Opens `exit.safetensors`: `exit.E.weight` `[hidden, hidden]` and `exit.E.bias` `[hidden]` for each layer E.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn open(path: &Path) -> Result<Self, String> {
        // SAFETY: the operator's file, which must not change while it is read.
        let file = unsafe { MmapedSafetensors::new(path) }.map_err(|e| format!("{}: {e}", path.display()))?;
        let tensors = file.tensors().into_iter().map(|(name, _)| (file.load(&name, &Device::Cpu), name));
        Self::from_tensors(tensors).map_err(|why| format!("{}: {why}", path.display()))
    }

    /// The same from the bytes of a file.
    ///
    /// # Errors
    /// As there.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).map_err(|e| e.to_string())?;
        Self::from_tensors(tensors.into_iter().map(|(name, tensor)| (Ok(tensor), name)))
    }

    fn from_tensors(tensors: impl Iterator<Item = (candle_core::Result<Tensor>, String)>) -> Result<Self, String> {
        let (mut weights, mut biases) = (BTreeMap::new(), BTreeMap::new());
        for (tensor, name) in tensors {
            let tensor = tensor.and_then(|t| t.to_dtype(DType::F32)).map_err(|e| format!("tensor `{name}`: {e}"))?;
            let parsed = name.strip_prefix("exit.").and_then(|rest| rest.split_once('.'));
            let layer = parsed.and_then(|(layer, part)| Some((layer.parse::<usize>().ok()?, part)));
            match layer {
                Some((layer, "weight")) => weights.insert(layer, tensor),
                Some((layer, "bias")) => biases.insert(layer, tensor),
                _ => return Err(format!("tensor `{name}` is none of `exit.E.weight` and `exit.E.bias`")),
            };
        }
        let adapter = |(layer, weights): (usize, Tensor)| {
            let bias = biases.remove(&layer).ok_or_else(|| format!("tensor `exit.{layer}.bias` is missing"))?;
            Ok((layer, Adapter { weights, bias }))
        };
        let adapters = weights.into_iter().map(adapter).collect::<Result<_, String>>()?;
        match biases.keys().next() {
            Some(layer) => Err(format!("tensor `exit.{layer}.weight` is missing")),
            None => Ok(Self { adapters }),
        }
    }

    /// Layers that have an adapter; an exit elsewhere is read with the bare norm and head.
    pub fn layers(&self) -> impl Iterator<Item = usize> {
        self.adapters.keys().copied()
    }

    /// The adapters where a padded model has the same states.
    pub(crate) fn placed(&self, padding: Padding) -> Self {
        let place = |(layer, adapter): (&usize, &Adapter)| (padding.place(*layer), adapter.clone());
        Self { adapters: self.adapters.iter().map(place).collect() }
    }

    /// Refuses adapters that are not of the shape of a model `hidden` wide that has `layers` of its own.
    pub(crate) fn check(&self, hidden: usize, layers: usize) -> Result<(), String> {
        for (layer, adapter) in &self.adapters {
            if !(1..layers).contains(layer) {
                return Err(format!(
                    "`exit.{layer}` is no exit of a model of {layers} layers; 1 to {} are",
                    layers - 1
                ));
            }
            if adapter.weights.dims() != [hidden, hidden] || adapter.bias.dims() != [hidden] {
                return Err(format!(
                    "`exit.{layer}` has the shapes {:?} and {:?}; a model of width {hidden} needs [{hidden}, {hidden}] and \
                     [{hidden}]",
                    adapter.weights.dims(),
                    adapter.bias.dims()
                ));
            }
        }
        Ok(())
    }
}
