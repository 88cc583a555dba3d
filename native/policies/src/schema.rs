//! Configurations checked against the schema that a plugin exports. A subset of JSON schema that costs what the
//! configuration's length costs, whoever wrote the schema: no references, no patterns, no alternatives.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::arithmetic_side_effects)]

use serde_json::{Map, Value};
use wasmtime::component::InstancePre;

use crate::ModelInfo;
use crate::explain::explain;
use crate::host::Host;
use crate::load_error::LoadError;
use crate::sandbox::{Sandbox, meter};
use crate::text::one_line;
use crate::versions::Version;

const SCHEMA_BYTES: usize = 64 << 10;
const LEVELS: usize = 8;
const MESSAGE_BYTES: usize = 512;
/// Keywords that check something.
const CHECKS: [&str; 15] = [
    "type",
    "enum",
    "const",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "items",
    "minItems",
    "maxItems",
    "properties",
    "required",
    "additionalProperties",
];
/// Keywords that tell something.
const NOTES: [&str; 5] = ["title", "description", "default", "examples", "$schema"];
const TYPES: [&str; 7] = ["object", "array", "string", "number", "integer", "boolean", "null"];

/// A schema whose keywords are all understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schema(Value);

/// Asks a plugin for its schema, within the budget of `open`.
pub(crate) fn read(sandbox: &Sandbox, version: &Version, pre: InstancePre<Host>) -> Result<Schema, LoadError> {
    let (mut store, _ticking) = sandbox.store(&ModelInfo::default());
    let budget = sandbox.limits.open;
    let text = meter(&mut store, budget).and_then(|()| (version.schema)(pre, &mut store));
    let text = text.map_err(|error| {
        let (code, message) = explain(&error, budget);
        refused(&format!("{code}: {message}"))
    })?;
    Schema::parse(&text)
}

impl Schema {
    pub(crate) fn parse(text: &str) -> Result<Self, LoadError> {
        if text.len() > SCHEMA_BYTES {
            return Err(refused(&format!("it has {} bytes, allowed are {SCHEMA_BYTES}", text.len())));
        }
        let schema: Value = serde_json::from_str(text).map_err(|error| refused(&error.to_string()))?;
        understood(&schema, "", LEVELS).map_err(|message| refused(&message))?;
        Ok(Self(schema))
    }

    /// The schema itself.
    pub(crate) fn json(&self) -> &Value {
        &self.0
    }

    /// Whether a configuration is as the schema says; names key, bound and value.
    pub(crate) fn check(&self, config: &Value) -> Result<(), String> {
        check(&self.0, config, "").map_err(|message| one_line(&message, MESSAGE_BYTES))
    }
}

/// The configuration to check laws under: the first example, or an empty object.
pub(crate) fn sample(schema: Option<&Value>) -> Value {
    let example = schema.and_then(|schema| schema.get("examples")?.as_array()?.first());
    example.cloned().unwrap_or_else(|| Value::Object(Map::new()))
}

fn refused(message: &str) -> LoadError {
    LoadError::SchemaRefused(one_line(message, MESSAGE_BYTES))
}

/// Whether every keyword of a schema is known and has a value of its form.
fn understood(schema: &Value, path: &str, levels: usize) -> Result<(), String> {
    let at = if path.is_empty() { "the schema" } else { path };
    let Value::Object(keywords) = schema else { return Err(format!("{at} must be an object")) };
    let Some(levels) = levels.checked_sub(1) else { return Err(format!("{at} is nested deeper than {LEVELS}")) };
    for (keyword, value) in keywords {
        let inner = format!("{path}.{keyword}");
        let formed = match keyword.as_str() {
            "type" => value.as_str().is_some_and(|name| TYPES.contains(&name)),
            "enum" | "examples" => value.is_array(),
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => value.is_number(),
            "minLength" | "maxLength" | "minItems" | "maxItems" => value.is_u64(),
            "additionalProperties" => value.is_boolean(),
            "required" => value.as_array().is_some_and(|names| names.iter().all(Value::is_string)),
            "items" => {
                understood(value, &inner, levels)?;
                true
            }
            "properties" => {
                let Value::Object(properties) = value else { return Err(format!("{inner} must be an object")) };
                for (name, property) in properties {
                    understood(property, &format!("{inner}.{name}"), levels)?;
                }
                true
            }
            known => CHECKS.contains(&known) || NOTES.contains(&known),
        };
        if !formed && CHECKS.contains(&keyword.as_str()) {
            return Err(format!("{inner} has a value of the wrong form"));
        }
        if !formed {
            return Err(format!("{at} has the keyword `{keyword}`, which is not understood; {}", CHECKS.join(", ")));
        }
    }
    Ok(())
}

