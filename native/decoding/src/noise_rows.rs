//! One noise row per position, made once and shared by all who rank or draw there: the draft's branches, the early exit,
//! the target.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::noise::{BLOCK, gumbel_block};
use crate::wide::{add_from, count_from};
use crate::{Noise, TokenId};

/// Fewer tokens of a block than this are not worth making all of it.
const FEW: u32 = BLOCK as u32 / 8;

/// Most positions remembered: two windows of 16, one behind the other, and what follows each.
const POSITIONS: usize = 36;
/// Memory that a sequence's noise may take, unless that is less than a few rows.
const BYTES: usize = 8 << 20;

/// Noise of a sequence's latest positions; cheap to clone, the clones share it. A row made twice has the same bits: what
/// is forgotten costs time and nothing else.
#[derive(Debug, Clone)]
pub struct NoiseRows(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    noise: Noise,
    /// In the order in which they were first asked for.
    latest: Mutex<VecDeque<Arc<NoiseRow>>>,
}

/// Noise of one position, made block by block where it is looked at.
#[derive(Debug)]
pub(crate) struct NoiseRow {
    noise: Noise,
    position: u32,
    blocks: Vec<OnceLock<Box<[f32; BLOCK]>>>,
}

impl NoiseRows {
    /// Rows of this noise; none is made yet.
    pub fn new(noise: Noise) -> Self {
        Self(Arc::new(Shared { noise, latest: Mutex::default() }))
    }

    /// What the rows are made of.
    pub(crate) fn noise(&self) -> Noise {
        self.0.noise
    }

    /// The row at a position (counted from the first prompt token), for `vocab` tokens.
    pub(crate) fn at(&self, position: u32, vocab: usize) -> Arc<NoiseRow> {
        let blocks = vocab.div_ceil(BLOCK);
        let mut latest = self.0.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = latest.iter().find(|row| row.position == position && row.blocks.len() == blocks) {
            return row.clone();
        }
        let row = NoiseRow { noise: self.0.noise, position, blocks: (0..blocks).map(|_| OnceLock::new()).collect() };
        let row = Arc::new(row);
        let most = (BYTES / (blocks.max(1) * BLOCK * size_of::<f32>())).clamp(4, POSITIONS);
        while latest.len() >= most {
            latest.pop_front();
        }
        latest.push_back(row.clone());
        row
    }
}

impl NoiseRow {
    /// Adds the noise of the tokens from `block · BLOCK` on to those scores that are not below `floor`.
    pub(crate) fn add(&self, block: usize, scores: &mut [f32], floor: f32) {
        let first = (block * BLOCK) as TokenId;
        // A few are sooner made again than kept.
        if self.blocks[block].get().is_none() && count_from(scores, floor) < FEW {
            for (i, score) in scores.iter_mut().enumerate().filter(|(_, score)| **score >= floor) {
                *score += self.noise.gumbel(self.position, first + i as TokenId);
            }
            return;
        }
        let noise = self.blocks[block].get_or_init(|| Box::new(gumbel_block(self.noise, self.position, first)));
        add_from(scores, &noise[..], floor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_noise_and_are_shared_until_they_are_forgotten() {
        let noise = Noise::new(3, 1);
        let rows = NoiseRows::new(noise);
        let row = rows.at(7, 100);
        let added = |row: &NoiseRow, floor: f32| {
            let mut scores = [1.0, 0.0, 1.0, 1.0].repeat(16);
            row.add(1, &mut scores, floor);
            scores
        };
        let want = |token: TokenId, score: f32| score + noise.gumbel(7, token);
        assert_eq!(added(&row, 2.0), [1.0, 0.0, 1.0, 1.0].repeat(16));
        assert_eq!(added(&row, 0.5)[..3], [want(64, 1.0), 0.0, want(66, 1.0)]);
        assert_eq!(added(&row, f32::NEG_INFINITY)[..3], [want(64, 1.0), want(65, 0.0), want(66, 1.0)]);
        assert!(Arc::ptr_eq(&row, &rows.clone().at(7, 100)));
        (100..100 + POSITIONS as u32).for_each(|position| drop(rows.at(position, 100)));
        let again = rows.at(7, 100);
        assert!(!Arc::ptr_eq(&row, &again));
        assert_eq!(added(&row, 0.5), added(&again, 0.5));
    }
}
