//! Shipped policies: every guest folder under `wasm-plugins` becomes `target/dist/plugins/<folder>.wasm`, a component.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use wit_component::{ComponentEncoder, DecodedWasm};

use crate::files;
use crate::guests::{self, Guest};
use crate::toolchain::Toolchain;

/// Interfaces that a component may import all begin so.
const OURS: &str = "specula:policy/";

/// Builds all of them.
pub(crate) fn build(toolchain: &Toolchain) -> Result<()> {
    let guests = find()?;
    let modules = guests::compile(toolchain, "plugins", &guests)?;
    let mut components = Vec::new();
    for (guest, module) in guests.iter().zip(modules) {
        let component = componentize(&module, &guest.description)?;
        eprintln!("    {}.wasm: {} bytes", guest.name, component.len());
        components.push((format!("{}.wasm", guest.name), component));
    }
    files::sync(&files::dist().join("plugins"), &components)
}

fn find() -> Result<Vec<Guest>> {
    let folder = files::root().join("wasm-plugins");
    let mut guests = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
        guests.extend(Guest::read(&entry?.path())?);
    }
    guests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(guests)
}

fn componentize(module: &Path, description: &str) -> Result<Vec<u8>> {
    let context = || format!("make a component of {}", module.display());
    let bytes = fs::read(module).with_context(context)?;
    let mut encoder = ComponentEncoder::default().validate(true).module(&bytes).with_context(context)?;
    let mut component = encoder.encode().with_context(context)?;
    check_imports(&component).with_context(context)?;
    append_description(&mut component, description);
    Ok(component)
}

/// The host refuses other imports at upload; better to hear it here.
fn check_imports(component: &[u8]) -> Result<()> {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(component)? else { bail!("not a component") };
    let names = resolve.worlds[world].imports.keys().map(|key| resolve.name_world_key(key));
    let foreign: Vec<String> = names.filter(|name| !name.starts_with(OURS)).collect();
    if !foreign.is_empty() {
        bail!("imports that no host of policies offers: {}", foreign.join(", "));
    }
    Ok(())
}

/// Adds the custom section `description`, where component tools keep it.
fn append_description(component: &mut Vec<u8>, description: &str) {
    const NAME: &[u8] = b"description";
    let mut section = leb128(NAME.len());
    section.extend_from_slice(NAME);
    section.extend_from_slice(description.as_bytes());
    component.push(0);
    component.extend(leb128(section.len()));
    component.extend(section);
}

fn leb128(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];

    #[test]
    fn a_description_leaves_a_valid_component() {
        for length in [0, 10, 200] {
            let mut component = EMPTY.to_vec();
            append_description(&mut component, &"x".repeat(length));
            check_imports(&component).expect("still a component");
        }
        assert_eq!(leb128(624_485), [0xe5, 0x8e, 0x26]);
    }
}
