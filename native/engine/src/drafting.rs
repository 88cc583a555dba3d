//! One sequence on the draft's side: its window, and the branches rolled out while the target verifies that window.
//!
//! The draft's cache holds, as one path, the committed text, then the window as far as it was fed; branches hang off
//! that path as a tree. Worked example, window A B C after text `…x` (x the last committed token):
//! slots `… x A B C` are linear; branch (1, v) is v after A, then its own guesses; branch (3, w) follows C. If the verdict
//! is (1, v), the cache keeps `… x A`, then v's path, which is the next window as far as it got.
//!
//! A draft with streams guesses several tokens a step: those its last slot's streams read are fed together in the next
//! step, and re-read there by the main stream. With [`LookAhead::Correct`] what the main stream reads otherwise is cut off,
//! so that the window is the one that a draft without streams finds.

mod rollout;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use specula_decoding::branches::{Candidates, Outcome};
use specula_decoding::model::chain_nodes;
use specula_decoding::{Chain, LanguageModel, ModelError, NewNode, NoiseRows, Row, Sampling, TokenId};

use self::rollout::Branch;
use crate::by_rows::ByRows;
use crate::settings::{LookAhead, Roots, Settings};
use crate::trusts::Trusts;
use crate::worth::Worth;

/// What steps of the draft cost, by its device's clock: one for all sequences of its thread.
#[derive(Clone)]
pub(crate) struct Stopwatch {
    costs: Rc<RefCell<ByRows>>,
    /// Microseconds since some beginning.
    now: Rc<dyn Fn() -> f64>,
}

impl Stopwatch {
    pub(crate) fn new(now: impl Fn() -> f64 + 'static) -> Self {
        Self { costs: Rc::default(), now: Rc::new(now) }
    }

    /// Takes in what was measured elsewhere.
    pub(crate) fn set(&self, costs: ByRows) {
        *self.costs.borrow_mut() = costs;
    }

    /// A step over so many rows.
    fn time<T>(&self, rows: usize, step: impl FnOnce() -> T) -> T {
        let begin = self.now();
        let done = step();
        self.costs.borrow_mut().learn(rows, self.now() - begin);
        done
    }

    fn now(&self) -> f64 {
        (self.now)()
    }

    /// What a step over so many rows takes, microseconds; 0 before the first.
    fn at(&self, rows: usize) -> f64 {
        self.costs.borrow().at(rows).unwrap_or(0.0)
    }
}

/// What rollouts have time for, and what time is worth that the verdict waits for them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Overlap {
    pub(crate) pass: Duration,
    pub(crate) worth: Worth,
}

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
    /// Draft tokens under verification, the draft's own or another's; `None` between passes.
    verifying: Option<Vec<TokenId>>,
    /// What rollouts have time for; `None` if nobody knows.
    overlap: Option<Overlap>,
    /// When the pass began, by the stopwatch.
    began: f64,
    stopwatch: Stopwatch,
    branches: Vec<Branch>,
    /// Whether outcomes were guessed by the draft's own rows.
    guessed: bool,
    exit_arrived: bool,
    /// What the exit said of the window under verification.
    exit_rows: Vec<Candidates>,
    trusts: Trusts,
    expanded: u64,
    steps: u64,
    wants_q: bool,
}

struct Slot {
    fed: Guess,
    /// Candidates for the token after this slot, most likely first; empty for slots that were only prefilled.
    ranked: Vec<(TokenId, f32)>,
    /// Probability that the first of them is the target's token, as far as that was learnt.
    sure: f64,
    /// Guesses for the tokens 1, 2, … after this slot: the main stream's, then those of the streams that were asked for.
    guesses: Vec<Guess>,
}

/// A token, and its log-probability in the row that it was guessed by; NaN where there is none or nobody asks.
#[derive(Clone, Copy)]
struct Guess {
    token: TokenId,
    log_q: f32,
}

impl Slot {
    fn known(token: TokenId) -> Self {
        Self { fed: Guess { token, log_q: f32::NAN }, ranked: Vec::new(), sure: 1.0, guesses: Vec::new() }
    }
}

/// What a new sequence brings.
pub(crate) struct Opening {
    /// Prompt and committed text.
    pub(crate) text: Vec<TokenId>,
    /// How much of it is the prompt.
    pub(crate) prompt: usize,
    pub(crate) sampling: Sampling,
    pub(crate) settings: Settings,
    /// The sequence's, shared with the target's side.
    pub(crate) noise: NoiseRows,
    /// Whether a policy asks for the draft's log-probabilities.
    pub(crate) wants_q: bool,
}

