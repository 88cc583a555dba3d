//! One sequence on the draft's side: its window, and the branches rolled out while the target verifies that window.
//!
//! The draft's cache holds, as one path, the committed text, then the window as far as it was fed; branches hang off
//! that path as a tree. Worked example, window A B C after text `…x` (x the last committed token):
//! slots `… x A B C` are linear; branch (1, v) is v after A, then its own guesses; branch (3, w) follows C. If the verdict
//! is (1, v), the cache keeps `… x A`, then v's path, which is the next window as far as it got.

use specula_decoding::branches::{self, Allocation, Outcome, Source};
use specula_decoding::model::chain_nodes;
use specula_decoding::{Chain, LanguageModel, ModelError, NewNode, Row, Sampling, TokenId};

use crate::settings::{Roots, Settings};

/// The draft's state for one sequence.
pub(crate) struct DraftSequence {
    model: Box<dyn LanguageModel>,
    /// Built-in rules only, nucleus a little slack; its state follows the committed text.
    chain: Chain,
    settings: Settings,
    /// Committed text; the last token need not be fed yet.
    text: Vec<TokenId>,
    /// What each slot of the cache holds.
    slots: Vec<Slot>,
    /// Draft tokens under verification.
    verifying: usize,
    branches: Vec<Branch>,
    /// Outcomes guessed by the draft's own rows, once they are known.
    own_outcomes: Option<Vec<Outcome>>,
    exit_arrived: bool,
    expanded: u64,
    wants_q: bool,
}

struct Slot {
    token: TokenId,
    /// Candidates for the token after this slot, most likely first; empty for slots that were only prefilled.
    ranked: Vec<(TokenId, f32)>,
    /// Log-probability of the first candidate in the draft's row; NaN where nobody asks for it.
    log_q: f32,
}

struct Branch {
    outcome: Outcome,
    /// Slots fed so far: the outcome's next token, then the branch's guesses.
    path: Vec<usize>,
}

/// A window with what acceptance policies may ask of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Window {
    pub(crate) tokens: Vec<TokenId>,
    /// Log-probability of each token in the draft's row; empty unless a policy asks.
    pub(crate) log_q: Vec<f32>,
}

impl DraftSequence {
    /// Prefills all of the prompt but its last token.
    pub(crate) fn new(
        mut model: Box<dyn LanguageModel>,
        prompt: &[TokenId],
        sampling: &Sampling,
        settings: Settings,
        wants_q: bool,
    ) -> Result<Self, ModelError> {
        let fed = &prompt[..prompt.len() - 1];
        model.prefill(fed)?;
        let slot = |&token: &TokenId| Slot { token, ranked: Vec::new(), log_q: f32::NAN };
        Ok(Self {
            model,
            chain: Chain::new(sampling.slack(), prompt, Vec::new()),
            settings,
            text: prompt.to_vec(),
            slots: fed.iter().map(slot).collect(),
            verifying: 0,
            branches: Vec::new(),
            own_outcomes: None,
            exit_arrived: false,
            expanded: 0,
            wants_q,
        })
    }

    /// Drafts serially until the window has `len` tokens; tokens that are there already cost nothing.
    pub(crate) fn draft(&mut self, len: usize) -> Result<Window, ModelError> {
        self.catch_up()?;
        while self.window().tokens.len() < len {
            let Some(next) = self.guess() else { break };
            self.feed(&[next])?;
        }
        Ok(self.window_of(len))
    }

    /// The target began to verify the first `len` tokens of the window.
    pub(crate) fn begin_pass(&mut self, len: usize) {
        self.verifying = len;
        self.branches.clear();
        self.own_outcomes = None;
        self.exit_arrived = self.settings.roots == Roots::Draft;
        self.expanded = 0;
    }

    /// The early exit's candidates of every row: re-orders the branches.
    pub(crate) fn exit(&mut self, rows: &[Vec<(TokenId, f32)>]) -> Result<(), ModelError> {
        // Deterministic rollouts are chosen from both sources, whichever came first.
        while self.settings.deterministic && (self.lacks_root() || self.roots_unknown()) {
            self.roll_out()?;
        }
        let tokens = self.verified_tokens();
        let theirs = branches::outcomes(&tokens, rows, Source::Exit, self.choice());
        let ours = self.own_outcomes.as_deref().unwrap_or_default();
        let chosen = branches::merge(ours, &theirs, self.settings.branch_budget);
        self.exit_arrived = true;
        self.choose(chosen);
        Ok(())
    }

    /// Whether [`DraftSequence::roll_out`] has something to do.
    pub(crate) fn has_work(&self) -> bool {
        self.verifying > 0 && (self.lacks_root() || self.roots_unknown() || self.branches.iter().any(|b| self.grows(b)))
    }

