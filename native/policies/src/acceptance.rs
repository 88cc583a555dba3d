//! Plugins as acceptance policies. The one kind that survives its failures: own draw stands in for it, so a fresh instance
//! may try again.

use specula_decoding::{Acceptance, PolicyError, TokenId, WindowStats};
use wasmtime::Store;
use wasmtime::component::ResourceAny;

use crate::bindings::acceptor::Acceptor;
use crate::bindings::acceptor::exports::specula::policy::acceptance::Window;
use crate::bindings::offers::specula::policy::types;
use crate::host::Host;
use crate::session::{Outcome, Session, World};
use crate::{Kind, Plugin};

impl World for Acceptor {
    const KIND: Kind = Kind::Acceptance;

    fn instantiate(plugin: &Plugin, store: &mut Store<Host>) -> wasmtime::Result<Self> {
        let Some(pre) = &plugin.acceptance else { wasmtime::bail!("not an acceptance policy") };
        pre.instantiate(store)
    }

    fn open(&self, store: &mut Store<Host>, model: &types::ModelInfo, config: &str) -> Outcome<()> {
        self.specula_policy_acceptance().call_open(store, model, config)
    }

    fn session(&self, store: &mut Store<Host>) -> wasmtime::Result<ResourceAny> {
        self.specula_policy_acceptance().session().call_constructor(store)
    }
}

/// A plugin at work as an acceptance policy.
pub(crate) struct PluginAcceptance {
    session: Session<Acceptor>,
    /// All committed text, to be told again to a fresh instance.
    text: Vec<TokenId>,
    /// The last window asked about, kept for its allocations.
    question: Window,
    strikes: u32,
}

impl PluginAcceptance {
    /// Tells the prompt.
    pub(crate) fn new(session: Session<Acceptor>, prompt: &[TokenId]) -> Result<Self, PolicyError> {
        let mut policy = Self { session, text: prompt.to_vec(), question: empty_window(), strikes: 0 };
        policy.tell(0)?;
        Ok(policy)
    }

    fn is_off(&self) -> bool {
        self.strikes >= self.session.limits().strikes
    }

    /// Commits the text from `start` on, piece by piece.
    fn tell(&mut self, start: usize) -> Result<(), PolicyError> {
        let limits = self.session.limits();
        for tokens in self.text[start..].chunks(limits.commit_tokens) {
            self.session.call(limits.commit, |world, session, store| {
                world.specula_policy_acceptance().session().call_commit(store, session, tokens)
            })?;
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
        let accepted = session.call(session.limits().judge, |world, session, store| {
            world.specula_policy_acceptance().session().call_judge(store, session, question)
        })?;
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
            self.strikes += 1;
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

impl Acceptance for PluginAcceptance {
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