/// A window with what acceptance policies may ask of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Window {
    pub(crate) tokens: Vec<TokenId>,
    /// Log-probability of each token in the draft's row; empty unless a policy asks.
    pub(crate) log_q: Vec<f32>,
}

impl DraftSequence {
    /// Prefills all of the text but its last token.
    pub(crate) fn new(
        mut model: Box<dyn LanguageModel>,
        opening: Opening,
        (stopwatch, trusts): (Stopwatch, Trusts),
    ) -> Result<Self, ModelError> {
        let Opening { text, prompt, sampling, settings, noise, wants_q } = opening;
        let fed = &text[..text.len() - 1];
        model.prefill(fed)?;
        let mut chain = Chain::new(sampling.slack(), &text[..prompt], Vec::new()).sharing(noise);
        // No plugin sits in the draft's chain, so committing cannot fail.
        let _ = chain.commit(&text[prompt..]);
        Ok(Self {
            model,
            chain,
            settings,
            slots: fed.iter().map(|token| Slot::known(*token)).collect(),
            text,
            verifying: None,
            overlap: None,
            began: 0.0,
            stopwatch,
            branches: Vec::new(),
            guessed: false,
            exit_arrived: false,
            exit_rows: Vec::new(),
            trusts,
            expanded: 0,
            steps: 0,
            wants_q,
        })
    }

    /// Settings for what comes now; between passes.
    pub(crate) fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Drafts serially until the window has `len` tokens, or another is not worth its time; tokens that are there already
    /// cost nothing.
    pub(crate) fn draft(&mut self, len: usize, worth: &Worth) -> Result<Window, ModelError> {
        if len > 0 {
            self.catch_up(len - 1)?;
        }
        loop {
            let known = self.window().tokens.len();
            let reached = self.reached(self.text.len() - 1..self.model.linear());
            if known >= len || !worth.another(reached, self.step_us()) {
                break;
            }
            let fed = self.model.linear() - self.text.len();
            let last = self.model.linear() - 1;
            let next = self.guessed_after(last, len - fed - 1);
            if next.is_empty() {
                break;
            }
            let nodes = chain_nodes(&next.iter().map(|guess| guess.token).collect::<Vec<_>>(), last + 1);
            self.feed(&nodes, &[nodes.len() - 1], len - fed - nodes.len() - 1)?;
            self.cut_off_corrected(last + 1)?;
        }
        Ok(self.window_of(len))
    }

    /// The target began to verify a window. One that is not the draft's own is read by the draft before it rolls out.
    pub(crate) fn begin_pass(&mut self, window: Vec<TokenId>, overlap: Option<Overlap>) -> Result<(), ModelError> {
        let fed = self.text.len() + self.agreeing_with(&window);
        if fed < self.slots.len() {
            self.model.keep(fed, &[])?;
            self.slots.truncate(fed);
        }
        self.verifying = Some(window);
        self.overlap = overlap.filter(|_| !self.settings.deterministic);
        self.began = self.stopwatch.now();
        self.branches.clear();
        self.guessed = false;
        self.exit_rows.clear();
        self.exit_arrived = self.settings.roots == Roots::Draft;
        self.expanded = 0;
        Ok(())
    }

    /// The early exit's candidates of every row: re-orders the branches.
    pub(crate) fn exit(&mut self, rows: Vec<Candidates>) -> Result<(), ModelError> {
        if self.verifying.is_none() {
            // The pass that it looked into is over.
            return Ok(());
        }
        // Deterministic rollouts are chosen from both sources, whichever came first.
        while self.settings.deterministic && (self.lacks_root() || self.roots_unknown()) {
            self.roll_out()?;
        }
        self.exit_arrived = true;
        self.exit_rows = rows;
        self.choose(self.outcomes());
        Ok(())
    }

    /// Whether [`DraftSequence::roll_out`] has something to do.
    pub(crate) fn has_work(&self) -> bool {
        self.verifying.is_some() && (self.lacks_root() || self.roots_unknown() || !self.growing().is_empty())
    }

    /// Whether the verdict must wait: with `deterministic`, until every rollout has its full length.
    pub(crate) fn awaits_rollouts(&self) -> bool {
        self.settings.deterministic && self.has_work()
    }

