//! The minor versions of the interface that are spoken here, side by side: a plugin is served in the one it was made for.

use wasmtime::Store;
use wasmtime::component::{InstancePre, Linker};

use crate::Kind;
use crate::host::Host;
use crate::plugin::Exports;

pub(crate) mod v0_1;
#[cfg(test)]
mod v0_2_test;

/// One minor version.
pub(crate) struct Version {
    /// Versions compatible with it begin so.
    prefix: &'static str,
    /// The interface as text, in the version's first release.
    wit: &'static str,
    /// That release.
    first: &'static str,
    /// Adds what it offers to guests.
    pub(crate) offer: fn(&mut Linker<Host>) -> wasmtime::Result<()>,
    /// The exports of these kinds.
    pub(crate) exports: fn(InstancePre<Host>, &[Kind]) -> wasmtime::Result<Exports>,
    /// Calls `schema` of a component that exports `configuration`.
    pub(crate) schema: fn(InstancePre<Host>, &mut Store<Host>) -> wasmtime::Result<String>,
}

/// All of them, oldest first.
pub(crate) const VERSIONS: &[Version] = &[
    v0_1::VERSION,
    #[cfg(test)]
    v0_2_test::VERSION,
];

impl Version {
    /// The version that serves interfaces of the version `text`, if there is one.
    pub(crate) fn of(text: &str) -> Option<&'static Self> {
        VERSIONS.iter().find(|version| text.starts_with(version.prefix))
    }

    /// The interface under the name of a later release, which has all that the first has.
    pub(crate) fn interface(&self, release: &str) -> String {
        let named = |release: &str| format!("package specula:policy@{release};");
        self.wit.replacen(&named(self.first), &named(release), 1)
    }
}
