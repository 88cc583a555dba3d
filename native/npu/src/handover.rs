//! What becomes of a sequence whose device fails: it goes on on the spare, the CPU cores, where everything that it held is
//! fed once more. Nobody notices but the log.

use std::sync::{Arc, OnceLock};

use specula_decoding::model::OnExit;
use specula_decoding::{LanguageModel, Logits, ModelError, NewNode, TokenId};

/// Opens an empty sequence.
pub type Sessions = Arc<dyn Fn() -> Result<Box<dyn LanguageModel>, ModelError> + Send + Sync>;

/// A device and what stands in for it once it has failed.
#[derive(Clone)]
pub struct Guarded {
    device: Sessions,
    spare: Sessions,
    /// Why the device is not used any more, by any sequence.
    failed: Arc<OnceLock<ModelError>>,
}

impl Guarded {
    /// Sequences of `device`, until one of them fails; of `spare` from then on.
    pub fn new(device: Sessions, spare: Sessions) -> Self {
        Self { device, spare, failed: Arc::default() }
    }

    /// Why the device is not used any more.
    pub fn failure(&self) -> Option<&ModelError> {
        self.failed.get()
    }

    /// An empty sequence.
    ///
    /// # Errors
    /// The spare's.
    pub fn session(&self) -> Result<Box<dyn LanguageModel>, ModelError> {
        if self.failed.get().is_none() {
            match (self.device)() {
                Ok(model) => {
                    let session = GuardedSession { guarded: self.clone(), model, on_device: true, held: Vec::new() };
                    return Ok(Box::new(session));
                }
                Err(error) => self.fail(error),
            }
        }
        (self.spare)()
    }

    fn fail(&self, error: ModelError) {
        if self.failed.set(error.clone()).is_ok() {
            tracing::warn!(%error, "the draft's device failed; the draft goes on on the CPU");
        }
    }
}

struct GuardedSession {
    guarded: Guarded,
    model: Box<dyn LanguageModel>,
    on_device: bool,
    /// What every slot was fed, while a spare may be needed.
    held: Vec<NewNode>,
}

impl GuardedSession {
    /// Does something on the device, or on the spare if the device fails at it or has failed before.
    fn attempt<T>(
        &mut self,
        mut act: impl FnMut(&mut dyn LanguageModel) -> Result<T, ModelError>,
    ) -> Result<T, ModelError> {
        if self.on_device && self.guarded.failure().is_none() {
            match act(&mut *self.model) {
                Ok(done) => return Ok(done),
                Err(error) => self.guarded.fail(error),
            }
        }
        if self.on_device {
            self.hand_over()?;
        }
        act(&mut *self.model)
    }

    /// Feeds the spare all that is held: parents make the same slots again.
    fn hand_over(&mut self) -> Result<(), ModelError> {
        let mut spare = (self.guarded.spare)()?;
        let held = std::mem::take(&mut self.held);
        let follows = |(slot, node): &(usize, &NewNode)| node.parent == slot.checked_sub(1);
        let linear = held.iter().enumerate().take_while(follows).count();
        let tokens: Vec<TokenId> = held[..linear].iter().map(|node| node.token).collect();
        spare.prefill(&tokens)?;
        if linear < held.len() {
            spare.forward(&held[linear..], None)?;
        }
        self.model = spare;
        self.on_device = false;
        Ok(())
    }

    fn hold(&mut self, nodes: impl IntoIterator<Item = NewNode>) {
        if self.on_device {
            self.held.extend(nodes);
        }
    }
}

impl LanguageModel for GuardedSession {
    fn vocab_size(&self) -> usize {
        self.model.vocab_size()
    }

    fn context_length(&self) -> usize {
        self.model.context_length()
    }

    fn linear(&self) -> usize {
        self.model.linear()
    }

    fn slots(&self) -> usize {
        self.model.slots()
    }

    fn forward(&mut self, nodes: &[NewNode], exit: Option<(usize, OnExit<'_>)>) -> Result<Logits, ModelError> {
        let (layer, mut on_exit) = exit.unzip();
        let rows = self.attempt(|model| {
            let exit = layer.zip(on_exit.as_mut().map(|on_exit| &mut **on_exit as OnExit<'_>));
            model.forward(nodes, exit)
        })?;
        self.hold(nodes.iter().copied());
        Ok(rows)
    }

    fn streams(&self) -> usize {
        self.model.streams()
    }

    fn look_ahead(&mut self, nodes: &[NewNode], from: &[usize], count: usize) -> Result<Logits, ModelError> {
        let rows = self.attempt(|model| model.look_ahead(nodes, from, count))?;
        self.hold(nodes.iter().copied());
        Ok(rows)
    }

    fn prefill(&mut self, tokens: &[TokenId]) -> Result<(), ModelError> {
        self.attempt(|model| model.prefill(tokens))?;
        let held = self.held.len();
        let node = |(i, &token): (usize, &TokenId)| NewNode { token, parent: (held + i).checked_sub(1) };
        self.hold(tokens.iter().enumerate().map(node));
        Ok(())
    }

    fn keep(&mut self, from: usize, path: &[usize]) -> Result<(), ModelError> {
        self.attempt(|model| model.keep(from, path))?;
        if self.on_device {
            let tokens = path.iter().map(|slot| self.held[*slot].token).collect::<Vec<_>>();
            self.held.truncate(from);
            let node = |(i, token): (usize, TokenId)| NewNode { token, parent: (from + i).checked_sub(1) };
            self.held.extend(tokens.into_iter().enumerate().map(node));
        }
        Ok(())
    }
}
