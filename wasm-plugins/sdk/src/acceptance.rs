//! Acceptance policies.

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::bindings::acceptor::exports::specula::policy::acceptance::{Guest, GuestSession, Session};
use crate::{Config, Fault, ModelInfo, Opened, Token, Window, opened};

/// How many draft tokens of a window to keep.
pub trait Acceptance: Clone + 'static {
    /// Reads the configuration.
    ///
    /// # Errors
    /// A value that is missing or out of range, or a model that the policy was not made for.
    fn open(model: &ModelInfo, config: &mut Config) -> Result<Self, Fault>;

    /// How many draft tokens to keep, 0..=n.
    ///
    /// # Errors
    /// The policy's own; the host then keeps what the own draw would.
    fn judge(&self, window: &Window) -> Result<u32, Fault>;

    /// Tokens were committed, the prompt first.
    ///
    /// # Errors
    /// The policy's own.
    fn commit(&mut self, tokens: &[Token]) -> Result<(), Fault> {
        let _ = tokens;
        Ok(())
    }
}

/// The component around a policy.
pub struct AcceptanceComponent<T>(PhantomData<T>);

/// One session.
pub struct AcceptanceSession<T>(RefCell<T>);

impl<T: Acceptance + Opened> Guest for AcceptanceComponent<T> {
    type Session = AcceptanceSession<T>;

    fn open(model: ModelInfo, config: String) -> Result<(), Fault> {
        opened::open::<T>(&model, &config, T::open)
    }
}

impl<T: Acceptance + Opened> GuestSession for AcceptanceSession<T> {
    fn new() -> Self {
        Self(RefCell::new(opened::fresh()))
    }

    fn judge(&self, window: Window) -> Result<u32, Fault> {
        self.0.borrow().judge(&window)
    }

    fn commit(&self, tokens: Vec<Token>) -> Result<(), Fault> {
        self.0.borrow_mut().commit(&tokens)
    }

    fn fork(&self) -> Session {
        Session::new(Self(self.0.clone()))
    }
}

/// Makes the crate a component with this [`Acceptance`] policy.
#[macro_export]
macro_rules! export_acceptance {
    ($policy:ty) => {
        $crate::opened!($policy);
        const _: () = {
            type Component = $crate::AcceptanceComponent<$policy>;
    $crate::bindings::acceptor::export_acceptor!(Component with_types_in $crate::bindings::acceptor);
        };
    };
}
