//! Generated from the interface: what the host offers once, and the exports of each kind of policy on top of it.
#![allow(missing_docs)] // the interface file documents these items

pub mod offers {
    wit_bindgen::generate!({ path: "../wit", world: "offers" });
}

pub mod acceptor {
    wit_bindgen::generate!({
        path: "../wit",
        world: "acceptor",
        with: {
            "specula:policy/types@0.1.0": crate::bindings::offers::specula::policy::types,
            "specula:policy/context@0.1.0": crate::bindings::offers::specula::policy::context,
        },
        pub_export_macro: true,
        export_macro_name: "export_acceptor",
    });
}

pub mod sampler {
    wit_bindgen::generate!({
        path: "../wit",
        world: "sampler",
        with: {
            "specula:policy/types@0.1.0": crate::bindings::offers::specula::policy::types,
            "specula:policy/rows@0.1.0": crate::bindings::offers::specula::policy::rows,
            "specula:policy/context@0.1.0": crate::bindings::offers::specula::policy::context,
        },
        pub_export_macro: true,
        export_macro_name: "export_sampler",
    });
}

pub mod stopper {
    wit_bindgen::generate!({
        path: "../wit",
        world: "stopper",
        with: {
            "specula:policy/types@0.1.0": crate::bindings::offers::specula::policy::types,
            "specula:policy/context@0.1.0": crate::bindings::offers::specula::policy::context,
        },
        pub_export_macro: true,
        export_macro_name: "export_stopper",
    });
}

pub mod configurable {
    wit_bindgen::generate!({
        path: "../wit",
        world: "configurable",
        pub_export_macro: true,
        export_macro_name: "export_configurable",
    });
}
