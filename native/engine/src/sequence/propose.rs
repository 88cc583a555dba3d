//! Where a round's draft tokens come from.

use specula_decoding::branches::Source;
use specula_decoding::{TokenId, TokenTree, lookup};

use super::{Sequence, Trouble};
use crate::draft_worker::{OnMiss, Wanted, gone};
use crate::drafting::Opening;
use crate::event::Origin;
use crate::learned::Learned;
use crate::rates::{Guesser, expected};
use crate::sequence::link::{Answer, DraftLink};
use crate::settings::Method;
use crate::worth::Worth;

/// Draft tokens with their origin.
pub(super) struct Proposed {
    pub(super) tree: TokenTree,
    /// Log-probability of each token in the draft's row; empty unless a policy asks.
    pub(super) log_q: Vec<f32>,
    pub(super) origin: Origin,
    pub(super) guesser: Guesser,
    pub(super) hit: Option<bool>,
    /// After a hit: who had guessed the outcome.
    pub(super) source: Option<Source>,
}

impl Proposed {
    /// Draft tokens without log-probabilities, from what was seen.
    fn seen(tree: TokenTree, guesser: Guesser) -> Self {
        Self { tree, log_q: Vec::new(), origin: Origin::Draft, guesser, hit: None, source: None }
    }
}

impl Sequence {
    /// At most `len` levels of draft tokens, by the method in force.
    ///
    /// End tokens are left out: nothing follows them, so that an own draw gives them as well as an accepted draft token
    /// would, and rules may forbid all that could follow.
    pub(super) fn propose(&mut self, len: usize, learned: &mut Learned) -> Result<Proposed, Trouble> {
        let mut proposed = self.guess(len, learned)?;
        proposed.tree = proposed.tree.without(|token| self.ends.is_end_token(token));
        proposed.log_q.truncate(proposed.tree.len());
        Ok(proposed)
    }

    fn guess(&mut self, len: usize, learned: &mut Learned) -> Result<Proposed, Trouble> {
        Ok(match self.now.method {
            Method::Auto | Method::None => {
                Proposed { origin: Origin::Plain, ..Proposed::seen(TokenTree::default(), Guesser::Draft) }
            }
            Method::Lookup => Proposed::seen(self.looked_up(len), Guesser::Lookup),
            Method::Recycling => Proposed::seen(self.recycled(len, learned), Guesser::Recycling),
            Method::Sps => self.ask_draft(len, Worth::ALL)?,
            Method::Ssd | Method::Mirror => {
                let worth = self.worth(len, Guesser::Draft, learned);
                let proposed = self.ask_draft(len, worth)?;
                match proposed.hit {
                    Some(false) if proposed.tree.is_empty() && len > 0 => self.after_miss(proposed, len, learned)?,
                    _ => proposed,
                }
            }
        })
    }

    /// What the draft is to do about a miss: draft, unless something that costs no time is expected to bring more.
    pub(super) fn on_miss(&self, len: usize, learned: &mut Learned) -> OnMiss {
        if self.settings.deterministic {
            return OnMiss::Draft;
        }
        let gain = |guesser, learned: &mut Learned| self.gain(self.useful(len, guesser, learned), guesser, learned);
        let serial = gain(Guesser::Draft, learned);
        let other = gain(Guesser::Lookup, learned).max(gain(Guesser::Recycling, learned));
        if other > serial { OnMiss::Tell } else { OnMiss::Draft }
    }

    /// A window of what was seen, or the draft's after all: whatever is expected to bring most.
    fn after_miss(&mut self, missed: Proposed, len: usize, learned: &mut Learned) -> Result<Proposed, Trouble> {
        let looked_up = self.looked_up(self.useful(len, Guesser::Lookup, learned));
        let recycled = self.recycled(self.useful(len, Guesser::Recycling, learned), learned).first_path();
        let known = [(looked_up, Guesser::Lookup), (recycled, Guesser::Recycling)];
        let known = known.into_iter().filter(|(tree, _)| !tree.is_empty());
        let gains = known.map(|(tree, guesser)| (self.gain(tree.len(), guesser, learned), tree, guesser));
        let best = gains.max_by(|a, b| a.0.total_cmp(&b.0));
        let serial = self.gain(self.useful(len, Guesser::Draft, learned), Guesser::Draft, learned);
        match best {
            Some((gain, tree, guesser)) if gain > serial => {
                Ok(Proposed { hit: missed.hit, ..Proposed::seen(tree, guesser) })
            }
            _ => {
                let worth = self.worth(len, Guesser::Draft, learned);
                Ok(Proposed { hit: missed.hit, ..self.ask_draft(len, worth)? })
            }
        }
    }

