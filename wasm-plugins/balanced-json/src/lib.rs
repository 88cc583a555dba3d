//! Ends the text with the first complete JSON value: where the bracket that opened it is closed. Brackets inside strings do
//! not count. State: the brackets that are open, and where in a string the text stands.

use specula_policy_sdk::{Config, Fault, ModelInfo, Stop, Stopping, Token, export_schema, export_stopping};

#[derive(Clone)]
struct BalancedJson {
    /// Brackets that may begin the value.
    opening: &'static [u8],
    /// Closing brackets awaited, the innermost last; empty before the value.
    awaited: Vec<u8>,
    place: Place,
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Outside,
    InString,
    AfterBackslash,
}

impl BalancedJson {
    /// Takes one byte; whether it closes the value. Multi-byte characters contain none of the bytes that matter.
    fn closes(&mut self, byte: u8) -> bool {
        match (self.place, byte) {
            (Place::AfterBackslash, _) => self.place = Place::InString,
            (Place::InString, b'\\') => self.place = Place::AfterBackslash,
            (Place::InString, b'"') => self.place = Place::Outside,
            (Place::InString, _) => {}
            (Place::Outside, b'"') if !self.awaited.is_empty() => self.place = Place::InString,
            (Place::Outside, b'{' | b'[') if !self.awaited.is_empty() || self.opening.contains(&byte) => {
                self.awaited.push(if byte == b'{' { b'}' } else { b']' });
            }
            (Place::Outside, b'}' | b']') if !self.awaited.is_empty() => {
                if self.awaited.pop() == Some(byte) {
                    return self.awaited.is_empty();
                }
                // Not JSON after all: wait for the next value.
                self.awaited.clear();
            }
            (Place::Outside, _) => {}
        }
        false
    }
}

impl Stopping for BalancedJson {
    fn open(_model: &ModelInfo, config: &mut Config) -> Result<Self, Fault> {
        let opening: &[u8] = match config.choice("value", &["any", "object", "array"])? {
            "object" => b"{",
            "array" => b"[",
            _ => b"{[",
        };
        Ok(Self { opening, awaited: Vec::new(), place: Place::Outside })
    }

    fn observe(&mut self, _tokens: &[Token], text: &str, ends: &[u32]) -> Result<Option<Stop>, Fault> {
        let closed = text.bytes().position(|byte| self.closes(byte));
        Ok(closed.map(|at| {
            let before = ends.iter().take_while(|&&end| end as usize <= at).count();
            Stop { keep: before as u32 + 1, reason: "the JSON value is complete".to_owned() }
        }))
    }
}

export_stopping!(BalancedJson);
export_schema!(
    r#"{"type": "object", "additionalProperties": false, "properties": {
        "value": {"enum": ["any", "object", "array"], "default": "any"}}}"#
);
