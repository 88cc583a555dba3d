//! How far the guesses at a round's outcome can be relied upon, as it turned out so far.

use std::cell::RefCell;
use std::rc::Rc;

use specula_decoding::TokenId;
use specula_decoding::branches::Trust;

/// One for all sequences of the draft's thread: apart for greedy decoding and sampling, and by whether the exit was heard.
#[derive(Clone, Default)]
pub(crate) struct Trusts(Rc<RefCell<[[Trust; 2]; 2]>>);

impl Trusts {
    /// For guesses made now.
    pub(crate) fn of(&self, greedy: bool, exit: bool) -> Trust {
        self.0.borrow()[usize::from(greedy)][usize::from(exit)]
    }

    /// Takes in what the target drew after a row of which draft and, unless it is empty, exit had said this.
    pub(crate) fn learn(&self, greedy: bool, row: [&[(TokenId, f32)]; 2], drawn: TokenId) {
        let [before, after] = &mut self.0.borrow_mut()[usize::from(greedy)];
        before.learn([row[0], &[]], drawn);
        if !row[1].is_empty() {
            after.learn(row, drawn);
        }
    }
}
