//! The order of texts: a function of seed and epoch alone, so that a run can go on where it stopped.

use crate::data::Text;

/// Splitmix64 (Steele et al., 2014), enough to shuffle with.
pub(crate) struct Shuffle(u64);

impl Shuffle {
    pub(crate) fn new(seed: u64, epoch: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ epoch.wrapping_mul(0xD1B5_4A32_D192_ED03))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from a normal distribution around 0 with deviation 1 (Box and Muller).
    pub(crate) fn normal(&mut self) -> f32 {
        let mut uniform = || ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        let (u, v) = (uniform(), uniform());
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }

    /// Fisher and Yates.
    pub(crate) fn apply<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = (u128::from(self.next()) * (i as u128 + 1)) >> 64;
            items.swap(i, j as usize);
        }
    }
}

/// One sequence: indices of the texts that fill it.
pub(crate) type Sequence = Vec<usize>;

/// An epoch's sequences: texts in a shuffled order, each put into the first of a few open sequences that has room.
pub(crate) fn pack(texts: &[Text], length: usize, seed: u64, epoch: u64) -> Vec<Sequence> {
    const OPEN: usize = 32;
    let mut shuffle = Shuffle::new(seed, epoch + 1);
    let mut order: Vec<usize> = (0..texts.len()).collect();
    shuffle.apply(&mut order);
    let mut done = Vec::new();
    let mut open: Vec<(usize, Sequence)> = Vec::new();
    for text in order {
        let size = texts[text].tokens.len();
        match open.iter_mut().find(|(room, _)| *room >= size) {
            Some((room, sequence)) => {
                *room -= size;
                sequence.push(text);
            }
            None => {
                if open.len() == OPEN {
                    done.push(open.remove(0).1);
                }
                open.push((length - size, vec![text]));
            }
        }
    }
    done.extend(open.into_iter().map(|(_, sequence)| sequence));
    // Packing sorts by size; what is trained together must not be.
    shuffle.apply(&mut done);
    done
}

/// Batches of a run, in order: batch `n` is the same whenever and however it is asked for.
pub(crate) struct Batches<'a> {
    texts: &'a [Text],
    length: usize,
    size: usize,
    seed: u64,
    epoch: u64,
    packed: Vec<Sequence>,
    next: usize,
}

impl<'a> Batches<'a> {
    /// Starts before batch `skip`.
    pub(crate) fn new(texts: &'a [Text], length: usize, size: usize, seed: u64, skip: usize) -> Self {
        let packed = pack(texts, length, seed, 0);
        let mut batches = Self { texts, length, size, seed, epoch: 0, packed, next: 0 };
        for _ in 0..skip {
            batches.take();
        }
        batches
    }

    /// Epochs begun before the next batch.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The next batch's sequences.
    pub(crate) fn take(&mut self) -> Vec<Sequence> {
        if self.next >= self.packed.len() {
            self.epoch += 1;
            self.packed = pack(self.texts, self.length, self.seed, self.epoch);
            self.next = 0;
        }
        let end = (self.next + self.size).min(self.packed.len());
        let batch = self.packed[self.next..end].to_vec();
        self.next = end;
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Vec<Text> {
        (0..200).map(|i| i * 7 % 50 + 2).map(|n| Text { tokens: vec![0; n], learnt: vec![true; n] }).collect()
    }

    #[test]
    fn an_epoch_holds_every_text_once_and_overfills_nothing() {
        let texts = texts();
        let packed = pack(&texts, 64, 3, 0);
        let mut seen: Vec<usize> = packed.concat();
        seen.sort_unstable();
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
        assert!(packed.iter().all(|s| s.iter().map(|t| texts[*t].tokens.len()).sum::<usize>() <= 64));
        assert_ne!(packed, pack(&texts, 64, 3, 1), "epochs differ in order");
    }

    #[test]
    fn batches_can_be_taken_up_anywhere() {
        let texts = texts();
        let mut whole = Batches::new(&texts, 64, 8, 1, 0);
        let all: Vec<_> = (0..40).map(|_| whole.take()).collect();
        assert!(whole.epoch() > 0);
        for skip in [0, 7, 13, 31] {
            assert_eq!(Batches::new(&texts, 64, 8, 1, skip).take(), all[skip]);
        }
    }
}
