//! The policy that `open` made, of which every session begins as a copy.

use std::cell::RefCell;
use std::thread::LocalKey;

use crate::{Config, Fault, ModelInfo, context};

/// Where a component keeps its opened policy.
pub type Slot<T> = LocalKey<RefCell<Option<T>>>;

/// Types that have a [`Slot`]; the export macros implement it.
pub trait Opened: Clone + 'static {
    /// The component's only slot for this type.
    fn slot() -> &'static Slot<Self>;
}

/// Opens a policy and keeps it. Every key of the configuration must be one that `make` asked for.
pub(crate) fn open<T: Opened>(
    model: &ModelInfo,
    config: &str,
    make: fn(&ModelInfo, &mut Config) -> Result<T, Fault>,
) -> Result<(), Fault> {
    std::panic::set_hook(Box::new(|panic| context::log(&panic.to_string())));
    let mut config = Config::parse(config)?;
    let policy = make(model, &mut config)?;
    config.finish()?;
    T::slot().with_borrow_mut(|slot| *slot = Some(policy));
    Ok(())
}

/// A copy of the opened policy.
pub(crate) fn fresh<T: Opened>() -> T {
    T::slot().with_borrow(|slot| slot.clone()).expect("the host opens before it makes a session")
}

/// Gives a type its slot.
#[doc(hidden)]
#[macro_export]
macro_rules! opened {
    ($policy:ty) => {
        impl $crate::Opened for $policy {
            fn slot() -> &'static $crate::Slot<Self> {
                ::std::thread_local! {
                    static OPENED: ::std::cell::RefCell<Option<$policy>> = const { ::std::cell::RefCell::new(None) };
                }
                &OPENED
            }
        }
    };
}
