//! What becomes of a sequence whose device fails or hangs: it goes on on the spare, the CPU cores, where everything that it held
//! is fed once more. Nobody notices but the log.

use std::sync::{Arc, OnceLock};

use specula_decoding::model::OnExit;
use specula_decoding::{LanguageModel, Logits, ModelError, NewNode, TokenId};

use crate::caller::Caller;
use crate::patience::Patience;

/// Opens an empty sequence.
pub type Sessions = Arc<dyn Fn() -> Result<Box<dyn LanguageModel>, ModelError> + Send + Sync>;

/// A device and what stands in for it once it has failed.
#[derive(Clone)]
pub struct Guarded {
    device: Sessions,
    spare: Sessions,
    patience: Patience,
    shared: Arc<Shared>,
}

/// Of all sequences.
#[derive(Default)]
struct Shared {
    caller: OnceLock<Caller>,
    /// Why the device is not used any more.
    failed: OnceLock<ModelError>,
}

impl Guarded {
    /// Sequences of `device`, until one of them fails or takes longer than it may; of `spare` from then on.
    pub fn new(device: Sessions, spare: Sessions, patience: Patience) -> Self {
        Self { device, spare, patience, shared: Arc::default() }
    }

    /// Why the device is not used any more.
    pub fn failure(&self) -> Option<&ModelError> {
        self.shared.failed.get()
    }

    /// An empty sequence.
    ///
    /// # Errors
    /// The spare's.
    pub fn session(&self) -> Result<Box<dyn LanguageModel>, ModelError> {
        let open = self.device.clone();
        let device = self.call(1, move || open());
        Ok(Box::new(GuardedSession { guarded: self.clone(), device, spare: (self.spare)()?, held: Vec::new() }))
    }

    /// What a call of the device gives, unless it fails or has failed before.
    fn call<T: Send + 'static>(
        &self,
        rows: usize,
        call: impl FnOnce() -> Result<T, ModelError> + Send + 'static,
    ) -> Option<T> {
        if self.failure().is_some() {
            return None;
        }
        let done = self.caller().and_then(|caller| caller.call(rows, call)).and_then(|done| done);
        done.map_err(|error| self.fail(error)).ok()
    }

    /// The device's thread, which begins with its first sequence: that is opened on the draft's cores.
    fn caller(&self) -> Result<&Caller, ModelError> {
        if let Some(caller) = self.shared.caller.get() {
            return Ok(caller);
        }
        let caller = Caller::new(self.patience.clone());
        let caller = caller.map_err(|error| ModelError(format!("no thread for it: {error}")))?;
        Ok(self.shared.caller.get_or_init(|| caller))
    }

    fn fail(&self, error: ModelError) {
        if self.shared.failed.set(error.clone()).is_ok() {
            tracing::warn!(%error, "the draft's device failed; the draft goes on on the CPU");
        }
    }
}

struct GuardedSession {
    guarded: Guarded,
    /// `None` once it has failed, and with one that hangs for good.
    device: Option<Box<dyn LanguageModel>>,
    /// Empty while the device does its work.
    spare: Box<dyn LanguageModel>,
    /// What every slot was fed, while the spare may be needed.
    held: Vec<NewNode>,
}

impl GuardedSession {
    /// Does something about so many rows on the device, or on the spare if the device fails at it or has failed before.
    fn attempt<T: Send + 'static>(
        &mut self,
        rows: usize,
        act: impl Fn(&mut dyn LanguageModel) -> Result<T, ModelError> + Clone + Send + 'static,
    ) -> Result<T, ModelError> {
        if let Some(mut model) = self.device.take() {
            let here = act.clone();
            let done = self.guarded.call(rows, move || here(&mut *model).map(|done| (model, done)));
            if let Some((model, done)) = done {
                self.device = Some(model);
                return Ok(done);
            }
            self.hand_over()?;
        }
        act(&mut *self.spare)
    }

    /// Feeds the spare all that is held: parents make the same slots again.
    fn hand_over(&mut self) -> Result<(), ModelError> {
        let held = std::mem::take(&mut self.held);
        let follows = |(slot, node): &(usize, &NewNode)| node.parent == slot.checked_sub(1);
        let linear = held.iter().enumerate().take_while(follows).count();
        let tokens: Vec<TokenId> = held[..linear].iter().map(|node| node.token).collect();
        self.spare.prefill(&tokens)?;
        if linear < held.len() {
            self.spare.forward(&held[linear..], None)?;
        }
        Ok(())
    }

    fn hold(&mut self, nodes: impl IntoIterator<Item = NewNode>) {
        if self.device.is_some() {
            self.held.extend(nodes);
        }
    }

    /// Who computes.
    fn model(&self) -> &dyn LanguageModel {
        self.device.as_deref().unwrap_or(&*self.spare)
    }
}

impl LanguageModel for GuardedSession {
    fn vocab_size(&self) -> usize {
        self.spare.vocab_size()
    }

    fn context_length(&self) -> usize {
        self.spare.context_length()
    }

    fn linear(&self) -> usize {
        self.model().linear()
    }

    fn slots(&self) -> usize {
        self.model().slots()
    }

    fn forward(&mut self, nodes: &[NewNode], exit: Option<(usize, OnExit<'_>)>) -> Result<Logits, ModelError> {
        match exit {
            None => self.look_ahead(nodes, &[], 0),
            Some(_) => Err(ModelError("a draft on an accelerator has no early exit".into())),
        }
    }

    fn streams(&self) -> usize {
        self.model().streams()
    }

    fn look_ahead(&mut self, nodes: &[NewNode], from: &[usize], count: usize) -> Result<Logits, ModelError> {
        let (new, from) = (nodes.to_vec(), from.to_vec());
        let rows = nodes.len() + from.len() * count;
        let rows = self.attempt(rows, move |model| model.look_ahead(&new, &from, count))?;
        self.hold(nodes.iter().copied());
        Ok(rows)
    }

    fn prefill(&mut self, tokens: &[TokenId]) -> Result<(), ModelError> {
        let new = tokens.to_vec();
        self.attempt(tokens.len(), move |model| model.prefill(&new))?;
        let held = self.held.len();
        let node = |(i, &token): (usize, &TokenId)| NewNode { token, parent: (held + i).checked_sub(1) };
        self.hold(tokens.iter().enumerate().map(node));
        Ok(())
    }

    fn keep(&mut self, from: usize, path: &[usize]) -> Result<(), ModelError> {
        let kept = path.to_vec();
        self.attempt(1, move |model| model.keep(from, &kept))?;
        if self.device.is_some() {
            let tokens = path.iter().map(|slot| self.held[*slot].token).collect::<Vec<_>>();
            self.held.truncate(from);
            let node = |(i, token): (usize, TokenId)| NewNode { token, parent: (from + i).checked_sub(1) };
            self.held.extend(tokens.into_iter().enumerate().map(node));
        }
        Ok(())
    }
}
