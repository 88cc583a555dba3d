//! Keys and values of one sequence as candle's tensors.

use candle_core::{DType, Device, Result, Tensor};
use specula_decoding::NewNode;

use crate::slots::Slots;

/// Slots of all layers.
pub(crate) struct Cache {
    /// Per layer: keys and values, each `[capacity, K, D]`; rows beyond `slots` are unused.
    layers: Vec<(Tensor, Tensor)>,
    slots: Slots,
    capacity: usize,
    shape: (usize, usize),
    kind: DType,
    device: Device,
}

const FIRST_CAPACITY: usize = 128;

impl Cache {
    /// Of `layers` layers, each of K heads of D numbers.
    pub(crate) fn new(layers: usize, shape: (usize, usize), kind: DType, device: &Device) -> Result<Self> {
        let mut cache = Self {
            layers: Vec::new(),
            slots: Slots::default(),
            capacity: FIRST_CAPACITY,
            shape,
            kind,
            device: device.clone(),
        };
        for _ in 0..layers {
            cache.layers.push((cache.empty()?, cache.empty()?));
        }
        Ok(cache)
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Makes room for new nodes and records their parents.
    pub(crate) fn add(&mut self, nodes: &[NewNode]) -> Result<()> {
        self.slots.add(nodes).map_err(candle_core::Error::Msg)?;
        while self.capacity < self.slots.len() {
            self.grow()?;
        }
        Ok(())
    }

    /// Drops the newest `count` slots.
    pub(crate) fn drop_newest(&mut self, count: usize) {
        self.slots.drop_newest(count);
    }

    /// Stores a layer's keys and values `[L, K, D]` of the newest L slots and returns the layer's caches.
    pub(crate) fn store(&mut self, layer: usize, k: &Tensor, v: &Tensor) -> Result<(&Tensor, &Tensor)> {
        let from = self.slots.len() - k.dim(0)?;
        let (keys, values) = &self.layers[layer];
        keys.slice_set(&k.contiguous()?, 0, from)?;
        values.slice_set(&v.contiguous()?, 0, from)?;
        Ok((keys, values))
    }

    /// Keeps slots `0..from`, then those of `path`.
    pub(crate) fn keep(&mut self, from: usize, path: &[usize]) -> Result<()> {
        let moves = self.slots.keep(from, path).map_err(candle_core::Error::Msg)?;
        let Some((_, to)) = moves.first() else { return Ok(()) };
        let moved: Vec<u32> = moves.iter().map(|(slot, _)| *slot as u32).collect();
        let index = Tensor::new(moved.as_slice(), &self.device)?;
        for (keys, values) in &self.layers {
            for cache in [keys, values] {
                cache.slice_set(&cache.index_select(&index, 0)?, 0, *to)?;
            }
        }
        Ok(())
    }

    fn grow(&mut self) -> Result<()> {
        let old = self.capacity;
        self.capacity *= 2;
        for layer in 0..self.layers.len() {
            let (keys, values) = (self.empty()?, self.empty()?);
            keys.slice_set(&self.layers[layer].0.narrow(0, 0, old)?, 0, 0)?;
            values.slice_set(&self.layers[layer].1.narrow(0, 0, old)?, 0, 0)?;
            self.layers[layer] = (keys, values);
        }
        Ok(())
    }

    fn empty(&self) -> Result<Tensor> {
        Tensor::zeros((self.capacity, self.shape.0, self.shape.1), self.kind, &self.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(parent: usize) -> NewNode {
        NewNode { token: 0, parent: Some(parent) }
    }

    #[test]
    fn keeping_a_path_moves_its_keys() {
        let mut cache = Cache::new(1, (1, 1), DType::F32, &Device::Cpu).expect("cpu");
        cache.add(&[NewNode { token: 0, parent: None }, node(0), node(0), node(2)]).expect("tree");
        let keys = Tensor::new(&[10f32, 11., 12., 13.], &Device::Cpu).and_then(|t| t.reshape((4, 1, 1)));
        let keys = keys.expect("cpu");
        cache.store(0, &keys, &keys).expect("fits");
        cache.keep(1, &[2, 3]).expect("a path");
        let held = cache.layers[0].0.flatten_all().and_then(|t| t.narrow(0, 0, 3)?.to_vec1::<f32>());
        assert_eq!(held.expect("cpu"), [10., 12., 13.]);
    }
}
