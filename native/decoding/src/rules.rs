//! Sampling rules: what edits a row before the draw, with the state that follows the committed text.

use crate::{Row, TokenId};

/// Why a rule, an acceptance policy or a stopping criterion could not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plugin `{policy}` failed ({code}): {message}")]
pub struct PolicyError {
    /// The policy's name as the request gave it.
    pub policy: String,
    /// Stable code, e.g. `fuel`, `deadline`, `memory`, `trap-unreachable`, `fault-100`.
    pub code: String,
    /// One line for the plugin's author.
    pub message: String,
}

/// A sampling rule with state. Evaluation is pure: only [`Rule::commit`] moves the state, so draft tokens that are
/// rejected never entered it and there is nothing to roll back.
pub trait Rule: Send {
    /// Edits the rows of one path. Row `i` of `rows` is conditioned on the committed text and `path[..first + i]`;
    /// `rows.len() + first ≤ path.len() + 1`. What happens to a row depends only on the committed text and the path
    /// before it (*causal*). Must not change state.
    ///
    /// # Errors
    /// The policy's own failure; the request's failure policy decides what follows.
    fn apply(&mut self, path: &[TokenId], first: usize, rows: &mut [&mut Row]) -> Result<(), PolicyError>;

    /// Tells the rule which tokens were committed. Committing a text in other pieces gives the same state.
    ///
    /// # Errors
    /// As for [`Rule::apply`].
    fn commit(&mut self, tokens: &[TokenId]) -> Result<(), PolicyError>;
}
