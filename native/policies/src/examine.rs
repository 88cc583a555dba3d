//! All that is asked of a plugin before it may be used, in order. Runs in a process of its own, see `workshop`.

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use specula_decoding::PolicyError;

use crate::facts::Facts;
use crate::load_error::LoadError;
use crate::plugin::{PluginInfo, compile};
use crate::recording::Recording;
use crate::replay::{self, Call};
use crate::sandbox::Sandbox;
use crate::{Class, Kind, Plugin, checks, laws, schema, stamp};

/// A plugin that passed.
#[derive(Debug)]
pub struct Examined {
    /// What was found.
    pub facts: Facts,
    /// Compiled code, for engines with the same settings.
    pub code: Vec<u8>,
}

/// Examines a file.
///
/// # Errors
/// The first check that it fails.
pub(crate) fn examine(bytes: &[u8], class: Class, config: &Value) -> Result<Examined, LoadError> {
    let sandbox = Arc::new(Sandbox::new(class.limits())?);
    // 1. Size, form, structure, features, imports, exports.
    let checked = checks::check(bytes, &sandbox.limits)?;
    // 2. The compiler takes it, and does not make too much of it.
    let begin = Instant::now();
    let component = compile(&sandbox, &checked.component)?;
    let compile_ms = begin.elapsed().as_millis() as u64;
    let code = component.serialize().map_err(|error| LoadError::CompileFailed(format!("{error:#}")))?;
    let limit = class.exam().code_bytes;
    if code.len() as u64 > limit {
        return Err(LoadError::CodeTooLarge { bytes: code.len() as u64, limit });
    }
    // 3. Its interfaces have our types, and its schema is one.
    let info = PluginInfo::of("plugin", bytes, &checked);
    let plugin = Arc::new(Plugin::assemble(sandbox, info, &component, &checked.offer)?);
    let example = schema::sample(plugin.info().config_schema.as_ref());
    let config = if config.as_object().is_some_and(|config| config.is_empty()) { &example } else { config };
    // 4. It does its work on a recorded window.
    let recording = Recording::reference();
    let calls = replay::replay(&plugin, config, &recording);
    works(&calls)?;
    // 5. It keeps the laws.
    laws::check(&plugin, &recording.model(), Some(config))?;
    // 6. How exact it is.
    let stamp = plugin.info().kinds.contains(&Kind::Acceptance).then(|| stamp::measure(&plugin, config)).transpose();
    let stamp = stamp.map_err(|error| failed(Kind::Acceptance, "reference set", &error))?;
    let facts = Facts {
        kinds: checked.offer.kinds,
        description: checked.description,
        interfaces: checked.interfaces,
        code_bytes: code.len() as u64,
        compile_ms,
        costs: replay::costs(&calls),
        stamp,
    };
    Ok(Examined { facts, code })
}

fn works(calls: &[Call]) -> Result<(), LoadError> {
    let failure = calls.iter().find_map(|call| Some((call, call.outcome.as_ref().err()?)));
    failure.map_or(Ok(()), |(call, error)| Err(failed(call.kind, call.function, error)))
}

fn failed(kind: Kind, check: &'static str, error: &PolicyError) -> LoadError {
    let remedy = if error.code == "bad-config" { "; give a configuration that suits it" } else { "" };
    LoadError::SelfTestFailed {
        kind: kind.as_str(),
        check,
        found: format!("{} ({}){remedy}", error.message, error.code),
    }
}
