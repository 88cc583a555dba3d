//! Turns JSON into wire types, or says which field is wrong and how: serde_json's own messages have no path, and an
//! unknown field should be answered with the one that was meant.

use std::fmt;

use serde::de::value::StringDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Expected, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};
use specula_engine::RequestError;

use crate::errors::clip;

/// Decodes a value.
///
/// # Errors
/// Names the field by its path (`speculation.window`, `messages[2].role`); the path is empty for the value itself.
pub(crate) fn decode<T: DeserializeOwned>(value: Value) -> Result<T, RequestError> {
    T::deserialize(Node(value)).map_err(DecodeError::into_request_error)
}

/// What is wrong, and where; the path grows outwards while the error travels up.
#[derive(Debug)]
struct DecodeError {
    path: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Unknown { field: String, known: &'static [&'static str] },
    Missing { field: &'static str },
    Type { expected: String, given: String },
    Other(String),
}

impl DecodeError {
    fn within_field(mut self, field: &str) -> Self {
        let field = clip(field);
        self.path = match self.path.as_str() {
            "" => field,
            path if path.starts_with('[') => field + path,
            path => field + "." + path,
        };
        self
    }

    fn within_element(mut self, index: usize) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("[{index}]{dot}{}", self.path);
        self
    }

    fn into_request_error(self) -> RequestError {
        let beside = |name: &str| if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        let whole = if self.path.is_empty() { "the body".to_owned() } else { format!("`{}`", self.path) };
        match self.kind {
            Kind::Unknown { field, known } => {
                let remedy = match closest(&field, known) {
                    Some(meant) => format!("did you mean `{}`?", beside(meant)),
                    None => format!("known are {}", listed(known)),
                };
                let field = beside(&clip(&field));
                let message = format!("`{field}` is not a field this server knows; {remedy}");
                RequestError { field, code: "unknown_field", message }
            }
            Kind::Missing { field } => {
                let field = beside(field);
                RequestError { message: format!("`{field}` is needed"), field, code: "missing_field" }
            }
            Kind::Type { expected, given } => {
                let message = format!("{whole} must be {expected}; given: {given}");
                RequestError { field: self.path, code: "invalid_type", message }
            }
            Kind::Other(message) => {
                RequestError { message: format!("{whole}: {message}"), field: self.path, code: "invalid_value" }
            }
        }
    }
}

impl From<Kind> for DecodeError {
    fn from(kind: Kind) -> Self {
        Self { path: String::new(), kind }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.path, self.kind)
    }
}

impl std::error::Error for DecodeError {}

impl serde::de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Kind::Other(message.to_string()).into()
    }

    fn invalid_type(given: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Kind::Type { expected: wanted(expected), given: shown(given) }.into()
    }

    fn invalid_value(given: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(given, expected)
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Kind::Unknown { field: field.to_owned(), known }.into()
    }

    fn missing_field(field: &'static str) -> Self {
        Kind::Missing { field }.into()
    }
}

/// Rust's names of types in words that a JSON author uses.
fn wanted(expected: &dyn Expected) -> String {
    let expected = expected.to_string();
    match expected.as_str() {
        "u64" | "u32" | "usize" => "a whole number ≥ 0".into(),
        "f64" => "a number".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "an array".into(),
        "a map" => "an object".into(),
        name if name.starts_with("struct ") => "an object".into(),
        _ => expected,
    }
}

/// The value if it is short, else its kind.
fn shown(given: Unexpected<'_>) -> String {
    match given {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        Unexpected::Float(value) => value.to_string(),
        Unexpected::Str(value) => format!("the string {:?}", clip(value)),
        Unexpected::Unit | Unexpected::Option => "null".into(),
        Unexpected::Seq => "an array".into(),
        Unexpected::Map | Unexpected::StructVariant => "an object".into(),
        other => other.to_string(),
    }
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The known name that a mistyped one most likely meant: at most two edits away, and fewer than half its letters.
fn closest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    const LONGEST_NAME: usize = 40;
    if name.len() > LONGEST_NAME {
        return None;
    }
    let near = known.iter().map(|&candidate| (edits(name, candidate), candidate)).min()?;
    (near.0 <= 2 && near.0 * 2 < name.len()).then_some(near.1)
}

/// Insertions, deletions and replacements of bytes that turn `a` into `b`.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// A JSON value being read.
struct Node(Value);

