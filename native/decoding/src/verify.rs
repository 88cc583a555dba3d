//! Decides which draft tokens survive. Pure: own draws in, a verdict out. One verifier for every method, temperature
//! and sampling rule.

use crate::{TokenId, TokenTree};

/// What the token after the accepted ones is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The own draw at the first node whose children all differ from it.
    Correction,
    /// The own draw after the last node of the path: every draft token on it was accepted (window 0: every token).
    Bonus,
}

/// Outcome of a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Accepted nodes, root first; τ of them.
    pub path: Vec<usize>,
    /// The target's own token after them.
    pub next: TokenId,
    /// Correction or bonus.
    pub kind: Next,
}

/// Walks the tree by the target's own draws: draw at the node, descend into the child that equals the draw, else the
/// draw is the correction; at a leaf it is the bonus.
///
/// `own_draw(None)` draws from row 0 (after the last committed token), `own_draw(Some(i))` from the row after node `i`.
/// It is called once per row reached, in path order.
///
/// # Errors
/// Whatever `own_draw` fails with.
pub fn verify<E>(
    tree: &TokenTree,
    mut own_draw: impl FnMut(Option<usize>) -> Result<TokenId, E>,
) -> Result<Verdict, E> {
    let mut path = Vec::new();
    loop {
        let node = path.last().copied();
        let drawn = own_draw(node)?;
        match tree.child(node, drawn) {
            Some(child) => path.push(child),
            None => {
                let leaf = (0..tree.len()).all(|i| tree.parent(i) != node);
                let kind = if leaf { Next::Bonus } else { Next::Correction };
                return Ok(Verdict { path, next: drawn, kind });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(tree: &TokenTree, draws: &[(Option<usize>, TokenId)]) -> Verdict {
        verify(tree, |node| {
            draws.iter().find(|(n, _)| *n == node).map(|d| d.1).ok_or(format!("row {node:?} not reached"))
        })
        .expect("only rows on the path are drawn")
    }

    #[test]
    fn chain_stops_at_the_first_mismatch() {
        let tree = TokenTree::chain(&[5, 6, 7]);
        let verdict = run(&tree, &[(None, 5), (Some(0), 9)]);
        assert_eq!(verdict, Verdict { path: vec![0], next: 9, kind: Next::Correction });
    }

    #[test]
    fn full_acceptance_gives_the_bonus() {
        let tree = TokenTree::chain(&[5, 6]);
        let verdict = run(&tree, &[(None, 5), (Some(0), 6), (Some(1), 1)]);
        assert_eq!(verdict, Verdict { path: vec![0, 1], next: 1, kind: Next::Bonus });
    }

    #[test]
    fn window_zero_is_plain_decoding() {
        let verdict = run(&TokenTree::default(), &[(None, 3)]);
        assert_eq!(verdict, Verdict { path: vec![], next: 3, kind: Next::Bonus });
    }

    #[test]
    fn tree_descends_into_the_matching_child() {
        let mut tree = TokenTree::default();
        let a = tree.push(1, None);
        let b = tree.push(2, None);
        tree.push(3, Some(a));
        let d = tree.push(4, Some(b));
        let verdict = run(&tree, &[(None, 2), (Some(b), 4), (Some(d), 8)]);
        assert_eq!(verdict, Verdict { path: vec![b, d], next: 8, kind: Next::Bonus });
    }
}
