//! `specula:policy@0.1`: the version whose types are the host's own.

use specula_decoding::TokenId;
use wasmtime::Store;
use wasmtime::component::{HasSelf, InstancePre, Linker, ResourceAny};

use self::bindings::acceptor::{Acceptor, AcceptorPre};
use self::bindings::configurable::ConfigurablePre;
use self::bindings::sampler::{Sampler, SamplerPre};
use self::bindings::stopper::{Stopper, StopperPre};
use crate::Kind;
use crate::host::Host;
use crate::plugin::Exports;
use crate::versions::Version;
use crate::world::{AcceptanceWorld, Outcome, SamplingWorld, Stop, StoppingWorld, Window, World, types};

pub(crate) mod bindings;

pub(crate) const VERSION: Version = Version {
    prefix: "0.1.",
    wit: include_str!("../../../../wasm-plugins/wit/policy.wit"),
    first: "0.1.0",
    offer,
    exports,
    schema,
};

fn offer(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    bindings::offers::Offers::add_to_linker::<Host, HasSelf<Host>>(linker, |host| host)
}

fn exports(pre: InstancePre<Host>, kinds: &[Kind]) -> wasmtime::Result<Exports> {
    let mut exports = Exports::default();
    for kind in kinds {
        match kind {
            Kind::Acceptance => exports.accept::<Acceptor>(AcceptorPre::new(pre.clone())?),
            Kind::Sampling => exports.sample::<Sampler>(SamplerPre::new(pre.clone())?),
            Kind::Stopping => exports.stop::<Stopper>(StopperPre::new(pre.clone())?),
        }
    }
    Ok(exports)
}

fn schema(pre: InstancePre<Host>, store: &mut Store<Host>) -> wasmtime::Result<String> {
    let exports = ConfigurablePre::new(pre)?.instantiate(&mut *store)?;
    exports.specula_policy_configuration().call_schema(store)
}

impl World for Acceptor {
    type Pre = AcceptorPre<Host>;

    fn instantiate(pre: &Self::Pre, store: &mut Store<Host>) -> wasmtime::Result<Self> {
        pre.instantiate(store)
    }

    fn open(&self, store: &mut Store<Host>, model: &types::ModelInfo, config: &str) -> Outcome<()> {
        self.specula_policy_acceptance().call_open(store, model, config)
    }

    fn session(&self, store: &mut Store<Host>) -> wasmtime::Result<ResourceAny> {
        self.specula_policy_acceptance().session().call_constructor(store)
    }

    fn fork(&self, store: &mut Store<Host>, session: ResourceAny) -> wasmtime::Result<ResourceAny> {
        self.specula_policy_acceptance().session().call_fork(store, session)
    }
}

impl AcceptanceWorld for Acceptor {
    fn judge(&self, store: &mut Store<Host>, session: ResourceAny, window: &Window) -> Outcome<u32> {
        self.specula_policy_acceptance().session().call_judge(store, session, window)
    }

    fn commit(&self, store: &mut Store<Host>, session: ResourceAny, tokens: &[TokenId]) -> Outcome<()> {
        self.specula_policy_acceptance().session().call_commit(store, session, tokens)
    }
}

impl World for Sampler {
    type Pre = SamplerPre<Host>;

    fn instantiate(pre: &Self::Pre, store: &mut Store<Host>) -> wasmtime::Result<Self> {
        pre.instantiate(store)
    }

    fn open(&self, store: &mut Store<Host>, model: &types::ModelInfo, config: &str) -> Outcome<()> {
        self.specula_policy_sampling().call_open(store, model, config)
    }

    fn session(&self, store: &mut Store<Host>) -> wasmtime::Result<ResourceAny> {
        self.specula_policy_sampling().session().call_constructor(store)
    }

    fn fork(&self, store: &mut Store<Host>, session: ResourceAny) -> wasmtime::Result<ResourceAny> {
        self.specula_policy_sampling().session().call_fork(store, session)
    }
}

impl SamplingWorld for Sampler {
    fn adjust(&self, store: &mut Store<Host>, session: ResourceAny, draft: &[TokenId], first: u32) -> Outcome<()> {
        self.specula_policy_sampling().session().call_adjust(store, session, draft, first)
    }

    fn commit(&self, store: &mut Store<Host>, session: ResourceAny, tokens: &[TokenId]) -> Outcome<()> {
        self.specula_policy_sampling().session().call_commit(store, session, tokens)
    }
}

impl World for Stopper {
    type Pre = StopperPre<Host>;

    fn instantiate(pre: &Self::Pre, store: &mut Store<Host>) -> wasmtime::Result<Self> {
        pre.instantiate(store)
    }

    fn open(&self, store: &mut Store<Host>, model: &types::ModelInfo, config: &str) -> Outcome<()> {
        self.specula_policy_stopping().call_open(store, model, config)
    }

    fn session(&self, store: &mut Store<Host>) -> wasmtime::Result<ResourceAny> {
        self.specula_policy_stopping().session().call_constructor(store)
    }

    fn fork(&self, store: &mut Store<Host>, session: ResourceAny) -> wasmtime::Result<ResourceAny> {
        self.specula_policy_stopping().session().call_fork(store, session)
    }
}

impl StoppingWorld for Stopper {
    fn observe(
        &self,
        store: &mut Store<Host>,
        session: ResourceAny,
        tokens: &[TokenId],
        text: &str,
        ends: &[u32],
    ) -> Outcome<Option<Stop>> {
        self.specula_policy_stopping().session().call_observe(store, session, tokens, text, ends)
    }
}
