//! Stopping criteria.

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::bindings::stopper::exports::specula::policy::stopping::{Guest, GuestSession, Session};
use crate::{Config, Fault, ModelInfo, Opened, Stop, Token, opened};

/// Says where a text ends.
pub trait Stopping: Clone + 'static {
    /// Reads the configuration.
    ///
    /// # Errors
    /// A value that is missing or out of range, or a model that the policy was not made for.
    fn open(model: &ModelInfo, config: &mut Config) -> Result<Self, Fault>;

    /// Sees the tokens just generated. Token `i` completed `text[ends[i-1]..ends[i]]`, in bytes.
    ///
    /// # Errors
    /// The policy's own; the request fails with it.
    fn observe(&mut self, tokens: &[Token], text: &str, ends: &[u32]) -> Result<Option<Stop>, Fault>;
}

/// The component around a policy.
pub struct StoppingComponent<T>(PhantomData<T>);

/// One session.
pub struct StoppingSession<T>(RefCell<T>);

impl<T: Stopping + Opened> Guest for StoppingComponent<T> {
    type Session = StoppingSession<T>;

    fn open(model: ModelInfo, config: String) -> Result<(), Fault> {
        opened::open::<T>(&model, &config, T::open)
    }
}

impl<T: Stopping + Opened> GuestSession for StoppingSession<T> {
    fn new() -> Self {
        Self(RefCell::new(opened::fresh()))
    }

    fn observe(&self, tokens: Vec<Token>, text: String, ends: Vec<u32>) -> Result<Option<Stop>, Fault> {
        self.0.borrow_mut().observe(&tokens, &text, &ends)
    }

    fn fork(&self) -> Session {
        Session::new(Self(self.0.clone()))
    }
}

/// Makes the crate a component with this [`Stopping`] criterion.
#[macro_export]
macro_rules! export_stopping {
    ($policy:ty) => {
        $crate::opened!($policy);
        const _: () = {
            type Component = $crate::StoppingComponent<$policy>;
    $crate::bindings::stopper::export_stopper!(Component with_types_in $crate::bindings::stopper);
        };
    };
}
