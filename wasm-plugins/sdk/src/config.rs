//! A policy's configuration: one flat JSON object of numbers, strings and booleans. Its own small reader, because a general
//! one would be the larger part of a policy.

use std::ops::RangeInclusive;

use crate::{BAD_CONFIG, Fault};

/// The object, read key by key; keys that nobody asks for are errors.
pub struct Config {
    entries: Vec<(String, Value)>,
    asked: Vec<&'static str>,
}

enum Value {
    Number(f64),
    Text(String),
    Other(&'static str),
}

impl Config {
    /// Reads JSON text.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let mut reader = Reader { bytes: text.as_bytes(), at: 0 };
        let entries = reader.object().ok_or_else(|| {
            let at = reader.at;
            fault(format!("config must be one JSON object of numbers, strings and booleans; unreadable at byte {at}"))
        })?;
        Ok(Self { entries, asked: Vec::new() })
    }

    /// A number within `bounds`, or `default` if the key is absent.
    ///
    /// # Errors
    /// Another type of value, or one out of bounds; names key, bounds and value.
    pub fn number(&mut self, key: &'static str, default: f64, bounds: RangeInclusive<f64>) -> Result<f64, Fault> {
        let (low, high) = (bounds.start(), bounds.end());
        match self.ask(key) {
            None => Ok(default),
            Some(Value::Number(number)) if bounds.contains(number) => Ok(*number),
            Some(Value::Number(number)) => {
                Err(fault(format!("`{key}` must lie between {low} and {high}, but is {number}")))
            }
            Some(other) => Err(fault(format!("`{key}` must be a number, but is {}", other.name()))),
        }
    }

    /// One of `choices`, or the first of them if the key is absent.
    ///
    /// # Errors
    /// Anything else; names key, choices and value.
    pub fn choice(&mut self, key: &'static str, choices: &[&'static str]) -> Result<&'static str, Fault> {
        let allowed = choices.join(", ");
        match self.ask(key) {
            None => choices.first().copied().ok_or_else(|| fault(format!("`{key}` has no choices"))),
            Some(Value::Text(text)) => choices
                .iter()
                .copied()
                .find(|choice| choice == text)
                .ok_or_else(|| fault(format!("`{key}` must be one of {allowed}, but is \"{text}\""))),
            Some(other) => Err(fault(format!("`{key}` must be one of {allowed}, but is {}", other.name()))),
        }
    }

    /// A whole number within `bounds`, or `default` if the key is absent.
    ///
    /// # Errors
    /// As for [`Config::number`]; a fraction, too.
    pub fn whole(&mut self, key: &'static str, default: u32, bounds: RangeInclusive<u32>) -> Result<u32, Fault> {
        let number = self.number(key, default.into(), (*bounds.start()).into()..=(*bounds.end()).into())?;
        if number.fract() == 0.0 {
            Ok(number as u32)
        } else {
            Err(fault(format!("`{key}` must be whole, but is {number}")))
        }
    }

    /// A text, or `default` if the key is absent.
    ///
    /// # Errors
    /// Another type of value.
    pub fn text(&mut self, key: &'static str, default: &str) -> Result<String, Fault> {
        match self.ask(key) {
            None => Ok(default.to_owned()),
            Some(Value::Text(text)) => Ok(text.clone()),
            Some(other) => Err(fault(format!("`{key}` must be a string, but is {}", other.name()))),
        }
    }

    /// Refuses keys that were never asked for.
    pub(crate) fn finish(self) -> Result<(), Fault> {
        let Some((key, _)) = self.entries.iter().find(|(key, _)| !self.asked.iter().any(|asked| asked == key)) else {
            return Ok(());
        };
        let allowed = if self.asked.is_empty() { "none".to_owned() } else { self.asked.join(", ") };
        Err(fault(format!("unknown key `{key}`; allowed: {allowed}")))
    }

    fn ask(&mut self, key: &'static str) -> Option<&Value> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }
}

impl Value {
    fn name(&self) -> &'static str {
        match self {
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::Other(name) => name,
        }
    }
}

fn fault(message: String) -> Fault {
    Fault { code: BAD_CONFIG, message }
}

