//! A finished generation, however it came: what all ways of asking must agree on.

use serde_json::Value;
use specula_protocol::{Report, Usage};

/// What a client holds in the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The text, put together from its pieces if it came in pieces.
    pub text: String,
    /// `stop`, `length`, `cancelled`.
    pub finish_reason: String,
    /// Token counts, if they were told.
    pub usage: Option<Usage>,
    /// What speculation did.
    pub report: Report,
}

impl Answer {
    /// Tokens generated.
    pub fn tokens(&self) -> u64 {
        self.usage.expect("the answer tells its usage").completion_tokens
    }
}

/// The report out of JSON.
pub(crate) fn report(json: &Value) -> Report {
    serde_json::from_value(json.clone()).unwrap_or_else(|error| panic!("{error} in the report {json}"))
}

/// Token counts out of JSON; none for an absent field or `null`.
pub(crate) fn usage(json: &Value) -> Option<Usage> {
    serde_json::from_value(json.clone()).unwrap_or_else(|error| panic!("{error} in the usage {json}"))
}
