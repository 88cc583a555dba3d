//! What the store keeps of a name: whose it is, who may use it, and its versions.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Class;
use crate::facts::Facts;

/// Who may name a plugin in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Its owner.
    Private,
    /// Everyone.
    Shared,
}

impl Visibility {
    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Shared => "shared",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Private, Self::Shared].into_iter().find(|v| v.as_str() == name)
    }
}

/// An owner's name for a plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) owner: String,
    pub(crate) name: String,
    pub(crate) visibility: Visibility,
    /// Number of the next version; none is given twice.
    pub(crate) next: u32,
    /// Oldest first, never empty; the last is the one that the bare name means.
    pub(crate) versions: Vec<Version>,
}

impl Record {
    /// The one that the bare name means.
    pub(crate) fn current(&self) -> Option<&Version> {
        self.versions.last()
    }
}

/// An upload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Version {
    /// Counted from 1 within the name.
    pub(crate) number: u32,
    /// `sha256:…` of the file.
    pub(crate) digest: String,
    /// Length of the file.
    pub(crate) bytes: u64,
    /// When it came, seconds since the epoch.
    pub(crate) uploaded_s: u64,
    /// Limits that it runs under.
    pub(crate) class: Class,
    /// Configuration that it was examined with.
    pub(crate) config: Value,
    /// What the examination found.
    pub(crate) facts: Facts,
}
