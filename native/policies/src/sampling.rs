//! Plugins as sampling rules.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::arithmetic_side_effects)]

use specula_decoding::{PolicyError, Row, Rule, TokenId};

use crate::session::{Forks, Session};
use crate::world::SamplingWorld;

/// A plugin at work as a sampling rule.
pub(crate) struct PluginRule<W: SamplingWorld> {
    session: Session<W>,
}

impl<W: SamplingWorld> PluginRule<W> {
    /// Tells the prompt.
    pub(crate) fn new(session: Session<W>, prompt: &[TokenId]) -> Result<Self, PolicyError> {
        let mut rule = Self { session };
        rule.commit(prompt)?;
        rule.session.in_use();
        Ok(rule)
    }

    /// A row with NaN or plus infinity has no distribution.
    fn check(&mut self, rows: &[&mut Row]) -> Result<(), PolicyError> {
        // Without an early end, so that it runs eight values at a time. Nothing but NaN and plus infinity is not below it.
        #[allow(clippy::neg_cmp_op_on_partial_ord)]
        let broken = |row: &&mut Row| row.logits().iter().fold(false, |bad, l| bad | !(*l < f32::INFINITY));
        match rows.iter().position(broken) {
            Some(i) => Err(self.session.breach("not-finite", format!("left NaN or infinity in row {i} of the call"))),
            None => Ok(()),
        }
    }
}

impl<W: SamplingWorld> Forks for PluginRule<W> {
    fn fork(&mut self) -> Result<(), PolicyError> {
        self.session.fork()
    }

    fn back(&mut self) {
        self.session.back();
    }
}

impl<W: SamplingWorld> Rule for PluginRule<W> {
    fn apply(&mut self, path: &[TokenId], first: usize, rows: &mut [&mut Row]) -> Result<(), PolicyError> {
        let Some(last) = rows.len().checked_sub(1) else { return Ok(()) };
        // Draft tokens behind the last row cannot matter to it.
        let draft = path.get(..first.saturating_add(last)).unwrap_or(path);
        let first = u32::try_from(first).unwrap_or(u32::MAX);
        let adjusted = self.session.call(self.session.limits().adjust, |world, session, store| {
            // The store must own what host functions work on; the values move with the rows, uncopied.
            let lent = rows.iter_mut().map(|row| std::mem::replace(*row, Row::new(&[]))).collect();
            store.data_mut().lend_rows(lent, first);
            let outcome = world.adjust(store, session, draft, first);
            for (row, lent) in rows.iter_mut().zip(store.data_mut().take_rows()) {
                **row = lent;
            }
            outcome
        });
        adjusted?;
        self.check(rows)
    }

    fn commit(&mut self, tokens: &[TokenId]) -> Result<(), PolicyError> {
        let limits = self.session.limits();
        for tokens in tokens.chunks(limits.commit_tokens.max(1)) {
            self.session.call(limits.commit, |world, session, store| world.commit(store, session, tokens))?;
            self.session.remember(tokens);
        }
        Ok(())
    }
}
