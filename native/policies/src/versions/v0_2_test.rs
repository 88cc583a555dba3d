//! A version that exists in tests only: it shows that another minor version, with other records, is served beside 0.1.

use specula_decoding::TokenId;
use wasmtime::component::{HasSelf, InstancePre, Linker, ResourceAny};
use wasmtime::{Result, Store};

use self::bindings::exports::specula::policy::acceptance;
use self::bindings::specula::policy::{context, types};
use self::bindings::{Acceptor, AcceptorPre};
use crate::Kind;
use crate::host::Host;
use crate::plugin::Exports;
use crate::versions::Version;
use crate::world::{self, AcceptanceWorld, Outcome, Window, World};

mod bindings {
    wasmtime::component::bindgen!({
        path: "tests/wit-0.2.0-test",
        world: "acceptor",
        imports: { default: trappable },
    });
}

pub(crate) const VERSION: Version = Version {
    prefix: "0.2.0-test",
    wit: include_str!("../../tests/wit-0.2.0-test/policy.wit"),
    first: "0.2.0-test",
    offer,
    exports,
    schema,
};

fn offer(linker: &mut Linker<Host>) -> Result<()> {
    Acceptor::add_to_linker::<Host, HasSelf<Host>>(linker, |host| host)
}

fn exports(pre: InstancePre<Host>, kinds: &[Kind]) -> Result<Exports> {
    let mut exports = Exports::default();
    if kinds.contains(&Kind::Acceptance) {
        exports.accept::<Acceptor>(AcceptorPre::new(pre)?);
    }
    Ok(exports)
}

fn schema(_: InstancePre<Host>, _: &mut Store<Host>) -> Result<String> {
    wasmtime::bail!("this version has no schema")
}

impl types::Host for Host {}

impl context::Host for Host {
    fn length(&mut self) -> Result<u32> {
        world::context::Host::length(self)
    }
}

fn fault(fault: types::Fault) -> world::types::Fault {
    world::types::Fault { code: fault.code, message: fault.message }
}

impl World for Acceptor {
    type Pre = AcceptorPre<Host>;

    fn instantiate(pre: &Self::Pre, store: &mut Store<Host>) -> Result<Self> {
        pre.instantiate(store)
    }

    fn open(&self, store: &mut Store<Host>, model: &world::types::ModelInfo, config: &str) -> Outcome<()> {
        let model = types::ModelInfo {
            vocab_size: model.vocab_size,
            end_tokens: model.end_tokens.clone(),
            max_window: model.max_window,
            name: "test".to_owned(),
        };
        Ok(self.specula_policy_acceptance().call_open(store, &model, config)?.map_err(fault))
    }

    fn session(&self, store: &mut Store<Host>) -> Result<ResourceAny> {
        self.specula_policy_acceptance().session().call_constructor(store)
    }

    fn fork(&self, store: &mut Store<Host>, session: ResourceAny) -> Result<ResourceAny> {
        self.specula_policy_acceptance().session().call_fork(store, session)
    }
}

impl AcceptanceWorld for Acceptor {
    fn judge(&self, store: &mut Store<Host>, session: ResourceAny, window: &Window) -> Outcome<u32> {
        let window = acceptance::Window {
            position: window.position,
            draft: window.draft.clone(),
            own_draw: window.own_draw.clone(),
        };
        let verdict = self.specula_policy_acceptance().session().call_judge(store, session, &window)?;
        Ok(verdict.map(|verdict| verdict.accepted).map_err(fault))
    }

    fn commit(&self, store: &mut Store<Host>, session: ResourceAny, tokens: &[TokenId]) -> Outcome<()> {
        Ok(self.specula_policy_acceptance().session().call_commit(store, session, tokens)?.map_err(fault))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use specula_decoding::WindowStats;

    use crate::{Limits, ModelInfo, Registry};

    /// Accepts two tokens, in the words of 0.2.
    const NEW: &str = r#"(module
      (import "specula:policy/context@0.2.0-test" "length" (func $length (result i32)))
      (import "[export]specula:policy/acceptance@0.2.0-test" "[resource-new]session"
        (func $new (param i32) (result i32)))
      (memory (export "memory") 2)
      (data (i32.const 2048) "\00\00\00\00\02\00\00\00")
      (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
      (func (export "specula:policy/acceptance@0.2.0-test#open")
        (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 1024))
      (func (export "specula:policy/acceptance@0.2.0-test#[constructor]session") (result i32)
        (call $new (i32.const 7)))
      (func (export "specula:policy/acceptance@0.2.0-test#[method]session.judge")
        (param i32 i32 i32 i32 i32 i32) (result i32)
        (if (i32.ne (call $length) (i32.const 3)) (then unreachable))
        (i32.const 2048))
      (func (export "specula:policy/acceptance@0.2.0-test#[method]session.commit") (param i32 i32 i32) (result i32)
        (i32.const 1024))
      (func (export "specula:policy/acceptance@0.2.0-test#[method]session.fork") (param i32) (result i32)
        (call $new (i32.const 7))))"#;

    fn window() -> WindowStats {
        let ones = vec![1; 4];
        let zeros = vec![0.0; 4];
        WindowStats {
            draft: ones.clone(),
            own_draw: ones.clone(),
            log_p: zeros.clone(),
            log_q: Vec::new(),
            rank: ones,
            entropy: zeros.clone(),
            top_probability: zeros,
            position: 3,
        }
    }

    #[test]
    fn two_minor_versions_are_served_side_by_side() {
        let registry = Registry::new(Limits::default()).expect("the sandbox works here");
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wit-0.2.0-test");
        let new = specula_guests::encode_with(NEW, folder.as_ref(), "acceptor");
        let old = specula_guests::plugin("well-behaved");
        let model = ModelInfo { vocab_size: 4, max_window: 4, ..ModelInfo::default() };
        for (name, bytes, accepted) in [("new", &new, 2), ("old", &old, 0)] {
            let plugin = registry.load(name, bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            let mut policy = plugin.open_acceptance(&model, &json!({}), &[1, 2, 3]).expect("it opens").policy;
            assert_eq!(policy.judge(&window()), Ok(accepted), "{name}");
            crate::laws::check(&plugin, &ModelInfo { vocab_size: 64, ..model.clone() }, None).err().map_or_else(
                || assert_eq!(name, "old", "the new one counts on a prompt of 3 tokens"),
                |error| assert_eq!((name, error.code()), ("new", "self-test-failed")),
            );
        }
    }
}
