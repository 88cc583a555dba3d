//! What a file must be before anything of it is compiled: small, a component, of bounded structure, made of allowed
//! features, importing only what is offered, exporting a policy.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::arithmetic_side_effects)]

use std::borrow::Cow;

use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

use crate::load_error::LoadError;
use crate::text::one_line;
use crate::versions::Version;
use crate::wrap::wrap;
use crate::{Kind, Limits};

/// Names of interfaces of policies begin so.
pub(crate) const PACKAGE: &str = "specula:policy/";
const IMPORTS: [&str; 3] = ["types", "rows", "context"];
/// The interface with the schema of the configuration.
const CONFIGURATION: &str = "configuration";
const DESCRIPTION_BYTES: usize = 512;
const MESSAGE_BYTES: usize = 512;
/// Most interfaces that are told of.
const INTERFACES: usize = 32;

/// A file that passed.
pub(crate) struct Checked<'a> {
    /// The component; a core module is wrapped.
    pub(crate) component: Cow<'a, [u8]>,
    /// What its exports say that it is.
    pub(crate) offer: Offer,
    /// Its custom section `description`.
    pub(crate) description: Option<String>,
    /// Names of all interfaces that it exports and imports.
    pub(crate) interfaces: Vec<String>,
}

/// What a component says that it is.
pub(crate) struct Offer {
    /// The version that its exports were made for.
    pub(crate) version: &'static Version,
    /// What it can be opened as, in the order of [`Kind`].
    pub(crate) kinds: Vec<Kind>,
    /// Whether it exports `configuration`.
    pub(crate) configurable: bool,
}

/// Checks a file.
pub(crate) fn check<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Checked<'a>, LoadError> {
    if bytes.len() > limits.file_bytes {
        return Err(LoadError::TooLarge { bytes: bytes.len(), limit: limits.file_bytes });
    }
    if !bytes.starts_with(b"\0asm") {
        let text = bytes.iter().find(|b| !b.is_ascii_whitespace()).is_some_and(|b| b"(;".contains(b));
        return Err(if text { LoadError::TextFormat } else { malformed("it does not begin with \\0asm") });
    }
    let component = if Parser::is_core_wasm(bytes) {
        validate(bytes)?;
        let wrapped = wrap(bytes).map_err(|why| malformed(&format!("a core module that cannot be wrapped: {why}")))?;
        Cow::Owned(wrapped)
    } else {
        Cow::Borrowed(bytes)
    };
    let outline = Outline::read(&component, limits)?;
    validate(&component)?;
    check_imports(&outline.imports)?;
    let offer = check_exports(&outline.exports)?;
    let interfaces = outline.exports.into_iter().chain(outline.imports).take(INTERFACES);
    let interfaces = interfaces.map(|name| one_line(&name, MESSAGE_BYTES)).collect();
    Ok(Checked { component, offer, description: outline.description, interfaces })
}

/// Features that guests may use; everything newer stays off.
fn features() -> WasmFeatures {
    // wasmtime itself builds adapters with several memories, and fails on some components where the feature is off.
    WasmFeatures::WASM2 | WasmFeatures::COMPONENT_MODEL | WasmFeatures::MULTI_MEMORY | WasmFeatures::EXTENDED_CONST
}

fn validate(bytes: &[u8]) -> Result<(), LoadError> {
    let Err(error) = Validator::new_with_features(features()).validate_all(bytes) else { return Ok(()) };
    if Validator::new_with_features(WasmFeatures::all()).validate_all(bytes).is_ok() {
        return Err(LoadError::FeatureNotAllowed(one_line(error.message(), MESSAGE_BYTES)));
    }
    Err(malformed(error.message()))
}

fn malformed(message: &str) -> LoadError {
    LoadError::NotAComponent(one_line(message, MESSAGE_BYTES))
}

fn check_imports(imports: &[String]) -> Result<(), LoadError> {
    let mut foreign = Vec::new();
    for import in imports {
        match ours(import) {
            Some((interface, version)) if IMPORTS.contains(&interface) => {
                known_version(import, version)?;
            }
            _ => foreign.push(import.as_str()),
        }
    }
    if foreign.is_empty() { Ok(()) } else { Err(LoadError::ImportNotAllowed(list(&foreign))) }
}