impl<'de> Deserializer<'de> for Node {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), _, _) => visitor.visit_u64(value),
                (None, Some(value), _) => visitor.visit_i64(value),
                (None, None, Some(value)) => visitor.visit_f64(value),
                (None, None, None) => Err(Kind::Other("is not a finite number".into()).into()),
            },
            Value::String(text) => visitor.visit_string(text),
            Value::Array(items) => visitor.visit_seq(Elements { items: items.into_iter(), index: 0 }),
            Value::Object(map) => visitor.visit_map(Fields { rest: map.into_iter(), current: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    /// Only an object is a struct: derived visitors would take an array in field order as well.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::Array(_) => Err(serde::de::Error::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct Elements {
    items: std::vec::IntoIter<Value>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Elements {
    type Error = DecodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, DecodeError> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(Node(item)).map(Some).map_err(|e| e.within_element(index))
    }
}

struct Fields {
    rest: <Map<String, Value> as IntoIterator>::IntoIter,
    current: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Fields {
    type Error = DecodeError;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, DecodeError> {
        let Some((name, value)) = self.rest.next() else { return Ok(None) };
        self.current = Some((name.clone(), value));
        seed.deserialize(StringDeserializer::<DecodeError>::new(name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, DecodeError> {
        let (name, value) = self.current.take().unwrap_or_default();
        seed.deserialize(Node(value)).map_err(|e| e.within_field(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use specula_protocol::GenerateRequest;

    fn error(value: Value) -> RequestError {
        decode::<GenerateRequest>(value).expect_err("must be refused")
    }

    #[test]
    fn a_whole_request_decodes_as_serde_json_does() {
        let value = json!({
            "model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": true, "temperature": 1, "seed": 7,
            "top_p": null, "stop": ["a", "b"], "logit_bias": {"5": -1.5},
            "speculation": {"method": "mirror", "window": 4}, "plugins": [{"name": "p", "config": {"x": [1, -2, 0.5]}}]
        });
        let ours: GenerateRequest = decode(value.clone()).expect("valid");
        assert_eq!(ours, serde_json::from_value(value).expect("valid"));
        assert_eq!(ours.temperature, Some(1.0));
    }

    #[test]
    fn an_unknown_field_is_named_with_the_one_meant() {
        let typo = error(json!({"temprature": 1}));
        assert_eq!((typo.field.as_str(), typo.code), ("temprature", "unknown_field"));
        assert!(typo.message.contains("did you mean `temperature`?"), "{}", typo.message);
        let nested = error(json!({"speculation": {"windw": 4}}));
        assert_eq!(nested.field, "speculation.windw");
        assert!(nested.message.contains("`speculation.window`"), "{}", nested.message);
        let far = error(json!({"messages": [{"role": "user", "content": "x", "tool_calls": []}]}));
        assert_eq!(far.field, "messages[0].tool_calls");
        assert!(far.message.contains("known are `role`, `content`"), "{}", far.message);
    }

    #[test]
    fn a_wrong_type_names_path_kind_and_value() {
        for (value, field, words) in [
            (json!({"temperature": "hot"}), "temperature", "`temperature` must be a number; given: the string \"hot\""),
            (json!({"seed": -1}), "seed", "`seed` must be a whole number ≥ 0; given: -1"),
            (json!({"seed": 1.5}), "seed", "given: 1.5"),
            (json!({"messages": [{"role": 3, "content": ""}]}), "messages[0].role", "must be a string; given: 3"),
            (json!({"messages": {"role": "user"}}), "messages", "must be an array; given: an object"),
            (json!({"messages": [["user", "x"]]}), "messages[0]", "must be an object; given: an array"),
            (json!({"speculation": {"window": true}}), "speculation.window", "given: true"),
            (json!({"stop": [1]}), "stop", "`stop`: must be a string or an array of strings"),
            (json!({"logit_bias": {"7": "x"}}), "logit_bias.7", "must be a number"),
            (json!(3), "", "the body must be an object; given: 3"),
        ] {
            let error = error(value);
            assert_eq!(error.field, field);
            assert!(error.message.contains(words), "{}", error.message);
        }
    }

    #[test]
    fn a_missing_field_is_named() {
        let error = error(json!({"messages": [{"role": "user", "content": "a"}, {"role": "user"}]}));
        assert_eq!((error.field.as_str(), error.code), ("messages[1].content", "missing_field"));
    }

    #[test]
    fn a_hostile_name_is_clipped() {
        let error = error(json!({"x".repeat(10_000): 1}));
        assert!(error.field.len() < 100 && error.message.len() < 1000);
    }

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "ab"), 2);
        assert_eq!(edits("same", "same"), 0);
    }
}
