//! Sampling rules.

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::bindings::sampler::exports::specula::policy::sampling::{Guest, GuestSession, Session};
use crate::{Config, Fault, ModelInfo, Opened, Token, opened};

/// Edits rows, through [`crate::rows`], before the target draws from them.
pub trait Sampling: Clone + 'static {
    /// Reads the configuration.
    ///
    /// # Errors
    /// A value that is missing or out of range, or a model that the policy was not made for.
    fn open(model: &ModelInfo, config: &mut Config) -> Result<Self, Fault>;

    /// Edits the rows `first..=draft.len()`; row `i` follows the committed text and `draft[..i]` and may depend on nothing
    /// else.
    ///
    /// # Errors
    /// The policy's own; the request fails with it.
    fn adjust(&self, draft: &[Token], first: u32) -> Result<(), Fault>;

    /// Tokens were committed, the prompt first.
    ///
    /// # Errors
    /// The policy's own; the request fails with it.
    fn commit(&mut self, tokens: &[Token]) -> Result<(), Fault> {
        let _ = tokens;
        Ok(())
    }
}

/// The component around a policy.
pub struct SamplingComponent<T>(PhantomData<T>);

/// One session.
pub struct SamplingSession<T>(RefCell<T>);

impl<T: Sampling + Opened> Guest for SamplingComponent<T> {
    type Session = SamplingSession<T>;

    fn open(model: ModelInfo, config: String) -> Result<(), Fault> {
        opened::open::<T>(&model, &config, T::open)
    }
}

impl<T: Sampling + Opened> GuestSession for SamplingSession<T> {
    fn new() -> Self {
        Self(RefCell::new(opened::fresh()))
    }

    fn adjust(&self, draft: Vec<Token>, first: u32) -> Result<(), Fault> {
        self.0.borrow().adjust(&draft, first)
    }

    fn commit(&self, tokens: Vec<Token>) -> Result<(), Fault> {
        self.0.borrow_mut().commit(&tokens)
    }

    fn fork(&self) -> Session {
        Session::new(Self(self.0.clone()))
    }
}

/// Makes the crate a component with this [`Sampling`] policy.
#[macro_export]
macro_rules! export_sampling {
    ($policy:ty) => {
        $crate::opened!($policy);
        const _: () = {
            type Component = $crate::SamplingComponent<$policy>;
    $crate::bindings::sampler::export_sampler!(Component with_types_in $crate::bindings::sampler);
        };
    };
}