    /// One draft step: first the window's last token, then branches by one token each, as one tree pass.
    pub(crate) fn roll_out(&mut self) -> Result<(), ModelError> {
        if self.lacks_root() {
            let fed = self.slots.len();
            let path = [self.text.as_slice(), self.verified()].concat();
            self.feed(&chain_nodes(&path[fed..], fed), &[], 0)?;
        }
        if self.roots_unknown() {
            self.guessed = true;
            self.choose(self.outcomes());
            return Ok(());
        }
        let (mut nodes, mut tips, mut ahead) = (Vec::new(), Vec::new(), 0);
        let first = self.slots.len();
        let mut grown = Vec::new();
        for b in self.growing() {
            let begin = nodes.len();
            nodes.extend(self.next_nodes(&self.branches[b], first + begin));
            if nodes.len() == begin {
                continue;
            }
            tips.push(nodes.len() - 1);
            ahead = ahead.max(self.settings.window.saturating_sub(self.branches[b].path.len() + nodes.len() - begin));
            grown.push((b, first + begin..first + nodes.len()));
        }
        self.feed(&nodes, &tips, ahead)?;
        for (b, slots) in grown {
            self.expanded += u64::from(self.branches[b].path.is_empty());
            let kept = self.agreeing(slots);
            self.branches[b].path.extend(kept);
        }
        Ok(())
    }

    /// The round's outcome, the tokens committed: cuts the cache back to them. A branch that was rolled out for it becomes
    /// the next window and is returned; `None` is a miss.
    pub(crate) fn commit(&mut self, committed: &[TokenId]) -> Result<Option<Outcome>, ModelError> {
        let accepted = committed.len() - 1;
        let came_true = |b: &Branch| (b.outcome.accepted, b.outcome.next) == (accepted, committed[accepted]);
        let hit = self.branches.iter().position(|b| came_true(b) && !b.path.is_empty());
        let hit = hit.map(|b| self.branches.swap_remove(b));
        let path = hit.as_ref().map_or(&[][..], |b| &b.path);
        self.learn(committed);
        let agreeing = if hit.is_some() { accepted } else { self.agreeing_with(committed) };
        let from = (self.text.len() + agreeing).min(self.model.linear());
        self.model.keep(from, path)?;
        self.keep_slots(from, path);
        self.text.extend_from_slice(committed);
        // No plugin sits in the draft's chain, so committing cannot fail.
        let _ = self.chain.commit(committed);
        self.branches.clear();
        self.verifying = None;
        self.check_cache()?;
        Ok(hit.map(|b| b.outcome))
    }

    /// Of tokens that follow the committed text, how many the cache's path holds.
    fn agreeing_with(&self, tokens: &[TokenId]) -> usize {
        let fed = self.slots[..self.model.linear()].iter().skip(self.text.len());
        fed.zip(tokens).take_while(|(slot, token)| slot.fed.token == **token).count()
    }

