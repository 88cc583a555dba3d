//! Which outcomes of the round are rolled out, and how far: with what is known of them, in the time that there is.

use specula_decoding::branches::{self, Allocation, Candidates, Outcome, Trust};
use specula_decoding::{NewNode, TokenId};

use super::DraftSequence;
use crate::clock::exact_micros;
use crate::settings::Roots;

pub(super) struct Branch {
    pub(super) outcome: Outcome,
    /// Slots fed so far: the outcome's next token, then the branch's guesses.
    pub(super) path: Vec<usize>,
}

impl DraftSequence {
    pub(super) fn verified(&self) -> &[TokenId] {
        self.verifying.as_deref().unwrap_or_default()
    }

    /// Whether the slot after which the bonus would come is still to be fed.
    pub(super) fn lacks_root(&self) -> bool {
        self.model.linear() < self.text.len() + self.verified().len()
    }

    pub(super) fn roots_unknown(&self) -> bool {
        let wants_own = self.settings.roots != Roots::Exit;
        wants_own && !self.guessed && (!self.exit_arrived || self.settings.roots == Roots::Draft)
    }

    /// Candidates of rows 0..=γ as the draft's own rows have them, as far as it read the window.
    fn own_rows(&self) -> Vec<Candidates> {
        let anchor = self.text.len() - 1;
        let read = self.model.linear().min(anchor + self.verified().len() + 1);
        self.slots[anchor.min(read)..read].iter().map(|slot| slot.ranked.clone()).collect()
    }

    /// What may become of the round, by all that is known of it.
    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        let own = if self.settings.roots == Roots::Exit { Vec::new() } else { self.own_rows() };
        let choice = (self.settings.allocation, self.settings.exit_top, self.settings.branch_budget);
        branches::outcomes(self.verified(), [&own, &self.exit_rows], &self.trust(!self.exit_rows.is_empty()), choice)
    }

    /// Probability that the guesses after these slots are accepted.
    pub(super) fn reached(&self, slots: impl Iterator<Item = usize>) -> f64 {
        slots.map(|slot| self.slots[slot].sure).product()
    }

    pub(super) fn trust(&self, exit: bool) -> Trust {
        // What was learnt depends on what ran before.
        if self.settings.deterministic {
            return Trust::default();
        }
        self.trusts.of(self.chain.sampling().is_greedy(), exit)
    }

    /// Compares what was expected of the pass with what came of it.
    pub(super) fn learn(&self, committed: &[TokenId]) {
        if self.verifying.is_none() {
            return;
        }
        let greedy = self.chain.sampling().is_greedy();
        for ((own, drawn), row) in self.own_rows().iter().zip(committed).zip(0..) {
            let exit = self.exit_rows.get(row).map_or(&[][..], Vec::as_slice);
            self.trusts.learn(greedy, [own, exit], *drawn);
        }
    }

    /// Makes these outcomes the ones that grow. What was rolled out for others is kept as it is: it may come true yet.
    pub(super) fn choose(&mut self, outcomes: Vec<Outcome>) {
        let mut old = std::mem::take(&mut self.branches);
        for outcome in outcomes {
            let same = |b: &Branch| (b.outcome.accepted, b.outcome.next) == (outcome.accepted, outcome.next);
            let path = old.iter().position(same).map(|i| old.swap_remove(i).path).unwrap_or_default();
            self.branches.push(Branch { outcome, path });
        }
        self.branches.extend(old.into_iter().filter(|branch| !branch.path.is_empty()));
    }

    /// The branches that the next step feeds: as many as grow to their full length in the time that is left, and no fewer than
    /// bring most for the time of a step; none if the verdict would wait longer for its end than it is worth.
    pub(super) fn growing(&self) -> Vec<usize> {
        let growing = self.branches.iter().enumerate().take(self.settings.branch_budget);
        let mut growing: Vec<usize> = growing.filter(|(_, b)| self.grows(b)).map(|(i, _)| i).collect();
        // The paper's branches grow together, whatever they cost.
        let Some(overlap) = self.overlap.filter(|_| self.settings.allocation == Allocation::Scored) else {
            return growing;
        };
        let worth = |i: &usize| {
            // It serves if it comes true, and its next token if those before it are accepted.
            let Branch { outcome, path } = &self.branches[*i];
            f64::from(outcome.log_probability).exp() * self.reached(path.iter().copied()) * overlap.worth.acceptance
        };
        growing.sort_by(|a, b| worth(b).total_cmp(&worth(a)));
        let brings: Vec<f64> = (1..=growing.len()).map(|count| growing[..count].iter().map(worth).sum()).collect();
        // A step of so many branches.
        let takes = |count: &usize| self.stopwatch.at(count * (1 + 2 * self.settings.streams));
        let rate = |count: &usize| brings[count - 1] / takes(count);
        let most = (1..=growing.len()).max_by(|a, b| rate(a).total_cmp(&rate(b))).unwrap_or(0);
        let shortest = growing.iter().map(|i| self.branches[*i].path.len()).min().unwrap_or(0);
        let steps = self.settings.window.saturating_sub(shortest).max(1) as f64;
        let left = (self.began + exact_micros(overlap.pass) - self.stopwatch.now()).max(0.0);
        let fit = (1..=growing.len()).take_while(|count| takes(count) * steps <= left).count();
        growing.truncate(most.max(fit));
        let waited = takes(&growing.len()) - left;
        if growing.last().is_some() && brings[growing.len() - 1] < overlap.worth.rate * waited {
            growing.clear();
        }
        growing
    }

    fn grows(&self, branch: &Branch) -> bool {
        let waits = self.settings.deterministic && !self.exit_arrived;
        let lacks = match branch.path.last() {
            None => self.settings.window > 0,
            // Its window is what was fed behind the outcome's token, and what that lets guess.
            Some(last) => {
                let guessed = self.trusted_after(*last).len();
                guessed > 0 && branch.path.len() - 1 + guessed < self.settings.window
            }
        };
        !waits && lacks && self.room(branch) > 0
    }

    /// Tokens that a branch may still feed before the context ends.
    fn room(&self, branch: &Branch) -> usize {
        let len = self.text.len() + branch.outcome.accepted + branch.path.len() + 1;
        self.model.context_length().saturating_sub(len)
    }

    /// What a branch feeds next, from slot `first` on: the outcome's token, or what was guessed after its last slot.
    pub(super) fn next_nodes(&self, branch: &Branch, first: usize) -> Vec<NewNode> {
        let Some(&last) = branch.path.last() else {
            let parent = self.text.len() - 1 + branch.outcome.accepted;
            return vec![NewNode { token: branch.outcome.next, parent: Some(parent) }];
        };
        let most = (self.settings.window - branch.path.len()).min(self.room(branch));
        let parent = |i: usize| if i == 0 { last } else { first + i - 1 };
        let guesses = self.guessed_after(last, most).iter().enumerate();
        guesses.map(|(i, guess)| NewNode { token: guess.token, parent: Some(parent(i)) }).collect()
    }
}
