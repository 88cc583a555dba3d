//! What reads as a model's id.

use std::fmt;

/// `org/name`, or `org/name:file.gguf` for one file of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id<'a> {
    /// `org/name`.
    pub(crate) repository: &'a str,
    /// Path of a file in it.
    pub(crate) file: Option<&'a str>,
}

impl<'a> Id<'a> {
    /// `None` for what can only be a path.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (repository, file) = match text.split_once(':') {
            Some((repository, file)) => (repository, Some(file)),
            None => (text, None),
        };
        let (org, name) = repository.split_once('/')?;
        let named = |part: &str| !part.starts_with('.') && is_name(part);
        let is_file = |name: &str| [".gguf", ".safetensors", ".json"].iter().any(|end| name.ends_with(end));
        let file_is_inside = file.is_none_or(|file| file.ends_with(".gguf") && file.split('/').all(named));
        (named(org) && named(name) && !is_file(name) && file_is_inside).then_some(Self { repository, file })
    }
}

fn is_name(part: &str) -> bool {
    !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.file {
            Some(file) => write!(f, "{}:{file}", self.repository),
            None => f.write_str(self.repository),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_paths() {
        let id = |repository, file| Some(Id { repository, file });
        for (text, want) in [
            ("Qwen/Qwen3-0.6B", id("Qwen/Qwen3-0.6B", None)),
            ("Qwen/Qwen3-8B-GGUF:Qwen3-8B-Q4_K_M.gguf", id("Qwen/Qwen3-8B-GGUF", Some("Qwen3-8B-Q4_K_M.gguf"))),
            ("a/b:q4/model.gguf", id("a/b", Some("q4/model.gguf"))),
            ("a/b:../model.gguf", None),
            ("a/b:/etc/model.gguf", None),
            ("a/b:model.bin", None),
            ("a/b:", None),
            ("models/draft.gguf", None),
            ("draft", None),
            ("./draft/model", None),
            ("../draft", None),
            ("/models/draft", None),
            ("a/b/c", None),
            ("a b/c", None),
            ("a/", None),
        ] {
            assert_eq!(Id::parse(text), want, "{text}");
        }
    }
}
