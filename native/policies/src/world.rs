//! What a version of the interface comes to for the host: the exports of each kind, in the host's own types. There is one
//! module a version below [`crate::versions`]; nothing outside of them knows which one a plugin was made for.

use specula_decoding::TokenId;
use wasmtime::Store;
use wasmtime::component::ResourceAny;

use crate::host::Host;

pub(crate) use crate::versions::v0_1::bindings::acceptor::exports::specula::policy::acceptance::Window;
pub(crate) use crate::versions::v0_1::bindings::offers::specula::policy::{context, rows, types};
pub(crate) use crate::versions::v0_1::bindings::stopper::exports::specula::policy::stopping::Stop;

/// What a guest's function comes to: no return, its own fault, or a value.
pub(crate) type Outcome<T> = wasmtime::Result<Result<T, types::Fault>>;

/// The exports of one kind, instantiated.
pub(crate) trait World: Sized + Send + 'static {
    /// The same, ready to be instantiated.
    type Pre: Clone + Send + Sync + 'static;

    /// Instantiates.
    fn instantiate(pre: &Self::Pre, store: &mut Store<Host>) -> wasmtime::Result<Self>;

    /// Calls `open`.
    fn open(&self, store: &mut Store<Host>, model: &types::ModelInfo, config: &str) -> Outcome<()>;

    /// Makes a session.
    fn session(&self, store: &mut Store<Host>) -> wasmtime::Result<ResourceAny>;

    /// Calls `fork`.
    fn fork(&self, store: &mut Store<Host>, session: ResourceAny) -> wasmtime::Result<ResourceAny>;
}

/// Exports of an acceptance policy.
pub(crate) trait AcceptanceWorld: World {
    /// Calls `judge`.
    fn judge(&self, store: &mut Store<Host>, session: ResourceAny, window: &Window) -> Outcome<u32>;

    /// Calls `commit`.
    fn commit(&self, store: &mut Store<Host>, session: ResourceAny, tokens: &[TokenId]) -> Outcome<()>;
}

/// Exports of a sampling rule.
pub(crate) trait SamplingWorld: World {
    /// Calls `adjust`.
    fn adjust(&self, store: &mut Store<Host>, session: ResourceAny, draft: &[TokenId], first: u32) -> Outcome<()>;

    /// Calls `commit`.
    fn commit(&self, store: &mut Store<Host>, session: ResourceAny, tokens: &[TokenId]) -> Outcome<()>;
}

/// Exports of a stopping criterion.
pub(crate) trait StoppingWorld: World {
    /// Calls `observe`.
    fn observe(
        &self,
        store: &mut Store<Host>,
        session: ResourceAny,
        tokens: &[TokenId],
        text: &str,
        ends: &[u32],
    ) -> Outcome<Option<Stop>>;
}
