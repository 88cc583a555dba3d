//! Keys and values of one sequence, in slots that form a path with a tree on top.

use candle_core::{DType, Device, Result, Tensor, bail};
use specula_decoding::NewNode;

use crate::attention::Visible;

/// Slots of all layers. `0..linear` is one path; later slots are nodes of a tree hanging off it.
pub(crate) struct Cache {
    /// Per layer: keys and values, each `[capacity, K, D]`; rows beyond `slots` are unused.
    layers: Vec<(Tensor, Tensor)>,
    /// Parent of every slot.
    parents: Vec<Option<usize>>,
    linear: usize,
    capacity: usize,
    shape: (usize, usize),
    device: Device,
}

const FIRST_CAPACITY: usize = 128;

impl Cache {
    pub(crate) fn new(layers: usize, kv_heads: usize, head_dim: usize, device: &Device) -> Result<Self> {
        let mut cache = Self {
            layers: Vec::new(),
            parents: Vec::new(),
            linear: 0,
            capacity: FIRST_CAPACITY,
            shape: (kv_heads, head_dim),
            device: device.clone(),
        };
        for _ in 0..layers {
            cache.layers.push((cache.empty()?, cache.empty()?));
        }
        Ok(cache)
    }

    pub(crate) fn linear(&self) -> usize {
        self.linear
    }

    pub(crate) fn slots(&self) -> usize {
        self.parents.len()
    }

    /// Makes room for new nodes and records their parents; a chain behind the linear path lengthens it.
    pub(crate) fn add(&mut self, nodes: &[NewNode]) -> Result<()> {
        for node in nodes {
            let slot = self.slots();
            if node.parent.is_some_and(|p| p >= slot) || (node.parent.is_none() && slot > 0) {
                bail!("cache: slot {slot} cannot follow {:?}", node.parent);
            }
            if self.linear == slot && node.parent == slot.checked_sub(1) {
                self.linear += 1;
            }
            self.parents.push(node.parent);
        }
        while self.capacity < self.slots() {
            self.grow()?;
        }
        Ok(())
    }

    /// What a row at `slot` sees: its path, itself included.
    pub(crate) fn visible(&self, slot: usize) -> Visible {
        let mut extra = Vec::new();
        let mut at = Some(slot);
        while let Some(s) = at.filter(|s| *s >= self.linear) {
            extra.push(s as u32);
            at = self.parents[s];
        }
        extra.reverse();
        Visible { prefix: at.map_or(0, |s| s + 1), extra }
    }

    /// Stores a layer's keys and values `[L, K, D]` of the newest L slots and returns the layer's caches.
    pub(crate) fn store(&mut self, layer: usize, k: &Tensor, v: &Tensor) -> Result<(&Tensor, &Tensor)> {
        let from = self.slots() - k.dim(0)?;
        let (keys, values) = &self.layers[layer];
        keys.slice_set(&k.contiguous()?, 0, from)?;
        values.slice_set(&v.contiguous()?, 0, from)?;
        Ok((keys, values))
    }

    /// Keeps slots `0..from`, then those of `path`.
    pub(crate) fn keep(&mut self, from: usize, path: &[usize]) -> Result<()> {
        if from > self.linear || path.iter().any(|s| *s >= self.slots() || *s < from) {
            bail!("cache: cannot keep {path:?} after {from} of {} slots", self.slots());
        }
        let in_place = path.iter().enumerate().take_while(|(i, s)| **s == from + i).count();
        let moved: Vec<u32> = path[in_place..].iter().map(|s| *s as u32).collect();
        if !moved.is_empty() {
            let index = Tensor::new(moved.as_slice(), &self.device)?;
            for (keys, values) in &self.layers {
                for cache in [keys, values] {
                    cache.slice_set(&cache.index_select(&index, 0)?, 0, from + in_place)?;
                }
            }
        }
        self.linear = from + path.len();
        self.parents = (0..self.linear).map(|i| i.checked_sub(1)).collect();
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
        Tensor::zeros((self.capacity, self.shape.0, self.shape.1), DType::F32, &self.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(parent: usize) -> NewNode {
        NewNode { token: 0, parent: Some(parent) }
    }

    #[test]
    fn visibility_follows_parents() {
        let mut cache = Cache::new(1, 1, 2, &Device::Cpu).expect("cpu");
        cache.add(&[NewNode { token: 0, parent: None }, node(0), node(1)]).expect("chain");
        assert_eq!((cache.linear(), cache.slots()), (3, 3));
        // A tree: 3 and 4 after slot 1, 5 after 4.
        cache.add(&[node(1), node(1), node(4)]).expect("tree");
        assert_eq!((cache.linear(), cache.slots()), (3, 6));
        assert_eq!(cache.visible(2), Visible { prefix: 3, extra: vec![] });
        assert_eq!(cache.visible(5), Visible { prefix: 2, extra: vec![4, 5] });
        assert!(cache.add(&[node(9)]).is_err());
    }

    #[test]
    fn keeping_a_path_moves_its_keys() {
        let mut cache = Cache::new(1, 1, 1, &Device::Cpu).expect("cpu");
        cache.add(&[NewNode { token: 0, parent: None }, node(0), node(0), node(2)]).expect("tree");
        let keys = Tensor::new(&[10f32, 11., 12., 13.], &Device::Cpu).and_then(|t| t.reshape((4, 1, 1)));
        let keys = keys.expect("cpu");
        cache.store(0, &keys, &keys).expect("fits");
        cache.keep(1, &[2, 3]).expect("a path");
        assert_eq!((cache.linear(), cache.slots()), (3, 3));
        let held = cache.layers[0].0.flatten_all().and_then(|t| t.narrow(0, 0, 3)?.to_vec1::<f32>());
        assert_eq!(held.expect("cpu"), [10., 12., 13.]);
        cache.keep(1, &[]).expect("cut");
        assert_eq!(cache.slots(), 1);
    }
}