    /// Whether the verdict must wait: with `deterministic`, until every rollout has its full length.
    pub(crate) fn awaits_rollouts(&self) -> bool {
        self.settings.deterministic && self.has_work()
    }

    /// One draft step: first the window's last token, then every branch by one token, as one tree pass.
    pub(crate) fn roll_out(&mut self) -> Result<(), ModelError> {
        if self.lacks_root() {
            self.catch_up()?;
            let next: Vec<NewNode> = self.guess().into_iter().collect();
            self.feed(&next)?;
        }
        if self.roots_unknown() {
            let own = self.own_rows();
            let ours = branches::outcomes(&self.verified_tokens(), &own, Source::Draft, self.choice());
            self.own_outcomes = Some(ours.clone());
            self.choose(ours);
            return Ok(());
        }
        let growing: Vec<usize> = (0..self.branches.len()).filter(|b| self.grows(&self.branches[*b])).collect();
        let nodes: Vec<NewNode> = growing.iter().filter_map(|b| self.next_node(&self.branches[*b])).collect();
        let first = self.slots.len();
        self.feed(&nodes)?;
        for (i, b) in growing.into_iter().enumerate().take(nodes.len()) {
            self.expanded += u64::from(self.branches[b].path.is_empty());
            self.branches[b].path.push(first + i);
        }
        Ok(())
    }

    /// The round's outcome: cuts the cache back to it. A branch that was rolled out for it becomes the next window and
    /// is returned; `None` is a miss.
    pub(crate) fn commit(&mut self, accepted: usize, next: TokenId) -> Result<Option<Outcome>, ModelError> {
        let anchor_end = self.text.len();
        let mut committed = self.window().tokens;
        committed.truncate(accepted);
        committed.push(next);
        let hit = self.branches.iter().position(|b| {
            (b.outcome.accepted, b.outcome.next) == (accepted, next) && !b.path.is_empty() && self.verifying > 0
        });
        let hit = hit.map(|b| self.branches.swap_remove(b));
        let path = hit.as_ref().map_or(&[][..], |b| &b.path);
        let from = (anchor_end + accepted).min(self.model.linear());
        self.model.keep(from, path)?;
        self.keep_slots(from, path);
        self.text.extend_from_slice(&committed);
        // No plugin sits in the draft's chain, so committing cannot fail.
        let _ = self.chain.commit(&committed);
        self.branches.clear();
        self.verifying = 0;
        self.check_cache()?;
        Ok(hit.map(|b| b.outcome))
    }

    /// The window as far as it is known, cut to `len`.
    pub(crate) fn window_of(&self, len: usize) -> Window {
        let mut window = self.window();
        window.tokens.truncate(len);
        window.log_q.truncate(len);
        window
    }

    /// Branches begun since the pass began.
    pub(crate) fn expanded(&self) -> u64 {
        self.expanded
    }

    /// Whether the cache's path is the committed text, followed by the window.
    fn check_cache(&self) -> Result<(), ModelError> {
        let known = self.text.len().min(self.slots.len());
        let same = self.slots[..known].iter().zip(&self.text).all(|(slot, token)| slot.token == *token);
        if same && self.model.slots() == self.slots.len() {
            return Ok(());
        }
        Err(ModelError("the draft's cache does not hold the committed text".into()))
    }

    fn keep_slots(&mut self, from: usize, path: &[usize]) {
        let mut tail: Vec<(usize, Slot)> = self.slots.drain(from..).enumerate().map(|(i, s)| (from + i, s)).collect();
        // A path's slots ascend, so one forward sweep finds them.
        tail.retain(|(slot, _)| path.contains(slot));
        self.slots.extend(tail.into_iter().map(|(_, s)| s));
    }

    /// Feeds committed tokens that are not in the cache yet.
    fn catch_up(&mut self) -> Result<(), ModelError> {
        let from = self.slots.len();
        if from < self.text.len() {
            let nodes = chain_nodes(&self.text[from..], from);
            self.feed(&nodes)?;
        }
        Ok(())
    }

