//! The operator's file of keys, TOML. Keys stand in it as hashes, so that who reads it can use none.
//!
//! ```toml
//! [[keys]]
//! owner = "ann"                        # whose plugins names mean first; 1 to 64 of a-z, 0-9 and -
//! sha256 = "9f86d081884c7d659a2f…"     # printf %s KEY | sha256sum
//! exact_only = true                    # default false: no acceptance policy may change the text
//! plugin_limits = "interpreter"        # default "standard"
//! ```

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use specula_policies::{Class, is_name};
use specula_server::Key;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    keys: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    owner: String,
    sha256: String,
    #[serde(default)]
    exact_only: bool,
    #[serde(default)]
    plugin_limits: Class,
}

/// Reads the file.
pub(crate) fn read(path: &Path) -> Result<Vec<Key>> {
    let context = || format!("--keys {}", path.display());
    let text = std::fs::read_to_string(path).with_context(context)?;
    parse(&text).with_context(context)
}

fn parse(text: &str) -> Result<Vec<Key>> {
    let file: KeysFile = toml::from_str(text)?;
    if file.keys.is_empty() {
        bail!("`keys` must hold at least one");
    }
    file.keys.into_iter().enumerate().map(|(i, entry)| key(entry).with_context(|| format!("`keys[{i}]`"))).collect()
}

fn key(entry: Entry) -> Result<Key> {
    let Entry { owner, sha256, exact_only, plugin_limits } = entry;
    if !is_name(&owner) {
        bail!("`owner` must be 1 to 64 of a-z, 0-9 and -; got `{owner}`");
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = sha256.as_bytes().chunks(2).map(byte).collect();
    let hash = bytes.and_then(|bytes| bytes.try_into().ok());
    let hash = hash.context("`sha256` must be 64 hexadecimal digits: printf %s KEY | sha256sum")?;
    Ok(Key { owner, sha256: hash, exact_only, class: plugin_limits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_what_is_wrong_is_named() {
        let hash = "ab".repeat(32);
        let good = format!("[[keys]]\nowner = \"ann\"\nsha256 = \"{hash}\"\nplugin_limits = \"interpreter\"\n");
        let keys = parse(&good).expect("readable");
        assert_eq!((keys[0].sha256, keys[0].exact_only, keys[0].class), ([0xab; 32], false, Class::Interpreter));
        for (text, words) in [
            ("keys = []".to_owned(), "at least one"),
            (good.replace("ann", "Ann"), "got `Ann`"),
            (good.replace(&hash, "abcd"), "64 hexadecimal digits"),
            (good.replace(&hash, &"é".repeat(32)), "64 hexadecimal digits"),
            (good.replace("owner", "ownr"), "ownr"),
            (good.replace("interpreter", "huge"), "huge"),
        ] {
            let error = format!("{:#}", parse(&text).expect_err(words));
            assert!(error.contains(words), "{error}");
        }
    }
}
