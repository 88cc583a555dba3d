//! How requests name a plugin: `name`, `name@VERSION` or `name@sha256:…`.

use crate::load_error::LoadError;
use crate::text::one_line;

const NAME_BYTES: usize = 64;

/// A plugin as a request names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference<'a> {
    /// The name.
    pub(crate) name: &'a str,
    /// Which of its versions; `None`: the current one.
    pub(crate) pin: Option<Pin<'a>>,
}

/// A version of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pin<'a> {
    /// By number.
    Number(u32),
    /// By `sha256:…` of the file.
    Digest(&'a str),
}

impl<'a> Reference<'a> {
    /// Reads a request's text.
    ///
    /// # Errors
    /// [`LoadError::BadName`].
    pub(crate) fn parse(text: &'a str) -> Result<Self, LoadError> {
        let bad = || LoadError::BadName(one_line(text, 2 * NAME_BYTES));
        let (name, pin) = match text.split_once('@') {
            None => (text, None),
            Some((name, digest)) if digest.starts_with("sha256:") => (name, Some(Pin::Digest(digest))),
            Some((name, number)) => (name, Some(Pin::Number(number.parse().map_err(|_| bad())?))),
        };
        if is_name(name) { Ok(Self { name, pin }) } else { Err(bad()) }
    }

    /// Whether a version is meant, if the name is that of `current`.
    pub(crate) fn means(&self, number: u32, digest: &str, current: u32) -> bool {
        match self.pin {
            None => number == current,
            Some(Pin::Number(pinned)) => number == pinned,
            Some(Pin::Digest(pinned)) => digest == pinned,
        }
    }
}

/// Whether a text is fit for a plugin's or an owner's name: 1 to 64 of a-z, 0-9 and -.
pub fn is_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=NAME_BYTES).contains(&text.len()) && text.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_pins_are_read() {
        let pin = |text| Reference::parse(text).map(|r| (r.name, r.pin));
        assert_eq!(pin("min-p"), Ok(("min-p", None)));
        assert_eq!(pin("a@3"), Ok(("a", Some(Pin::Number(3)))));
        assert_eq!(pin("a@sha256:00"), Ok(("a", Some(Pin::Digest("sha256:00")))));
        let long = "a".repeat(65);
        for bad in ["", "@1", "a@", "a@b", "a@-1", "A", "a/b", "..", "a@1@2", "a\u{1b}", "ä", &long] {
            assert!(matches!(pin(bad), Err(LoadError::BadName(_))), "{bad}");
        }
    }
}
