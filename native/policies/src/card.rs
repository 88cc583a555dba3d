//! A plugin as lists show it.

use crate::facts::Facts;
use crate::store::record::{Record, Version, Visibility};
use crate::{Class, Kind, PluginInfo};

/// What is known of a plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    /// Name for requests.
    pub name: String,
    /// What the version shown can be opened as.
    pub kinds: Vec<Kind>,
    /// `sha256:…` of the version shown, the current one unless another was asked for.
    pub digest: String,
    /// Size of its file.
    pub bytes: u64,
    /// Its own words on what it is.
    pub description: Option<String>,
    /// Of uploads.
    pub upload: Option<UploadCard>,
}

/// What is known of an uploaded plugin besides.
#[derive(Debug, Clone, PartialEq)]
pub struct UploadCard {
    /// Whose it is.
    pub owner: String,
    /// Who may use it.
    pub visibility: Visibility,
    /// All versions, oldest first.
    pub versions: Vec<VersionCard>,
    /// Limits that the version shown runs under.
    pub class: Class,
    /// What the examination of the version shown found.
    pub facts: Facts,
}

/// A version, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionCard {
    /// Counted from 1.
    pub number: u32,
    /// `sha256:…`.
    pub digest: String,
    /// Seconds since the epoch.
    pub uploaded_s: u64,
}

impl Card {
    pub(crate) fn of_plugin(info: &PluginInfo) -> Self {
        Self {
            name: info.name.clone(),
            kinds: info.kinds.clone(),
            digest: info.digest.clone(),
            bytes: info.bytes as u64,
            description: info.description.clone(),
            upload: None,
        }
    }

    /// Shows a version of a name; `None` if it has none.
    pub(crate) fn of_version(record: &Record, version: &Version) -> Self {
        let facts = &version.facts;
        let short = |v: &Version| VersionCard { number: v.number, digest: v.digest.clone(), uploaded_s: v.uploaded_s };
        Self {
            name: record.name.clone(),
            kinds: facts.kinds.clone(),
            digest: version.digest.clone(),
            bytes: version.bytes,
            description: facts.description.clone(),
            upload: Some(UploadCard {
                owner: record.owner.clone(),
                visibility: record.visibility,
                versions: record.versions.iter().map(short).collect(),
                class: version.class,
                facts: facts.clone(),
            }),
        }
    }
}