    /// Feeds nodes and ranks the candidates after each.
    fn feed(&mut self, nodes: &[NewNode]) -> Result<(), ModelError> {
        if nodes.is_empty() {
            return Ok(());
        }
        let paths: Vec<Option<Vec<TokenId>>> = nodes.iter().enumerate().map(|(i, _)| self.path_of(nodes, i)).collect();
        let rows = self.model.forward(nodes, None)?;
        for (i, (node, path)) in nodes.iter().zip(paths).enumerate() {
            let mut slot = Slot { token: node.token, ranked: Vec::new(), log_q: f32::NAN };
            // Committed tokens before the last have no row of interest.
            if let Some(path) = path {
                let mut row = Row::new(rows.row(i));
                // No plugin sits in the draft's chain.
                let _ = self.chain.process(&path, path.len(), &mut [&mut row]);
                slot.ranked = self.chain.ranked(&row, path.len(), self.settings.exit_top + 1);
                if let Some((guess, _)) = slot.ranked.first().filter(|_| self.wants_q) {
                    slot.log_q = row.logits()[*guess as usize] - row.log_sum_exp();
                }
            }
            self.slots.push(slot);
        }
        Ok(())
    }

    /// Tokens from behind the committed text up to and including new node `i`; `None` if the node lies in the committed
    /// text before its last token.
    fn path_of(&self, nodes: &[NewNode], i: usize) -> Option<Vec<TokenId>> {
        let first = self.slots.len();
        let anchor = self.text.len() - 1;
        let mut path = Vec::new();
        let mut slot = first + i;
        while slot > anchor {
            if slot >= first {
                path.push(nodes[slot - first].token);
                slot = nodes[slot - first].parent?;
            } else if slot < self.model.linear() {
                path.push(self.slots[slot].token);
                slot -= 1;
            } else {
                // A tree node: it belongs to a branch, whose path leads back to the linear part.
                let branch = self.branches.iter().find(|b| b.path.contains(&slot))?;
                let depth = branch.path.iter().position(|s| *s == slot)?;
                path.push(self.slots[slot].token);
                slot = if depth > 0 { branch.path[depth - 1] } else { anchor + branch.outcome.accepted };
            }
        }
        path.reverse();
        (slot == anchor).then_some(path)
    }

    /// The draft's own next token behind the linear path.
    fn guess(&self) -> Option<NewNode> {
        let last = self.model.linear().checked_sub(1)?;
        let token = self.slots[last].ranked.first()?.0;
        Some(NewNode { token, parent: Some(last) })
    }

    /// Tokens known behind the committed text: those fed, and the guess after them.
    fn window(&self) -> Window {
        let mut window = Window::default();
        let anchor = self.text.len() - 1;
        for slot in anchor..self.model.linear() {
            if let Some((guess, _)) = self.slots[slot].ranked.first() {
                window.tokens.push(*guess);
                if self.wants_q {
                    window.log_q.push(self.slots[slot].log_q);
                }
            }
        }
        window
    }

    fn verified_tokens(&self) -> Vec<TokenId> {
        self.window_of(self.verifying).tokens
    }

    /// Whether the slot after which the bonus would come is still to be fed.
    fn lacks_root(&self) -> bool {
        self.model.linear() < self.text.len() + self.verifying
    }

    fn roots_unknown(&self) -> bool {
        let wants_own = self.settings.roots != Roots::Exit;
        wants_own && self.own_outcomes.is_none() && (!self.exit_arrived || self.settings.roots == Roots::Draft)
    }

    /// Candidates of rows 0..=γ as the draft's own rows have them.
    fn own_rows(&self) -> Vec<Vec<(TokenId, f32)>> {
        let anchor = self.text.len() - 1;
        self.slots[anchor..=anchor + self.verifying].iter().map(|s| s.ranked.clone()).collect()
    }

    fn choice(&self) -> (Allocation, usize, usize) {
        (self.settings.allocation, self.settings.exit_top, self.settings.branch_budget)
    }

    /// Makes these outcomes the ones rolled out; branches begun for others are dropped.
    fn choose(&mut self, outcomes: Vec<Outcome>) {
        let mut old = std::mem::take(&mut self.branches);
        for outcome in outcomes {
            let same = |b: &Branch| (b.outcome.accepted, b.outcome.next) == (outcome.accepted, outcome.next);
            let path = old.iter().position(same).map(|i| old.swap_remove(i).path).unwrap_or_default();
            self.branches.push(Branch { outcome, path });
        }
    }

    fn grows(&self, branch: &Branch) -> bool {
        let waits = self.settings.deterministic && !self.exit_arrived;
        let len = self.text.len() + branch.outcome.accepted + branch.path.len() + 1;
        !waits && branch.path.len() < self.settings.window && len < self.model.context_length()
    }

    fn next_node(&self, branch: &Branch) -> Option<NewNode> {
        match branch.path.last() {
            None => {
                let parent = self.text.len() - 1 + branch.outcome.accepted;
                Some(NewNode { token: branch.outcome.next, parent: Some(parent) })
            }
            Some(&last) => Some(NewNode { token: self.slots[last].ranked.first()?.0, parent: Some(last) }),
        }
    }
}