/// The kinds exported, all of one version.
/// Reads what a component is from the names of its exports; other names are passed over.
pub(crate) fn check_exports(exports: &[String]) -> Result<Offer, LoadError> {
    let (mut kinds, mut configurable) = (Vec::new(), false);
    let mut spoken: Option<&'static Version> = None;
    for export in exports {
        let Some((interface, text)) = ours(export) else { continue };
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == interface);
        if kind.is_none() && interface != CONFIGURATION {
            continue;
        }
        let version = known_version(export, text)?;
        if spoken.is_some_and(|spoken| !std::ptr::eq(spoken, version)) {
            return Err(LoadError::VersionUnknown(format!(
                "two versions at once, {}",
                one_line(export, MESSAGE_BYTES)
            )));
        }
        spoken = Some(version);
        kinds.extend(kind);
        configurable |= interface == CONFIGURATION;
    }
    kinds.sort_unstable();
    match spoken {
        Some(version) if !kinds.is_empty() => Ok(Offer { version, kinds, configurable }),
        _ => {
            let found: Vec<&str> = exports.iter().map(String::as_str).collect();
            Err(LoadError::ExportMissing(if found.is_empty() { "nothing".into() } else { list(&found) }))
        }
    }
}

/// Interface and version of a name in our package.
fn ours(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(PACKAGE)?.split_once('@')
}

fn known_version(name: &str, version: &str) -> Result<&'static Version, LoadError> {
    Version::of(version).ok_or_else(|| LoadError::VersionUnknown(one_line(name, MESSAGE_BYTES)))
}

fn list(names: &[&str]) -> String {
    one_line(&names.join(", "), MESSAGE_BYTES)
}

/// A component's parts, counted, and its names.
#[derive(Default)]
struct Outline {
    imports: Vec<String>,
    exports: Vec<String>,
    description: Option<String>,
    core_modules: usize,
    memories: usize,
    tables: usize,
    functions: usize,
    data_bytes: usize,
}

impl Outline {
    fn read(component: &[u8], limits: &Limits) -> Result<Self, LoadError> {
        let mut outline = Self::default();
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(component) {
            let payload = payload.map_err(|error| malformed(error.message()))?;
            match &payload {
                Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                    return Err(malformed("a core module"));
                }
                Payload::ModuleSection { .. } => {
                    depth = depth.saturating_add(1);
                    outline.core_modules = outline.core_modules.saturating_add(1);
                }
                Payload::ComponentSection { .. } => depth = depth.saturating_add(1),
                Payload::End(_) => depth = depth.saturating_sub(1),
                _ => outline.count(&payload, depth).map_err(|error| malformed(error.message()))?,
            }
            outline.bound(depth, limits)?;
        }
        Ok(outline)
    }

    fn count(&mut self, payload: &Payload<'_>, depth: usize) -> wasmparser::Result<()> {
        match payload {
            Payload::MemorySection(section) => self.memories = self.memories.saturating_add(section.count() as usize),
            Payload::TableSection(section) => self.tables = self.tables.saturating_add(section.count() as usize),
            Payload::FunctionSection(section) => {
                self.functions = self.functions.saturating_add(section.count() as usize)
            }
            Payload::DataSection(section) => self.data_bytes = self.data_bytes.saturating_add(section.range().len()),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section.clone() {
                    self.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section.clone() {
                    self.exports.push(export?.name.name.to_owned());
                }
            }
            Payload::CustomSection(section) if depth == 0 && section.name() == "description" => {
                self.description = std::str::from_utf8(section.data()).ok().map(|d| one_line(d, DESCRIPTION_BYTES));
            }
            _ => {}
        }
        Ok(())
    }

    fn bound(&self, depth: usize, limits: &Limits) -> Result<(), LoadError> {
        let bounds = [
            ("core modules", self.core_modules, limits.core_modules),
            ("memories", self.memories, limits.memories),
            ("tables", self.tables, limits.tables),
            ("functions", self.functions, limits.functions),
            ("bytes of data segments", self.data_bytes, limits.data_bytes),
            ("levels of nesting", depth, limits.nesting),
        ];
        match bounds.into_iter().find(|(_, value, limit)| value > limit) {
            Some((what, value, limit)) => Err(LoadError::StructureLimit { what, value, limit }),
            None => Ok(()),
        }
    }
}
