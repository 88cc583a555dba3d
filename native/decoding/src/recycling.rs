//! Token Recycling (arXiv:2408.08696): what the target said after a token once is a guess at what follows it next time.
//! Needs no model.

use std::collections::HashMap;

use crate::draw::{At, ranked};
use crate::{Chain, Row, TokenId, TokenTree};

/// Successors remembered of a token, as in the paper.
pub const SUCCESSORS: usize = 8;

/// Of every token that the target has read: its likeliest successors with their logits in the latest such row, best first.
#[derive(Debug, Clone, Default)]
pub struct Recycling {
    successors: HashMap<TokenId, Vec<(TokenId, f32)>>,
}

impl Recycling {
    /// The target's raw row after `token`; it takes the place of an earlier one.
    pub fn learn(&mut self, token: TokenId, row: &[f32]) {
        const PLAIN: At<'_> = None;
        self.learn_best(token, ranked(&Row::new(row), PLAIN, SUCCESSORS));
    }

    /// The same of the row's best tokens, best first.
    pub fn learn_best(&mut self, token: TokenId, mut best: Vec<(TokenId, f32)>) {
        best.truncate(SUCCESSORS);
        self.successors.insert(token, best);
    }

    /// The `nodes` likeliest continuations of `last`, the latest committed token, as a tree of at most `depth` levels.
    ///
    /// The paper's tree has a fixed shape; here the successors are ranked by the noise that the target will draw with, and
    /// the tree grows where that makes it likeliest.
    pub fn propose(&self, last: TokenId, depth: usize, nodes: usize, chain: &Chain) -> TokenTree {
        let mut tree = TokenTree::default();
        let mut open: Vec<Open> = Vec::new();
        self.open(last, None, (0, 0.0), chain, &mut open);
        while tree.len() < nodes {
            let best = (0..open.len()).max_by(|a, b| open[*a].score.total_cmp(&open[*b].score).then(b.cmp(a)));
            let Some(best) = best else { break };
            let Open { token, parent, level, score } = open.swap_remove(best);
            let node = tree.push(token, parent);
            if level + 1 < depth {
                self.open(token, Some(node), (level + 1, score), chain, &mut open);
            }
        }
        tree
    }

    /// Adds the successors of a token whose path has a log-probability of `score`.
    fn open(
        &self,
        token: TokenId,
        parent: Option<usize>,
        (level, score): (usize, f32),
        chain: &Chain,
        open: &mut Vec<Open>,
    ) {
        let Some(successors) = self.successors.get(&token) else { return };
        let perturbed = chain.perturbed(successors, level);
        let best = perturbed.iter().map(|next| next.1).fold(f32::NEG_INFINITY, f32::max);
        let log_z = best + perturbed.iter().map(|next| (next.1 - best).exp()).sum::<f32>().ln();
        open.extend(perturbed.into_iter().map(|(token, own)| Open {
            token,
            parent,
            level,
            score: score + own - log_z,
        }));
    }
}

/// A token that may join the tree.
struct Open {
    token: TokenId,
    parent: Option<usize>,
    level: usize,
    /// Estimated log-probability of the path that ends in it.
    score: f32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sampling;

    fn chain(temperature: f32) -> Chain {
        Chain::new(Sampling { temperature, seed: 5, ..Sampling::default() }, &[0], Vec::new())
    }

    fn row(of: &[(TokenId, f32)]) -> Vec<f32> {
        let mut row = vec![-9.0; 32];
        of.iter().for_each(|(token, logit)| row[*token as usize] = *logit);
        row
    }

    #[test]
    fn the_tree_grows_where_it_is_likeliest() {
        let mut recycling = Recycling::default();
        recycling.learn(1, &row(&[(2, 5.0), (3, 4.0)]));
        recycling.learn(2, &row(&[(4, 9.0)]));
        recycling.learn(4, &row(&[(1, 9.0)]));
        let tree = recycling.propose(1, 3, 4, &chain(0.0));
        let nodes: Vec<_> = tree.nodes().collect();
        assert_eq!(nodes, [(2, None), (4, Some(0)), (1, Some(1)), (3, None)]);
        assert_eq!(recycling.propose(1, 1, 2, &chain(0.0)).nodes().collect::<Vec<_>>(), [(2, None), (3, None)]);
        assert!(recycling.propose(7, 3, 4, &chain(0.0)).is_empty(), "a token never read has no successors");
        recycling.learn(1, &row(&[(9, 5.0)]));
        assert_eq!(recycling.propose(1, 1, 1, &chain(0.0)).token(0), 9, "the latest row counts");
    }

    /// With noise the first guess is what the target would draw from the remembered row.
    #[test]
    fn guesses_are_coupled_with_the_draw() {
        let mut recycling = Recycling::default();
        let remembered = row(&[(2, 1.0), (3, 1.1), (4, 0.9), (5, 1.0)]);
        recycling.learn(1, &remembered);
        for seed in 0..50 {
            let chain = Chain::new(Sampling { seed, ..Sampling::default() }, &[0], Vec::new());
            let mut likely = Row::new(&remembered);
            likely.keep_top_k(SUCCESSORS);
            assert_eq!(Some(recycling.propose(1, 1, 1, &chain).token(0)), chain.draw(&likely, 0).ok());
        }
    }
}
