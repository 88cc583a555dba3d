//! Own draws over a pass's rows, and what an acceptance policy makes of them.

use std::time::Instant;

use specula_decoding::verify::verify;
use specula_decoding::{Acceptance, Next, Row, TokenId, WindowStats};

use super::pass::{Passed, row_of};
use super::{Proposed, Sequence, Trouble};
use crate::event::LaneKind;

/// What acceptance decided.
pub(super) struct Accepted {
    /// Draft tokens kept, as nodes of the tree, root first.
    pub(super) path: Vec<usize>,
    pub(super) next: TokenId,
    pub(super) kind: Next,
    /// Places on the path whose token was kept although the target's own draw differed.
    pub(super) deviations: Vec<usize>,
    /// Rows after the sampling rules, of the kept tokens and the next, for who reads them; none where less sufficed.
    pub(super) rows: Vec<Row>,
}

impl Sequence {
    /// The target's own draws over the rows, and what the acceptance policy makes of them.
    pub(super) fn accept(&mut self, proposed: &Proposed, passed: &Passed) -> Result<Accepted, Trouble> {
        match proposed.tree.as_chain() {
            // Plugins see a whole window in one call, and so does who records it.
            Some(window) if self.acceptance.is_some() || self.chain.has_plugins() || self.recorder.is_some() => {
                self.accept_window(window, proposed, passed)
            }
            _ => self.walk(proposed, passed),
        }
    }

    /// Rows are processed as the walk reaches them.
    fn walk(&mut self, proposed: &Proposed, passed: &Passed) -> Result<Accepted, Trouble> {
        let (tree, chain, lanes, clock) = (&proposed.tree, &mut self.chain, &mut self.lanes, self.clock);
        let (mut processed, mut tokens) = (Vec::new(), Vec::new());
        let verdict = verify(tree, |node| -> Result<TokenId, Trouble> {
            tokens.extend(node.map(|node| tree.token(node)));
            let depth = tokens.len();
            let known = passed.rows.known(row_of(node));
            if let Some(drawn) = known.and_then(|known| chain.draw_reduced(known, depth)) {
                return Ok(drawn);
            }
            let mut row = Row::new(passed.rows.row(row_of(node))?);
            let begin = Instant::now();
            chain.process(&tokens, depth, &mut [&mut row])?;
            if chain.has_plugins() {
                lanes.push(clock.span(LaneKind::Policy, begin, Instant::now()));
            }
            let drawn = chain.draw(&row, depth)?;
            processed.push(row);
            Ok(drawn)
        })?;
        let (path, next, kind) = (verdict.path, verdict.next, verdict.kind);
        Ok(Accepted { path, next, kind, deviations: Vec::new(), rows: processed })
    }

    fn accept_window(&mut self, window: &[TokenId], proposed: &Proposed, passed: &Passed) -> Result<Accepted, Trouble> {
        let whole = (0..=window.len()).map(|i| passed.rows.row(i).map(Row::new));
        let mut processed: Vec<Row> = whole.collect::<Result<_, _>>()?;
        let mut refs: Vec<&mut Row> = processed.iter_mut().collect();
        let begin = Instant::now();
        self.chain.process(window, 0, &mut refs)?;
        self.called_plugins(begin);
        let chain = &self.chain;
        let own = verify(&proposed.tree, |node| chain.draw(&processed[row_of(node)], row_of(node)))?;
        let own_accepted = own.path.len();
        let accepted = match self.acceptance.take() {
            None => own_accepted,
            Some(mut policy) => {
                let begin = Instant::now();
                let judged = self.judge(&mut *policy, (window, &proposed.log_q), &processed, own_accepted);
                self.called_plugins(begin);
                self.acceptance = Some(policy);
                judged?
            }
        };
        if accepted == own_accepted {
            let (path, next, kind) = (own.path, own.next, own.kind);
            return Ok(Accepted { path, next, kind, deviations: Vec::new(), rows: processed });
        }
        let next = self.chain.draw(&processed[accepted], accepted)?;
        let mut deviations = Vec::new();
        for (i, token) in window.iter().enumerate().take(accepted).skip(own_accepted) {
            if self.chain.draw(&processed[i], i)? != *token {
                deviations.push(i);
            }
        }
        let kind = if accepted == window.len() { Next::Bonus } else { Next::Correction };
        Ok(Accepted { path: (0..accepted).collect(), next, kind, deviations, rows: processed })
    }

    /// Notes a stretch in which the request's plugins, if it has any, were called.
    pub(super) fn called_plugins(&mut self, begin: Instant) {
        if !self.plugged.is_empty() {
            self.lanes.push(self.clock.span(LaneKind::Policy, begin, Instant::now()));
        }
    }

    /// Lets the round be recorded, if someone wishes: its window or, of a tree, the path that was kept.
    pub(super) fn record(&mut self, proposed: &Proposed, accepted: &Accepted) {
        let Some(recorder) = &mut self.recorder else { return };
        let kept = || accepted.path.iter().map(|&node| proposed.tree.token(node)).collect();
        let window = proposed.tree.as_chain().map_or_else(kept, <[TokenId]>::to_vec);
        recorder.window(&self.chain, (window, &proposed.log_q), &accepted.rows);
    }

    /// Asks the acceptance policy.
    fn judge(
        &mut self,
        policy: &mut dyn Acceptance,
        (window, log_q): (&[TokenId], &[f32]),
        rows: &[Row],
        own_accepted: usize,
    ) -> Result<usize, Trouble> {
        if window.is_empty() {
            return Ok(0);
        }
        let mut stats = WindowStats { position: self.text.len() as u32, log_q: log_q.to_vec(), ..Default::default() };
        for (i, token) in window.iter().enumerate() {
            // Beyond the first mismatch a row may have lost its support: own draw never gets there.
            let drawn = match self.chain.draw(&rows[i], i) {
                Ok(drawn) => drawn,
                Err(_) if i > own_accepted => break,
                Err(error) => return Err(error.into()),
            };
            stats.push(&rows[i], *token, drawn);
        }
        stats.log_q.truncate(stats.draft.len());
        // What the rules forbid stays out, whatever the policy would keep.
        let allowed = stats.log_p.iter().take_while(|log_p| **log_p > f32::NEG_INFINITY).count();
        let most = if self.exact_only { own_accepted } else { allowed };
        Ok(policy.judge(&stats)?.min(most))
    }
}