/// Reads JSON; `None` anywhere means unreadable at `at`.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn object(&mut self) -> Option<Vec<(String, Value)>> {
        let mut entries = Vec::new();
        self.token(b'{')?;
        if self.peek()? == b'}' {
            self.at += 1;
        } else {
            loop {
                let key = self.string()?;
                self.token(b':')?;
                entries.push((key, self.value()?));
                match self.next()? {
                    b',' => {}
                    b'}' => break,
                    _ => return None,
                }
            }
        }
        self.peek().is_none().then_some(entries)
    }

    fn value(&mut self) -> Option<Value> {
        match self.peek()? {
            b'"' => self.string().map(Value::Text),
            b't' => self.word("true", "a boolean"),
            b'f' => self.word("false", "a boolean"),
            b'n' => self.word("null", "null"),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str, name: &'static str) -> Option<Value> {
        self.bytes[self.at..].starts_with(word.as_bytes()).then(|| {
            self.at += word.len();
            Value::Other(name)
        })
    }

    fn number(&mut self) -> Option<Value> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().take_while(|b| b.is_ascii_digit() || b"+-.eE".contains(b)).count();
        let number = std::str::from_utf8(&rest[..length]).ok()?.parse().ok()?;
        self.at += length;
        Some(Value::Number(number))
    }

    fn string(&mut self) -> Option<String> {
        self.token(b'"')?;
        let mut text = Vec::new();
        loop {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => return String::from_utf8(text).ok(),
                b'\\' => {
                    let character = self.escape()?;
                    text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                other => text.push(other),
            }
        }
    }

    /// The character of an escape; half of a surrogate pair is unreadable.
    fn escape(&mut self) -> Option<char> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let digits = self.bytes.get(self.at..self.at + 4)?;
                self.at += 4;
                char::from_u32(u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?)?
            }
            _ => return None,
        })
    }

    fn token(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while self.bytes.get(self.at)?.is_ascii_whitespace() {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(result: Result<impl Sized, Fault>) -> String {
        result.err().map(|fault| fault.message).unwrap_or_default()
    }

    #[test]
    fn reads_what_is_there_and_defaults_what_is_not() {
        let mut config = Config::parse(r#" { "a" : 2.5e-1 , "which":"\u0074wo" } "#).expect("readable");
        assert_eq!(config.number("a", 1.0, 0.0..=1.0).ok(), Some(0.25));
        assert_eq!(config.number("b", 7.0, 0.0..=1.0).ok(), Some(7.0));
        assert_eq!(config.choice("which", &["one", "two"]).ok(), Some("two"));
        assert_eq!(config.choice("other", &["one", "two"]).ok(), Some("one"));
        assert_eq!(config.text("which", "x").ok().as_deref(), Some("two"));
        assert_eq!(config.whole("n", 4, 0..=9).ok(), Some(4));
        assert!(config.finish().is_ok());
    }

    #[test]
    fn errors_name_key_bounds_and_value() {
        let mut config = Config::parse(r#"{"a": 2, "b": "x", "c": true}"#).expect("readable");
        assert_eq!(message(config.number("a", 0.0, 0.0..=1.0)), "`a` must lie between 0 and 1, but is 2");
        assert_eq!(message(config.number("b", 0.0, 0.0..=1.0)), "`b` must be a number, but is a string");
        assert_eq!(message(config.choice("b", &["y"])), "`b` must be one of y, but is \"x\"");
        assert_eq!(message(config.text("a", "")), "`a` must be a string, but is a number");
        assert_eq!(message(config.whole("a", 0, 3..=4)), "`a` must lie between 3 and 4, but is 2");
        assert_eq!(message(config.finish()), "unknown key `c`; allowed: a, b");
    }

    #[test]
    fn unreadable_texts_are_faults() {
        for text in ["", "{", "[]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{\"a\":\"\\ud800\"}", "{} x", "{\"a\":{}}"] {
            assert!(message(Config::parse(text)).starts_with("config must be"), "{text}");
        }
        assert!(Config::parse("{ }").is_ok());
    }
}
