//! Plugins as acceptance policies. The one kind that survives its failures: own draw stands in for it, so a fresh instance
//! may try again.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::arithmetic_side_effects)]

use specula_decoding::{Acceptance, PolicyError, TokenId, WindowStats};

use crate::session::{Forks, Session};
use crate::world::{AcceptanceWorld, Window};

/// A plugin at work as an acceptance policy.
pub(crate) struct PluginAcceptance<W: AcceptanceWorld> {
    session: Session<W>,
    /// All committed text, to be told again to a fresh instance.
    text: Vec<TokenId>,
    /// The last window asked about, kept for its allocations.
    question: Window,
    strikes: u32,
}

impl<W: AcceptanceWorld> PluginAcceptance<W> {
    /// Tells the prompt.
    pub(crate) fn new(session: Session<W>, prompt: &[TokenId]) -> Result<Self, PolicyError> {
        let mut policy = Self { session, text: prompt.to_vec(), question: empty_window(), strikes: 0 };
        policy.tell(0)?;
        policy.session.in_use();
        Ok(policy)
    }

    fn is_off(&self) -> bool {
        self.strikes >= self.session.limits().strikes
    }

    /// Commits the text from `start` on, piece by piece.
    fn tell(&mut self, start: usize) -> Result<(), PolicyError> {
        let limits = self.session.limits();
        for tokens in self.text.get(start..).unwrap_or_default().chunks(limits.commit_tokens.max(1)) {
            self.session.call(limits.commit, |world, session, store| world.commit(store, session, tokens))?;
            self.session.remember(tokens);
        }
        Ok(())
    }

    /// Makes sure that there is an instance that knows the text.
    fn revive(&mut self) -> Result<(), PolicyError> {
        if self.is_off() {
            let message = format!("switched off for this request after {} failures", self.strikes);
            return Err(self.session.error("off", message));
        }
        if !self.session.is_live() {
            self.session.reopen()?;
            self.tell(0)?;
        }
        Ok(())
    }

    fn ask(&mut self, window: &WindowStats) -> Result<usize, PolicyError> {
        self.revive()?;
        let Self { session, question, .. } = self;
        fill(question, window);
        let accepted =
            session.call(session.limits().judge, |world, session, store| world.judge(store, session, question))?;
        match usize::try_from(accepted) {
            Ok(accepted) if accepted <= window.draft.len() => Ok(accepted),
            _ => {
                let message = format!("accepted {accepted} draft tokens of {}", window.draft.len());
                Err(self.session.breach("bad-verdict", message))
            }
        }
    }

    fn counted<T>(&mut self, result: Result<T, PolicyError>) -> Result<T, PolicyError> {
        if result.is_err() && !self.session.is_live() && !self.is_off() {
            self.strikes = self.strikes.saturating_add(1);
        }
        result
    }
}

fn empty_window() -> Window {
    Window {
        position: 0,
        draft: Vec::new(),
        own_draw: Vec::new(),
        log_p: Vec::new(),
        log_q: Vec::new(),
        rank: Vec::new(),
        entropy: Vec::new(),
        top_probability: Vec::new(),
    }
}

fn fill(question: &mut Window, window: &WindowStats) {
    question.position = window.position;
    question.draft.clone_from(&window.draft);
    question.own_draw.clone_from(&window.own_draw);
    question.log_p.clone_from(&window.log_p);
    question.log_q.clone_from(&window.log_q);
    question.rank.clone_from(&window.rank);
    question.entropy.clone_from(&window.entropy);
    question.top_probability.clone_from(&window.top_probability);
}

impl<W: AcceptanceWorld> Forks for PluginAcceptance<W> {
    fn fork(&mut self) -> Result<(), PolicyError> {
        self.session.fork()
    }

    fn back(&mut self) {
        self.session.back();
    }
}

impl<W: AcceptanceWorld> Acceptance for PluginAcceptance<W> {
    fn judge(&mut self, window: &WindowStats) -> Result<usize, PolicyError> {
        let answer = self.ask(window);
        self.counted(answer)
    }

    /// While there is no instance the text is only kept, for the next one.
    fn commit(&mut self, tokens: &[TokenId]) -> Result<(), PolicyError> {
        let start = self.text.len();
        self.text.extend_from_slice(tokens);
        if !self.session.is_live() {
            return Ok(());
        }
        let told = self.tell(start);
        self.counted(told)
    }
}