fn check(schema: &Value, value: &Value, key: &str) -> Result<(), String> {
    let Value::Object(keywords) = schema else { return Ok(()) };
    let name = if key.is_empty() { "the configuration".to_owned() } else { format!("`{key}`") };
    for (keyword, bound) in keywords {
        let size = || bound.as_u64().unwrap_or(0);
        let holds = match (keyword.as_str(), value) {
            ("type", _) => is_of_type(value, bound.as_str().unwrap_or_default()),
            ("const", _) => value == bound,
            ("enum", _) => bound.as_array().is_some_and(|choices| choices.contains(value)),
            ("minimum", Value::Number(n)) => n.as_f64() >= bound.as_f64(),
            ("maximum", Value::Number(n)) => n.as_f64() <= bound.as_f64(),
            ("exclusiveMinimum", Value::Number(n)) => n.as_f64() > bound.as_f64(),
            ("exclusiveMaximum", Value::Number(n)) => n.as_f64() < bound.as_f64(),
            ("minLength", Value::String(text)) => text.chars().count() as u64 >= size(),
            ("maxLength", Value::String(text)) => text.chars().count() as u64 <= size(),
            ("minItems", Value::Array(items)) => items.len() as u64 >= size(),
            ("maxItems", Value::Array(items)) => items.len() as u64 <= size(),
            ("items", Value::Array(items)) => {
                for (i, item) in items.iter().enumerate() {
                    check(bound, item, &format!("{key}[{i}]"))?;
                }
                true
            }
            ("properties", Value::Object(object)) => {
                for (property, schema) in bound.as_object().into_iter().flatten() {
                    if let Some(value) = object.get(property) {
                        check(schema, value, &beside(key, property))?;
                    }
                }
                true
            }
            ("required", Value::Object(object)) => {
                let missing = bound.as_array().into_iter().flatten().filter_map(Value::as_str);
                if let Some(missing) = missing.into_iter().find(|property| !object.contains_key(*property)) {
                    return Err(format!("`{}` is needed", beside(key, missing)));
                }
                true
            }
            ("additionalProperties", Value::Object(object)) if bound == &Value::Bool(false) => {
                let known = keywords.get("properties").and_then(Value::as_object);
                let foreign = object.keys().find(|property| known.is_none_or(|known| !known.contains_key(*property)));
                if let Some(foreign) = foreign {
                    let mut known: Vec<&str> =
                        known.into_iter().flat_map(|known| known.keys().map(String::as_str)).collect();
                    known.sort_unstable();
                    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                    return Err(format!("unknown key `{}`; allowed: {known}", beside(key, foreign)));
                }
                true
            }
            _ => true,
        };
        if !holds {
            let rule = if keyword == "type" { "be of type".to_owned() } else { format!("satisfy `{keyword}`") };
            return Err(format!("{name} must {rule} {bound}, but is {value}"));
        }
    }
    Ok(())
}

fn beside(key: &str, property: &str) -> String {
    if key.is_empty() { property.to_owned() } else { format!("{key}.{property}") }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "boolean" => value.is_boolean(),
        _ => value.is_null(),
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, clippy::indexing_slicing)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Schema {
        let text = json!({
            "type": "object", "additionalProperties": false, "required": ["pattern"],
            "properties": {
                "pattern": {"type": "string", "minLength": 1, "maxLength": 4},
                "p": {"type": "number", "minimum": 0, "exclusiveMaximum": 1, "description": "a share"},
                "k": {"type": "integer"},
                "mode": {"enum": ["a", "b"], "default": "a"},
                "words": {"type": "array", "maxItems": 2, "items": {"type": "string"}}
            },
            "examples": [{"pattern": "x"}]
        });
        Schema::parse(&text.to_string()).expect("understood")
    }

    #[test]
    fn what_fits_passes() {
        for config in [
            json!({"pattern": "äöüß"}),
            json!({"pattern": "x", "p": 0, "k": 3.0, "mode": "b", "words": ["u", "v"]}),
            sample(Some(schema().json())),
        ] {
            assert_eq!(schema().check(&config), Ok(()), "{config}");
        }
    }

    #[test]
    fn what_does_not_is_named_with_bound_and_value() {
        for (config, words) in [
            (json!([]), "the configuration must be of type \"object\", but is []"),
            (json!({}), "`pattern` is needed"),
            (json!({"pattern": ""}), "`pattern` must satisfy `minLength` 1, but is \"\""),
            (json!({"pattern": "abcde"}), "`pattern` must satisfy `maxLength` 4"),
            (json!({"pattern": "x", "p": 1}), "`p` must satisfy `exclusiveMaximum` 1, but is 1"),
            (json!({"pattern": "x", "p": -0.5}), "`p` must satisfy `minimum` 0, but is -0.5"),
            (json!({"pattern": "x", "p": "0"}), "`p` must be of type \"number\", but is \"0\""),
            (json!({"pattern": "x", "k": 1.5}), "`k` must be of type \"integer\", but is 1.5"),
            (json!({"pattern": "x", "mode": "c"}), "`mode` must satisfy `enum` [\"a\",\"b\"], but is \"c\""),
            (json!({"pattern": "x", "words": ["u", 1]}), "`words[1]` must be of type \"string\", but is 1"),
            (json!({"pattern": "x", "words": ["u", "v", "w"]}), "`words` must satisfy `maxItems` 2"),
            (json!({"patern": "x", "pattern": "x"}), "unknown key `patern`; allowed: "),
        ] {
            let message = schema().check(&config).expect_err("it does not fit");
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn schemas_that_are_not_understood_are_refused() {
        let deep = (0..9).fold(json!({}), |inner, _| json!({"items": inner})).to_string();
        for (text, words) in [
            ("{", "EOF"),
            ("[]", "the schema must be an object"),
            (r##"{"$ref": "#"}"##, "`$ref`"),
            (r#"{"properties": {"a": {"pattern": "(a*)*"}}}"#, ".properties.a has the keyword `pattern`"),
            (r#"{"type": "tree"}"#, ".type"),
            (r#"{"minimum": "0"}"#, ".minimum"),
            (r#"{"properties": []}"#, ".properties must be an object"),
            (deep.as_str(), "deeper"),
        ] {
            let error = Schema::parse(text).expect_err(text);
            assert_eq!(error.code(), "schema-refused");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
