//! What decoding asks of a transformer: every row's logits, a cache that can be cut back, and a look half-way.

use crate::TokenId;
use crate::reduced::{Reduction, Rows};

/// Logits `[N, V]`, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Logits {
    data: Vec<f32>,
    vocab: usize,
}

impl Logits {
    /// Wraps row-major data; its length is a multiple of `vocab` (> 0).
    ///
    /// # Panics
    /// If it is not.
    pub fn new(data: Vec<f32>, vocab: usize) -> Self {
        assert!(vocab > 0 && data.len().is_multiple_of(vocab), "logits are [N, V]");
        Self { data, vocab }
    }

    /// Number of rows, N.
    pub fn rows(&self) -> usize {
        self.data.len() / self.vocab
    }

    /// Row `i`: the distribution of the token after the `i`-th token of the pass.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.vocab..(i + 1) * self.vocab]
    }
}

/// A token to be fed, after the token that slot `parent` of the cache holds (`None`: the first token of all).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewNode {
    /// The token.
    pub token: TokenId,
    /// Cache slot of the token before it. New nodes take the slots `slots()`, `slots() + 1`, … in order, so a later
    /// node of the same pass may name an earlier one.
    pub parent: Option<usize>,
}

/// Early-exit logits `[N, V]` of a pass whose remaining layers have not run yet.
pub type ExitRows = Logits;

/// Called half-way through a pass, with the early exit's rows.
pub type OnExit<'a> = &'a mut dyn FnMut(ExitRows);

/// A look half-way through a pass, for who can do with reduced rows.
pub struct Look<'a> {
    /// After how many layers.
    pub layer: usize,
    /// What suffices of the rows; `None`: whole ones.
    pub reduction: Option<Reduction>,
    /// Called with them, no later than when the pass is over. On a device the remaining layers are at work by then.
    pub on_exit: &'a mut dyn FnMut(Rows),
}

/// A failure of the model itself: no client can cause it and no client can mend it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("model failure: {0}")]
pub struct ModelError(pub String);

/// A transformer with the cache of one sequence.
///
/// The cache is a list of slots. Slots `0..linear()` hold one path, each following the one before it; later slots are
/// nodes of a tree that hangs off it. Keys are summed in path order, so that a row's bits depend on its own path alone
/// (row-invariance), not on the layout.
pub trait LanguageModel: Send {
    /// V.
    fn vocab_size(&self) -> usize;
    /// Most tokens a path may have.
    fn context_length(&self) -> usize;
    /// Slots that form the path `0..linear()`.
    fn linear(&self) -> usize;
    /// All slots, tree nodes included.
    fn slots(&self) -> usize;
    /// Feeds tokens and returns one row for each. With `exit = (e, on_exit)`, `on_exit` is called once layers 1…e
    /// have run, with the rows that the early exit predicts, before the remaining layers run.
    ///
    /// # Errors
    /// [`ModelError`]; the cache is then unusable and the sequence must end.
    fn forward(&mut self, nodes: &[NewNode], exit: Option<(usize, OnExit<'_>)>) -> Result<Logits, ModelError>;
    /// [`LanguageModel::forward`] for who can do with reduced rows (`None`: with whole ones only). A model whose rows are at
    /// hand gives them whole.
    ///
    /// # Errors
    /// As for [`LanguageModel::forward`].
    fn forward_reduced(
        &mut self,
        nodes: &[NewNode],
        _reduction: Option<&Reduction>,
        look: Option<Look<'_>>,
    ) -> Result<Rows, ModelError> {
        let rows = match look {
            None => self.forward(nodes, None),
            Some(look) => {
                let mut on_exit = |rows: ExitRows| (look.on_exit)(Rows::whole(rows));
                self.forward(nodes, Some((look.layer, &mut on_exit)))
            }
        };
        rows.map(Rows::whole)
    }
    /// η, streams that the model carries beside the main one in its last layers; 0 if it has none.
    fn streams(&self) -> usize {
        0
    }
    /// [`LanguageModel::forward`] without an exit, and a look ahead from some of the new nodes (their places among `nodes`,
    /// ascending): the rows of `nodes`, then for each of `from` those of its first `count` streams, which are read as tokens
    /// 2, …, count + 1 after it. Streams leave no slots behind.
    ///
    /// # Errors
    /// As for [`LanguageModel::forward`].
    fn look_ahead(&mut self, nodes: &[NewNode], from: &[usize], count: usize) -> Result<Logits, ModelError> {
        match from.len() * count {
            0 => self.forward(nodes, None),
            _ => Err(ModelError("this model has no streams".into())),
        }
    }
    /// Feeds tokens one after the other behind the linear path, without computing rows: all of a prompt but its last
    /// token.
    ///
    /// # Errors
    /// As for [`LanguageModel::forward`].
    fn prefill(&mut self, tokens: &[TokenId]) -> Result<(), ModelError>;
    /// Keeps slots `0..from` and, after them, the slots of `path` (each the parent of the next); drops the rest.
    /// Afterwards `linear() == slots() == from + path.len()`.
    ///
    /// # Errors
    /// [`ModelError`]; the cache is then unusable.
    fn keep(&mut self, from: usize, path: &[usize]) -> Result<(), ModelError>;
}

/// Nodes that feed `tokens` one after the other behind slot `linear - 1`.
pub fn chain_nodes(tokens: &[TokenId], linear: usize) -> Vec<NewNode> {
    let node = |(i, &token): (usize, &TokenId)| NewNode { token, parent: (linear + i).checked_sub(1) };
    tokens.iter().enumerate().map(node).collect()
}
