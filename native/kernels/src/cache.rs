//! Keys and values of one layer, in groups of sixteen slots, so that what a head reads of a group lies together. Keys lie
//! dimension by dimension there, so that sixteen scores are computed at once.

use std::ops::Range;

use crate::lanes::WIDTH;
use crate::memory::Memory;

/// Heads of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadShape {
    /// H, a multiple of K.
    pub heads: usize,
    /// K.
    pub kv_heads: usize,
    /// D, even.
    pub dim: usize,
}

impl HeadShape {
    /// H · D.
    pub fn query_width(self) -> usize {
        self.heads * self.dim
    }

    /// K · D.
    pub fn key_width(self) -> usize {
        self.kv_heads * self.dim
    }

    /// D padded to whole registers.
    pub(crate) fn padded(self) -> usize {
        self.dim.next_multiple_of(WIDTH)
    }

    /// Query heads that share a key/value head.
    pub(crate) fn group(self) -> usize {
        self.heads / self.kv_heads
    }
}

/// Slots of a group, and the values that a head's are padded to a multiple of.
pub(crate) const GROUP: usize = WIDTH;

/// Keys and values by slot.
pub struct KeyValues {
    shape: HeadShape,
    /// `[slot / 16][K][D][16]`.
    keys: Memory<f32>,
    /// `[slot / 16][K][16][D]`, D padded with zeros.
    values: Memory<f32>,
}

impl KeyValues {
    /// Without slots.
    ///
    /// # Panics
    /// If H is no multiple of K, or one of them is 0.
    pub fn new(shape: HeadShape) -> Self {
        assert!(shape.kv_heads > 0 && shape.heads.is_multiple_of(shape.kv_heads) && shape.dim > 0, "{shape:?}");
        Self { shape, keys: Memory::zeroed(0), values: Memory::zeroed(0) }
    }

    /// Makes room for slots `0..slots`; what is held stays.
    pub fn reserve(&mut self, slots: usize) {
        if self.capacity() < slots {
            let slots = slots.next_multiple_of(GROUP).max(2 * self.capacity());
            self.keys.grow(slots * self.shape.key_width());
            self.values.grow(slots * self.shape.kv_heads * self.shape.padded());
        }
    }

    /// Slots there is room for.
    pub fn capacity(&self) -> usize {
        self.keys.len() / self.shape.key_width()
    }

    pub(crate) fn shape(&self) -> HeadShape {
        self.shape
    }

    /// Stores a slot's keys and values, each `[K, D]`.
    pub(crate) fn store(&mut self, slot: usize, keys: &[f32], values: &[f32]) {
        let (width, dim, padded) = (self.shape.key_width(), self.shape.dim, self.shape.padded());
        for (kv_head, value) in values.chunks_exact(dim).enumerate() {
            let start = self.value_start(slot, kv_head);
            self.values[start..start + padded][..dim].copy_from_slice(value);
        }
        let group = &mut self.keys[slot / GROUP * GROUP * width..][..GROUP * width];
        for (lane, key) in group[slot % GROUP..].iter_mut().step_by(GROUP).zip(keys) {
            *lane = *key;
        }
    }

    /// Copies slot `from` to slot `to`.
    ///
    /// # Panics
    /// If there is no room for them.
    pub fn copy(&mut self, from: usize, to: usize) {
        for kv_head in 0..self.shape.kv_heads {
            let start = self.value_start(from, kv_head);
            let to = self.value_start(to, kv_head);
            self.values.copy_within(start..start + self.shape.padded(), to);
        }
        let width = self.shape.key_width();
        let start = |slot: usize| slot / GROUP * GROUP * width + slot % GROUP;
        for i in 0..width {
            self.keys[start(to) + i * GROUP] = self.keys[start(from) + i * GROUP];
        }
    }

    /// Bytes from a head's keys in one group to those in the next.
    pub(crate) fn key_stride(&self) -> usize {
        size_of::<f32>() * GROUP * self.shape.key_width()
    }

    /// Bytes from a head's values in one group to those in the next.
    pub(crate) fn value_stride(&self) -> usize {
        size_of::<f32>() * GROUP * self.shape.kv_heads * self.shape.padded()
    }

    /// Keys of a head in a group of slots, `[D][16]`.
    #[inline(always)]
    pub(crate) fn key_group(&self, group: usize, kv_head: usize) -> &[[f32; GROUP]] {
        let HeadShape { kv_heads, dim, .. } = self.shape;
        let from = (group * kv_heads + kv_head) * dim * GROUP;
        self.keys[from..from + dim * GROUP].as_chunks().0
    }

    /// Values of a head in slots of one group, `[slot][D]`, D padded, in registers' worths.
    #[inline(always)]
    pub(crate) fn values(&self, slots: Range<usize>, kv_head: usize) -> &[[f32; WIDTH]] {
        let start = self.value_start(slots.start, kv_head);
        self.values[start..start + slots.len() * self.shape.padded()].as_chunks().0
    }

    #[inline(always)]
    fn value_start(&self, slot: usize, kv_head: usize) -> usize {
        ((slot / GROUP * self.shape.kv_heads + kv_head) * GROUP + slot % GROUP) * self.shape.padded()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_hold_what_was_stored_after_growth_and_copies() {
        let mut cache = KeyValues::new(HeadShape { heads: 4, kv_heads: 2, dim: 6 });
        let row = |slot: usize, sign: f32| -> Vec<f32> { (0..12).map(|i| sign * (slot * 100 + i) as f32).collect() };
        for slot in 0..50 {
            cache.reserve(slot + 1);
            cache.store(slot, &row(slot, 1.0), &row(slot, -1.0));
        }
        cache.copy(49, 17);
        for slot in 0..50 {
            let held = if slot == 17 { 49 } else { slot };
            for head in 0..2 {
                let keys: Vec<f32> =
                    cache.key_group(slot / GROUP, head).iter().map(|lanes| lanes[slot % GROUP]).collect();
                assert_eq!(keys, row(held, 1.0)[head * 6..][..6]);
                assert_eq!(cache.values(slot..slot + 1, head)[0][..6], row(held, -1.0)[head * 6..][..6]);
            }
        }
    }
}