    /// What a step over one token takes, microseconds.
    pub(crate) fn step_us(&self) -> f64 {
        self.stopwatch.at(1)
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

    /// Passes of the draft model so far, without the prefill's.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// Whether the cache's path is the committed text, followed by the window.
    fn check_cache(&self) -> Result<(), ModelError> {
        let known = self.text.len().min(self.slots.len());
        let same = self.slots[..known].iter().zip(&self.text).all(|(slot, token)| slot.fed.token == *token);
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

    /// Feeds committed tokens that are not in the cache yet; `ahead` tokens after the next are wanted.
    fn catch_up(&mut self, ahead: usize) -> Result<(), ModelError> {
        let from = self.slots.len();
        if from < self.text.len() {
            let nodes = chain_nodes(&self.text[from..], from);
            self.feed(&nodes, &[nodes.len() - 1], ahead)?;
        }
        Ok(())
    }

    /// Feeds nodes, ranks the candidates after each and guesses on; `ahead` more tokens are wanted after each of `tips`,
    /// which the streams guess as far as there are any.
    fn feed(&mut self, nodes: &[NewNode], tips: &[usize], ahead: usize) -> Result<(), ModelError> {
        if nodes.is_empty() {
            return Ok(());
        }
        self.steps += 1;
        let mut paths: Vec<Option<Vec<TokenId>>> = (0..nodes.len()).map(|i| self.path_of(nodes, i)).collect();
        let longest = tips.iter().filter_map(|tip| paths[*tip].as_ref()).map(Vec::len).max().unwrap_or(0);
        let room = self.model.context_length().saturating_sub(self.text.len() + longest);
        let streams = self.settings.streams.min(ahead).min(room);
        let tips_ahead = if streams > 0 { tips } else { &[] };
        let model = &mut self.model;
        let rows = nodes.len() + tips_ahead.len() * streams;
        let rows = self.stopwatch.time(rows, || model.look_ahead(nodes, tips_ahead, streams))?;
        for (i, node) in nodes.iter().enumerate() {
            let mut slot = Slot::known(node.token);
            // Committed tokens before the last have no row of interest.
            if let Some(path) = &paths[i] {
                slot.fed.log_q = self.guess_of(nodes, i).map_or(f32::NAN, |guess| guess.log_q);
                (slot.ranked, slot.guesses) = self.read(rows.row(i), path, self.settings.exit_top + 1);
                slot.sure = f64::from(self.trust(false).best([&slot.ranked, &[]]));
            }
            self.slots.push(slot);
        }
        let first = self.slots.len() - nodes.len();
        for (place, &tip) in tips.iter().enumerate() {
            let Some(mut path) = paths[tip].take() else { continue };
            for stream in 0..streams {
                let Some(last) = self.slots[first + tip].guesses.last() else { break };
                path.push(last.token);
                let (_, guess) = self.read(rows.row(nodes.len() + place * streams + stream), &path, 1);
                self.slots[first + tip].guesses.extend(guess);
            }
        }
        Ok(())
    }

    /// The `top` candidates by a row that follows `path`, and the best of them as a guess.
    fn read(&mut self, row: &[f32], path: &[TokenId], top: usize) -> (Vec<(TokenId, f32)>, Vec<Guess>) {
        let mut row = Row::new(row);
        // No plugin sits in the draft's chain.
        let _ = self.chain.process(path, path.len(), &mut [&mut row]);
        let ranked = self.chain.ranked(&row, path.len(), top);
        let log_q = |token: TokenId| match self.wants_q {
            true => row.logits()[token as usize] - row.log_sum_exp(),
            false => f32::NAN,
        };
        let guess = ranked.first().map(|&(token, _)| Guess { token, log_q: log_q(token) });
        (ranked, guess.into_iter().collect())
    }

    /// What new node `i` was guessed as, if it was: by the slot before the first of its chain.
    fn guess_of(&self, nodes: &[NewNode], i: usize) -> Option<Guess> {
        let first = self.slots.len() - i;
        let (mut slot, mut depth) = (nodes[i].parent?, 0);
        while slot >= first {
            slot = nodes[slot - first].parent?;
            depth += 1;
        }
        self.slots[slot].guesses.get(depth).copied().filter(|guess| guess.token == nodes[i].token)
    }

    /// Guesses to be fed after a slot, at most `most`.
    fn guessed_after(&self, slot: usize, most: usize) -> &[Guess] {
        let guesses = &self.slots[slot].guesses;
        &guesses[..guesses.len().min(most)]
    }

    /// Guesses after a slot that may stand in a window without having been fed.
    fn trusted_after(&self, slot: usize) -> &[Guess] {
        let most = if self.settings.look_ahead == LookAhead::Keep { usize::MAX } else { 1 };
        self.guessed_after(slot, most)
    }

    /// Of slots that follow each other, those up to the first that the main stream reads otherwise.
    fn agreeing(&self, slots: std::ops::Range<usize>) -> std::ops::Range<usize> {
        if self.settings.look_ahead == LookAhead::Keep {
            return slots;
        }
        let reads_on = |slot: &usize| {
            let next = self.slots[slot + 1].fed.token;
            self.slots[*slot].guesses.first().is_some_and(|guess| guess.token == next)
        };
        let agreeing = (slots.start..slots.end - 1).take_while(reads_on).count();
        slots.start..slots.start + agreeing + 1
    }

    /// Cuts the linear path back to what the main stream itself reads, from slot `first` on.
    fn cut_off_corrected(&mut self, first: usize) -> Result<(), ModelError> {
        let kept = self.agreeing(first..self.slots.len()).end;
        if kept < self.slots.len() {
            self.model.keep(kept, &[])?;
            self.slots.truncate(kept);
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
                path.push(self.slots[slot].fed.token);
                slot -= 1;
            } else {
                // A tree node: it belongs to a branch, whose path leads back to the linear part.
                let branch = self.branches.iter().find(|b| b.path.contains(&slot))?;
                let depth = branch.path.iter().position(|s| *s == slot)?;
                path.push(self.slots[slot].fed.token);
                slot = if depth > 0 { branch.path[depth - 1] } else { anchor + branch.outcome.accepted };
            }
        }
        path.reverse();
        (slot == anchor).then_some(path)
    }

    /// Tokens known behind the committed text: those fed, and the guesses after them.
    fn window(&self) -> Window {
        let linear = self.model.linear();
        if linear < self.text.len() {
            return Window::default();
        }
        let fed = self.slots[self.text.len()..linear].iter().map(|slot| slot.fed);
        let guesses: Vec<Guess> = fed.chain(self.trusted_after(linear - 1).iter().copied()).collect();
        let log_q = if self.wants_q { guesses.iter().map(|guess| guess.log_q).collect() } else { Vec::new() };
        Window { tokens: guesses.iter().map(|guess| guess.token).collect(), log_q }
    }
}
