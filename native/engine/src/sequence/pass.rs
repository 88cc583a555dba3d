//! The target's pass: what is fed, what is asked of its rows, and the exit message half-way.

use std::time::{Duration, Instant};

use specula_decoding::recycling::SUCCESSORS;
use specula_decoding::{Chain, Look, ModelError, NewNode, Reduction, Row, Rows, TokenId, TokenTree};

use super::{Sequence, Trouble};
use crate::drafting::Overlap;
use crate::learned::Learned;
use crate::rates::Guesser;
use crate::settings::{Method, Roots};

/// The rows of a pass and when its parts ran.
pub(super) struct Passed {
    pub(super) rows: Rows,
    /// Candidates of the early exit's rows, if it looked.
    pub(super) exit: Option<Vec<Vec<(TokenId, f32)>>>,
    pub(super) began: Instant,
    /// When the exit's rows were there and when they were sent.
    pub(super) exited: Option<(Instant, Instant)>,
    pub(super) ended: Instant,
}

impl Sequence {
    /// One pass of the target over the last committed token and the draft's, with the exit message half-way.
    pub(super) fn pass(&mut self, tree: &TokenTree, learned: &mut Learned) -> Result<Passed, Trouble> {
        let anchor = self.text.len() - 1;
        let mut nodes = vec![NewNode { token: self.text[anchor], parent: anchor.checked_sub(1) }];
        nodes.extend(tree.nodes().map(|(token, parent)| NewNode { token, parent: Some(anchor + row_of(parent)) }));
        // The draft rolls out windows.
        let window = tree.as_chain().filter(|_| self.now.method.rolls_out());
        let exits = self.now.roots != Roots::Draft && window.is_some();
        let reduction = self.reduction(tree);
        let worth = self.worth(nodes.len(), Guesser::Draft, learned);
        let began = Instant::now();
        if let (Some(window), Some(link)) = (window, &self.draft) {
            let cost = learned.costs(true, exits).at(nodes.len());
            let overlap = cost.map(|us| Overlap { pass: Duration::from_secs_f64(us.max(0.0) / 1e6), worth });
            link.pass_begins(window.to_vec(), overlap)?;
        }
        let Some(window) = window.filter(|_| exits) else {
            let rows = self.model.forward_reduced(&nodes, reduction.as_ref(), None)?;
            return Ok(Passed { rows, exit: None, began, exited: None, ended: Instant::now() });
        };
        let (chain, link, top) = (&mut self.exit_chain, &self.draft, self.now.exit_top);
        let (mut exit, mut exited) = (None, None);
        let wanted = chain.reduction(0..=window.len(), top + 1, 0);
        let mut on_exit = |rows: Rows| {
            let begin = Instant::now();
            // A device that fails here fails the pass.
            let Ok(ranked) = rank_exit(chain, window, &rows, top) else { return };
            if let Some(link) = link {
                link.exit(ranked.clone());
            }
            exit = Some(ranked);
            exited = Some((begin, Instant::now()));
        };
        let look = Look { layer: self.now.exit_layer, reduction: wanted, on_exit: &mut on_exit };
        let rows = self.model.forward_reduced(&nodes, reduction.as_ref(), Some(look))?;
        Ok(Passed { rows, exit, began, exited, ended: Instant::now() })
    }

    /// What suffices of the rows after a tree's nodes; `None` if someone reads whole ones.
    fn reduction(&self, tree: &TokenTree) -> Option<Reduction> {
        if self.acceptance.is_some() || self.recorder.is_some() || self.logprobs.is_some() {
            return None;
        }
        let learns = matches!(self.now.method, Method::Recycling | Method::Ssd | Method::Mirror);
        let mut depths = vec![0];
        tree.nodes().for_each(|(_, parent)| depths.push(depths[row_of(parent)] + 1));
        self.chain.reduction(depths.into_iter(), 1, if learns { SUCCESSORS } else { 0 })
    }
}

/// The row that follows a node; the last committed token's comes first.
pub(super) fn row_of(node: Option<usize>) -> usize {
    node.map_or(0, |node| node + 1)
}

/// The exit's candidates of every row, ranked with the noise that the target will draw with.
fn rank_exit(
    chain: &mut Chain,
    window: &[TokenId],
    rows: &Rows,
    top: usize,
) -> Result<Vec<Vec<(TokenId, f32)>>, ModelError> {
    // One more than asked for: for j < γ the draft token is not an outcome.
    let count = top + 1;
    let rank = |depth: usize| {
        if let Some(known) = rows.known(depth) {
            return Ok(chain.ranked_reduced(known, depth, count));
        }
        let mut row = Row::new(rows.row(depth)?);
        // No plugin sits in the exit's chain.
        let _ = chain.process(&window[..depth], depth, &mut [&mut row]);
        Ok(chain.ranked(&row, depth, count))
    };
    (0..rows.count()).map(rank).collect()
}
