//! Which slots of a cache follow which: a path with a tree on top, whoever holds the keys.

use specula_decoding::NewNode;
use specula_kernels::Path;

/// `0..linear` is one path; later slots are nodes of a tree hanging off it.
#[derive(Debug, Default)]
pub struct Slots {
    /// Parent of every slot.
    parents: Vec<Option<usize>>,
    linear: usize,
}

impl Slots {
    /// Slots that form the path `0..linear`.
    pub fn linear(&self) -> usize {
        self.linear
    }

    /// All slots.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks whether a cache is empty")]
    pub fn len(&self) -> usize {
        self.parents.len()
    }

    /// Records the parents of new nodes; a chain behind the linear path lengthens it.
    ///
    /// # Errors
    /// If a node follows one that is not there.
    pub fn add(&mut self, nodes: &[NewNode]) -> Result<(), String> {
        for node in nodes {
            let slot = self.len();
            if node.parent.is_some_and(|p| p >= slot) || (node.parent.is_none() && slot > 0) {
                return Err(format!("cache: slot {slot} cannot follow {:?}", node.parent));
            }
            if self.linear == slot && node.parent == slot.checked_sub(1) {
                self.linear += 1;
            }
            self.parents.push(node.parent);
        }
        Ok(())
    }

    /// Drops the newest `count` slots.
    pub fn drop_newest(&mut self, count: usize) {
        self.parents.truncate(self.len() - count);
        self.linear = self.linear.min(self.len());
    }

    /// What a row at `slot` sees: its path, itself included.
    pub fn path(&self, slot: usize) -> Path {
        let mut extra = Vec::new();
        let mut at = Some(slot);
        while let Some(s) = at.filter(|s| *s >= self.linear) {
            extra.push(s as u32);
            at = self.parents[s];
        }
        extra.reverse();
        Path { prefix: at.map_or(0, |s| s + 1), extra }
    }

    /// Keeps slots `0..from`, then those of `path`. What they hold is to be copied as said, in this order: `(from, to)`,
    /// the last of them in consecutive places.
    ///
    /// # Errors
    /// If these are not slots in this order.
    pub fn keep(&mut self, from: usize, path: &[usize]) -> Result<Vec<(usize, usize)>, String> {
        let rising = path.iter().try_fold(from, |least, slot| (*slot >= least).then_some(slot + 1));
        if from > self.linear || rising.is_none_or(|end| end > self.len()) {
            return Err(format!("cache: cannot keep {path:?} after {from} of {} slots", self.len()));
        }
        self.linear = from + path.len();
        self.parents = (0..self.linear).map(|i| i.checked_sub(1)).collect();
        let places = path.iter().copied().zip(from..);
        Ok(places.skip_while(|(slot, place)| slot == place).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(parent: usize) -> NewNode {
        NewNode { token: 0, parent: Some(parent) }
    }

    #[test]
    fn paths_follow_parents() {
        let mut slots = Slots::default();
        slots.add(&[NewNode { token: 0, parent: None }, node(0), node(1)]).expect("chain");
        assert_eq!((slots.linear(), slots.len()), (3, 3));
        // A tree: 3 and 4 after slot 1, 5 after 4.
        slots.add(&[node(1), node(1), node(4)]).expect("tree");
        assert_eq!((slots.linear(), slots.len()), (3, 6));
        assert_eq!(slots.path(2), Path { prefix: 3, extra: vec![] });
        assert_eq!(slots.path(5), Path { prefix: 2, extra: vec![4, 5] });
        assert!(slots.add(&[node(9)]).is_err());
    }

    #[test]
    fn dropped_slots_leave_what_was_before() {
        let mut slots = Slots::default();
        slots.add(&[NewNode { token: 0, parent: None }, node(0)]).expect("chain");
        slots.add(&[node(1), node(2)]).expect("longer");
        slots.drop_newest(2);
        assert_eq!((slots.linear(), slots.len()), (2, 2));
        slots.add(&[node(0), node(2)]).expect("tree");
        slots.drop_newest(1);
        assert_eq!((slots.linear(), slots.len()), (2, 3));
    }

    #[test]
    fn a_kept_path_moves_down() {
        let mut slots = Slots::default();
        slots.add(&[NewNode { token: 0, parent: None }, node(0), node(0), node(2)]).expect("tree");
        for (from, path) in [(3, &[][..]), (1, &[4]), (1, &[0]), (1, &[3, 2])] {
            assert!(slots.keep(from, path).is_err(), "{from}, {path:?}");
        }
        assert_eq!(slots.keep(1, &[2, 3]), Ok(vec![(2, 1), (3, 2)]));
        assert_eq!((slots.linear(), slots.len()), (3, 3));
        assert_eq!(slots.keep(1, &[1]), Ok(vec![]));
        assert_eq!(slots.keep(1, &[]), Ok(vec![]));
        assert_eq!((slots.linear(), slots.len()), (1, 1));
    }
}
