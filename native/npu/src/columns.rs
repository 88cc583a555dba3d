//! Keys and values on the host: one layout for every provider, `[K, T, D]` a layer. A graph reads them where they lie; only
//! new columns are copied, and the whole once when T doubles.

use half::f16;

/// The cache of one sequence, in the numbers that its graphs take.
pub(crate) enum Cache {
    Single(Columns<f32>),
    Half(Columns<f16>),
}

/// Columns of all layers.
pub(crate) struct Columns<T> {
    /// Keys of every layer, then values of every layer.
    layers: Vec<Vec<T>>,
    kv_heads: usize,
    dim: usize,
    past: usize,
}

impl<T: Copy + Default> Columns<T> {
    pub(crate) fn new(layers: usize, kv_heads: usize, dim: usize) -> Self {
        Self { layers: vec![Vec::new(); 2 * layers], kv_heads, dim, past: 0 }
    }

    /// T.
    pub(crate) fn past(&self) -> usize {
        self.past
    }

    /// Keys `[K, T, D]` of every layer, then values.
    pub(crate) fn layers(&self) -> &[Vec<T>] {
        &self.layers
    }

    /// Makes T at least so large.
    pub(crate) fn reserve(&mut self, past: usize) {
        if past <= self.past {
            return;
        }
        for layer in &mut self.layers {
            let mut wider = vec![T::default(); self.kv_heads * past * self.dim];
            if self.past > 0 {
                let old = layer.chunks_exact(self.past * self.dim);
                for (new, old) in wider.chunks_exact_mut(past * self.dim).zip(old) {
                    new[..old.len()].copy_from_slice(old);
                }
            }
            *layer = wider;
        }
        self.past = past;
    }

    /// Writes the first `count` of `rows` new columns, `[N, K, rows, D]` of keys and of values, to slots from `first` on.
    pub(crate) fn write(&mut self, (first, count): (usize, usize), rows: usize, new: [&[T]; 2]) {
        let (dim, past) = (self.dim, self.past);
        let half = self.layers.len() / 2;
        for (layers, new) in self.layers.chunks_exact_mut(half).zip(new) {
            let heads = layers.iter_mut().flat_map(|layer| layer.chunks_exact_mut(past * dim));
            for (head, new) in heads.zip(new.chunks_exact(rows * dim)) {
                head[first * dim..(first + count) * dim].copy_from_slice(&new[..count * dim]);
            }
        }
    }

    /// Copies a slot's column to another slot.
    pub(crate) fn copy(&mut self, from: usize, to: usize) {
        let dim = self.dim;
        for head in self.layers.iter_mut().flat_map(|layer| layer.chunks_exact_mut(self.past * dim)) {
            head.copy_within(from * dim..(from + 1) * dim, to * dim);
        }
    }
}

impl Cache {
    pub(crate) fn past(&self) -> usize {
        match self {
            Self::Single(columns) => columns.past(),
            Self::Half(columns) => columns.past(),
        }
    }

    pub(crate) fn reserve(&mut self, past: usize) {
        match self {
            Self::Single(columns) => columns.reserve(past),
            Self::Half(columns) => columns.reserve(past),
        }
    }

    pub(crate) fn copy(&mut self, from: usize, to: usize) {
        match self {
            Self::Single(columns) => columns.copy(from, to),
            Self::Half(columns) => columns.copy(from, to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_written_copied_and_kept_when_there_is_more_room() {
        // One layer of two heads of size 1: new columns of keys 1, 2, 3 and 11, 12, 13; values negative.
        let mut columns = Columns::<f32>::new(1, 2, 1);
        columns.reserve(4);
        let keys = [1.0, 2.0, 3.0, 11.0, 12.0, 13.0];
        columns.write((1, 2), 3, [&keys, &keys.map(|x| -x)]);
        assert_eq!(columns.layers()[0], [0.0, 1.0, 2.0, 0.0, 0.0, 11.0, 12.0, 0.0]);
        columns.copy(2, 0);
        columns.reserve(2);
        columns.reserve(5);
        assert_eq!(columns.past(), 5);
        assert_eq!(columns.layers()[1], [-2.0, -1.0, -2.0, 0.0, 0.0, -12.0, -11.0, -12.0, 0.0, 0.0]);
    }
}
