//! Generated from the interface: what the host offers, and the exports of each kind of plugin.
#![allow(missing_docs)] // the interface file documents these items

pub(crate) mod offers {
    wasmtime::component::bindgen!({
        path: "../../wasm-plugins/wit",
        world: "offers",
        imports: { default: trappable },
    });
}

pub(crate) mod acceptor {
    wasmtime::component::bindgen!({
        path: "../../wasm-plugins/wit",
        world: "acceptor",
        with: {
            "specula:policy/types": crate::versions::v0_1::bindings::offers::specula::policy::types,
            "specula:policy/context": crate::versions::v0_1::bindings::offers::specula::policy::context,
        },
    });
}

pub(crate) mod sampler {
    wasmtime::component::bindgen!({
        path: "../../wasm-plugins/wit",
        world: "sampler",
        with: {
            "specula:policy/types": crate::versions::v0_1::bindings::offers::specula::policy::types,
            "specula:policy/rows": crate::versions::v0_1::bindings::offers::specula::policy::rows,
            "specula:policy/context": crate::versions::v0_1::bindings::offers::specula::policy::context,
        },
    });
}

pub(crate) mod stopper {
    wasmtime::component::bindgen!({
        path: "../../wasm-plugins/wit",
        world: "stopper",
        with: {
            "specula:policy/types": crate::versions::v0_1::bindings::offers::specula::policy::types,
            "specula:policy/context": crate::versions::v0_1::bindings::offers::specula::policy::context,
        },
    });
}

pub(crate) mod configurable {
    wasmtime::component::bindgen!({
        path: "../../wasm-plugins/wit",
        world: "configurable",
    });
}
