//! Makes a component of a core module. Compilers leave the interface that a module was made for in its custom sections; those
//! are not read, for the reader was not made for hostile ones (packages that depend on each other in a circle end the
//! process). What the module's exports are called says enough, and the interface is ours.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::arithmetic_side_effects)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::checks::PACKAGE;
use crate::versions::Version;

/// Custom sections that say for which interface a module was made begin so.
const INTERFACE: &str = "component-type";
/// Magic number and version.
const HEADER: usize = 8;
/// The world with which an interface is exported.
const WORLDS: [(&str, &str); 4] =
    [("acceptance", "acceptor"), ("sampling", "sampler"), ("stopping", "stopper"), ("configuration", "configurable")];

/// Wraps a core module that is valid.
///
/// # Errors
/// What does not fit the interface, for its author.
pub(crate) fn wrap(module: &[u8]) -> Result<Vec<u8>, String> {
    // Code of others works on what guests wrote: should it panic, the module is one that cannot be wrapped.
    let wrapped = catch_unwind(AssertUnwindSafe(|| encode(module)));
    wrapped.unwrap_or_else(|_| Err("it has parts that cannot be made a component of".to_owned()))
}

fn encode(module: &[u8]) -> Result<Vec<u8>, String> {
    let Module { mut stripped, exports } = Module::read(module).map_err(|error| error.message().to_owned())?;
    let parts: Vec<(&str, &str)> = exports.iter().filter_map(|export| parts_of(export)).collect();
    if let Some((version, text)) = parts.iter().find_map(|(_, text)| Some((Version::of(text)?, text))) {
        let mut resolve = Resolve::default();
        let package = resolve.push_str("policy.wit", &version.interface(text)).map_err(|error| format!("{error:#}"))?;
        for (interface, world) in WORLDS {
            if parts.iter().any(|(exported, _)| *exported == interface) {
                let world = resolve.select_world(&[package], Some(world)).map_err(|error| format!("{error:#}"))?;
                embed_component_metadata(&mut stripped, &resolve, world, StringEncoding::UTF8)
                    .map_err(|error| format!("{error:#}"))?;
            }
        }
    }
    let encoded = ComponentEncoder::default().validate(false).module(&stripped).and_then(|mut module| module.encode());
    encoded.map_err(|error| format!("{error:#}"))
}

/// Interface and version of an export such as `specula:policy/sampling@0.1.0#open`.
fn parts_of(export: &str) -> Option<(&str, &str)> {
    export.strip_prefix(PACKAGE)?.split_once('#')?.0.split_once('@')
}

/// What is needed of a core module.
struct Module {
    /// All of it but the custom sections that tell its interface.
    stripped: Vec<u8>,
    /// Names of its exports.
    exports: Vec<String>,
}

impl Module {
    fn read(module: &[u8]) -> wasmparser::Result<Self> {
        let mut exports = Vec::new();
        let mut stripped = module.get(..HEADER).unwrap_or_default().to_vec();
        for payload in Parser::new(0).parse_all(module) {
            let payload = payload?;
            if let Payload::ExportSection(section) = &payload {
                for export in section.clone() {
                    exports.push(export?.name.to_owned());
                }
            }
            let told = matches!(&payload, Payload::CustomSection(section) if section.name().starts_with(INTERFACE));
            if let Some((id, range)) = payload.as_section()
                && !told
                && let Some(content) = module.get(range)
            {
                stripped.push(id);
                push_length(&mut stripped, content.len());
                stripped.extend_from_slice(content);
            }
        }
        Ok(Self { stripped, exports })
    }
}

/// LEB128.
fn push_length(bytes: &mut Vec<u8>, mut length: usize) {
    while length > 0x7f {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
}

#[cfg(test)]
#[allow(clippy::expect_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_says_of_its_interface_is_not_read() {
        let mut module = specula_guests::plugin("well-behaved");
        let wrapped = wrap(&module).expect("it fits");
        let name = format!("{INTERFACE}:wild");
        module.push(0);
        push_length(&mut module, name.len() + 201);
        module.push(name.len() as u8);
        module.extend_from_slice(name.as_bytes());
        module.extend_from_slice(&[0xa5; 200]);
        assert_eq!(wrap(&module), Ok(wrapped));
    }

    #[test]
    fn lengths_are_leb128() {
        let encoded = |length| {
            let mut bytes = Vec::new();
            push_length(&mut bytes, length);
            bytes
        };
        assert_eq!((encoded(5), encoded(624_485)), (vec![5], vec![0xe5, 0x8e, 0x26]));
    }
}
