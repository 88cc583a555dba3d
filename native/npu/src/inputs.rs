//! What a graph is given beside the cache, padded to its bucket.

use specula_decoding::{ModelError, NewNode, TokenId};
use specula_models::{Model, ModelConfig, Path};

use crate::bucket::Bucket;

/// What a row does not see, as the contract has it: exp of it is 0, and f16 holds it.
const HIDDEN: f32 = -1e4;

/// Their memory is reused.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    pub(crate) embeddings: Vec<f32>,
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
    pub(crate) mask: Vec<f32>,
    pub(crate) stream_rows: Vec<f32>,
    pub(crate) stream_embeddings: Vec<f32>,
}

impl Inputs {
    /// Looks up the tokens' embeddings.
    pub(crate) fn embed(&mut self, bucket: Bucket, nodes: &[NewNode], model: &Model) -> Result<(), ModelError> {
        let tokens: Vec<TokenId> = nodes.iter().map(|node| node.token).collect();
        self.embeddings = model.embed(&tokens)?;
        self.embeddings.resize(bucket.rows * model.config().hidden, 0.0);
        Ok(())
    }

    /// Turns rows to their positions and shows them their paths: `rows` new ones, in slots from `first` on, then streams.
    pub(crate) fn place(
        &mut self,
        bucket: Bucket,
        (first, rows): (usize, usize),
        paths: &[Path],
        config: &ModelConfig,
    ) {
        // A slot's column: the cache's, or that of a new row or stream, each behind the bucket's part.
        let column = |slot: usize| match slot.checked_sub(first) {
            None => slot,
            Some(new) if new < rows => bucket.past + new,
            Some(new) => bucket.past + bucket.rows + new - rows,
        };
        let (all, dim) = (bucket.rows + bucket.ahead, config.head_dim);
        let width = bucket.past + all;
        let Self { cos, sin, mask, .. } = self;
        refill(mask, all * width, HIDDEN);
        refill(cos, all * dim, 0.0);
        refill(sin, all * dim, 0.0);
        for (path, place) in paths.iter().zip((0..rows).chain(bucket.rows..all)) {
            let seen = &mut mask[place * width..(place + 1) * width];
            seen[..path.prefix.min(first)].fill(0.0);
            let new = (first..path.prefix).chain(path.extra.iter().map(|slot| *slot as usize));
            new.for_each(|slot| seen[column(slot)] = 0.0);
            let position = (path.len() - 1) as f32;
            for (i, frequency) in config.rope_frequencies.iter().enumerate() {
                let (low, high) = (place * dim + i, place * dim + i + dim / 2);
                let (angle_sin, angle_cos) = (position * frequency).sin_cos();
                (cos[low], cos[high], sin[low], sin[high]) = (angle_cos, angle_cos, -angle_sin, angle_sin);
            }
        }
    }

    /// Begins the first `count` streams, whose embeddings are `learned` `[η, hidden]`, at each of the rows `from`.
    pub(crate) fn fork(&mut self, bucket: Bucket, (from, count): (&[usize], usize), learned: &[f32], hidden: usize) {
        refill(&mut self.stream_rows, bucket.ahead * bucket.rows, 0.0);
        refill(&mut self.stream_embeddings, bucket.ahead * hidden, 0.0);
        let embeddings = self.stream_embeddings.chunks_exact_mut(hidden);
        let begun =
            from.iter().flat_map(|row| learned.chunks_exact(hidden).take(count).map(move |stream| (row, stream)));
        for (((row, stream), to), picked) in begun.zip(embeddings).zip(self.stream_rows.chunks_exact_mut(bucket.rows)) {
            to.copy_from_slice(stream);
            picked[*row] = 1.0;
        }
    }
}

fn refill(values: &mut Vec<f32>, len: usize, value: f32) {
    values.clear();
    values.resize(len, value);
}
