//! Draft tokens as nodes of a tree; a window is a chain.

use crate::TokenId;

/// Draft tokens after the last committed token. Node `i` stands for the path from the root to it; parents come before
/// children. A node without a parent follows the last committed token directly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenTree {
    tokens: Vec<TokenId>,
    parents: Vec<Option<usize>>,
}

impl TokenTree {
    /// A window: each token follows the one before it.
    pub fn chain(tokens: &[TokenId]) -> Self {
        let parents = (0..tokens.len()).map(|i| i.checked_sub(1)).collect();
        Self { tokens: tokens.to_vec(), parents }
    }

    /// Adds a node and returns its index.
    ///
    /// # Panics
    /// If the parent is not yet in the tree.
    pub fn push(&mut self, token: TokenId, parent: Option<usize>) -> usize {
        assert!(parent.is_none_or(|p| p < self.tokens.len()), "parents come before children");
        self.tokens.push(token);
        self.parents.push(parent);
        self.tokens.len() - 1
    }

    /// Number of draft tokens, N.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether nothing was drafted (plain decoding).
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Levels of draft tokens: the length of the longest path.
    pub fn depth(&self) -> usize {
        let mut depths: Vec<usize> = Vec::with_capacity(self.len());
        for parent in &self.parents {
            depths.push(parent.map_or(1, |p| depths[p] + 1));
        }
        depths.into_iter().max().unwrap_or(0)
    }

    /// The tree without the nodes that hold certain tokens and all that hangs off them.
    pub fn without(&self, cut: impl Fn(TokenId) -> bool) -> Self {
        let mut kept = Self::default();
        let mut places: Vec<Option<usize>> = Vec::with_capacity(self.len());
        for (token, parent) in self.nodes() {
            let parent = parent.map(|parent| places[parent]);
            let place = (!cut(token) && parent != Some(None)).then(|| kept.push(token, parent.flatten()));
            places.push(place);
        }
        kept
    }

    /// The path of first children, as a tree of its own.
    pub fn first_path(&self) -> Self {
        let mut tokens = Vec::new();
        let mut node = None;
        while let Some(child) = (0..self.len()).find(|&i| self.parents[i] == node) {
            tokens.push(self.tokens[child]);
            node = Some(child);
        }
        Self::chain(&tokens)
    }

    /// The token at a node.
    pub fn token(&self, node: usize) -> TokenId {
        self.tokens[node]
    }

    /// The node's parent; `None` if it follows the committed text directly.
    pub fn parent(&self, node: usize) -> Option<usize> {
        self.parents[node]
    }

    /// Nodes in the order added.
    pub fn nodes(&self) -> impl Iterator<Item = (TokenId, Option<usize>)> + '_ {
        self.tokens.iter().copied().zip(self.parents.iter().copied())
    }

    /// The child of `parent` that holds `token`.
    pub fn child(&self, parent: Option<usize>, token: TokenId) -> Option<usize> {
        (0..self.len()).find(|&i| self.parents[i] == parent && self.tokens[i] == token)
    }

    /// Node indices from the root to `node`.
    pub fn path(&self, node: usize) -> Vec<usize> {
        let mut path = vec![node];
        while let Some(parent) = self.parents[path[path.len() - 1]] {
            path.push(parent);
        }
        path.reverse();
        path
    }

    /// Nodes without children; every root-to-leaf path is a chain.
    pub fn leaves(&self) -> Vec<usize> {
        (0..self.len()).filter(|&i| !self.parents.contains(&Some(i))).collect()
    }

    /// The tokens of a chain, `None` if the tree branches.
    pub fn as_chain(&self) -> Option<&[TokenId]> {
        let is_chain = self.parents.iter().enumerate().all(|(i, p)| *p == i.checked_sub(1));
        is_chain.then_some(&self.tokens[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_and_first_path() {
        let mut tree = TokenTree::default();
        assert_eq!((tree.depth(), tree.first_path()), (0, TokenTree::default()));
        let a = tree.push(1, None);
        tree.push(2, None);
        let c = tree.push(3, Some(a));
        tree.push(4, Some(a));
        tree.push(5, Some(c));
        assert_eq!((tree.depth(), tree.first_path()), (3, TokenTree::chain(&[1, 3, 5])));
        let cut = tree.without(|token| token == 3 || token == 2);
        assert_eq!(cut.nodes().collect::<Vec<_>>(), [(1, None), (4, Some(0))]);
        assert_eq!(tree.without(|_| false), tree);
        assert!(tree.without(|token| token < 3).is_empty());
    }
}