    /// When another token by this guesser is worth its time; every one is until the sequence has a pace.
    pub(super) fn worth(&self, len: usize, guesser: Guesser, learned: &mut Learned) -> Worth {
        if self.settings.deterministic {
            return Worth::ALL;
        }
        Worth {
            rate: self.rate(),
            acceptance: self.rates.of(guesser),
            row_us: learned.row_us(self.rolls_out(), len + 1),
        }
    }

    /// Length of a window by this guesser, up to `len`, beyond which tokens are not worth their time.
    fn useful(&self, len: usize, guesser: Guesser, learned: &mut Learned) -> usize {
        self.worth(len, guesser, learned).window(len, self.step_us(guesser))
    }

    /// Expected tokens of a round with a window of `len`, less those that its time is worth.
    fn gain(&self, len: usize, guesser: Guesser, learned: &mut Learned) -> f64 {
        let time =
            learned.costs(self.rolls_out(), false).at(len + 1).unwrap_or(0.0) + len as f64 * self.step_us(guesser);
        expected(self.rates.of(guesser), len) - self.rate() * time
    }

    fn step_us(&self, guesser: Guesser) -> f64 {
        match (guesser, &self.draft) {
            (Guesser::Draft, Some(link)) => link.step_us,
            _ => 0.0,
        }
    }

    fn looked_up(&self, len: usize) -> TokenTree {
        TokenTree::chain(lookup::propose(&self.text, len))
    }

    fn recycled(&self, len: usize, learned: &Learned) -> TokenTree {
        let last = self.text[self.text.len() - 1];
        let known = self.recycling.as_ref().unwrap_or(&learned.recycling);
        let tree = known.propose(last, len, self.now.branch_budget, &self.chain);
        // Acceptance policies judge windows.
        if self.acceptance.is_some() { tree.first_path() } else { tree }
    }

    fn ask_draft(&mut self, len: usize, worth: Worth) -> Result<Proposed, Trouble> {
        self.open_draft()?;
        let rolls_out = self.now.method.rolls_out();
        let Some(link) = &mut self.draft else { return Err(gone().into()) };
        let wanted = Wanted { window: len, worth, settings: self.now };
        let answer = link.ask(wanted, rolls_out, (self.clock, &mut self.report.totals))?;
        let Answer { window, hit, source, lanes, messages } = answer;
        self.lanes.extend(lanes);
        self.messages.extend(messages);
        let origin = if hit == Some(true) { Origin::Mirror } else { Origin::Draft };
        let (tree, log_q) = (TokenTree::chain(&window.tokens), window.log_q);
        Ok(Proposed { tree, log_q, origin, guesser: Guesser::Draft, hit, source })
    }

    /// Opens the sequence on the draft's side, if the method in force needs it and it is not yet open.
    pub(super) fn open_draft(&mut self) -> Result<(), Trouble> {
        if self.draft.is_some() || !self.now.method.needs_draft() {
            return Ok(());
        }
        let worker = self.worker.clone().ok_or_else(gone)?;
        let opening = Opening {
            text: self.text.clone(),
            prompt: self.prompt_tokens,
            sampling: self.chain.sampling().clone(),
            settings: self.now,
            noise: self.chain.noise().clone(),
            wants_q: self.acceptance.is_some() || self.recorder.is_some(),
        };
        self.draft = Some(DraftLink::open(worker, self.id, opening)?);
        Ok(())
    }

    /// Tells the draft what a round committed, if it waits for that.
    pub(super) fn tell_draft(
        &mut self,
        committed: &[TokenId],
        rolled_out: bool,
        learned: &mut Learned,
    ) -> Result<(), Trouble> {
        if rolled_out && self.rolls_out() {
            let len = self.now.window.min(self.ends.remaining().saturating_sub(1));
            let worth = self.worth(len, Guesser::Draft, learned);
            let wanted = Wanted { window: len, worth, settings: self.now };
            let next = (wanted, self.on_miss(len, learned));
            let pass = self.last_pass;
            if let Some(link) = &mut self.draft {
                link.settle(committed.to_vec(), next, pass)?;
            }
            return Ok(());
        }
        match &mut self.draft {
            Some(link) if rolled_out => link.dismiss(committed.to_vec())?,
            Some(link) => link.note(committed),
            None => {}
        }
        Ok(())
    }
}
