//! Which files of a repository a model is made of.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::id::Id;

const INDEX: &str = "model.safetensors.index.json";
/// Files that a folder must have beside its weights.
const NEEDED: [&str; 2] = ["config.json", "tokenizer.json"];
/// Files that it may have.
const TAKEN: [&str; 6] = [
    "generation_config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "exit.safetensors",
    "streams.safetensors",
    "coverage.json",
];

#[derive(Debug, PartialEq)]
pub(crate) enum Choice<'a> {
    /// One GGUF file.
    File(&'a str),
    /// A folder of safetensors.
    Folder {
        /// Names the shards, if there are several; it is one more of the files.
        index: Option<&'static str>,
        files: Vec<&'a str>,
    },
}

impl<'a> Choice<'a> {
    /// Chooses among all files of a repository, by their paths.
    pub(crate) fn of(id: &Id<'a>, names: &[&'a str]) -> Result<Self> {
        let ends = |end: &str| names.iter().copied().filter(|name| name.ends_with(end)).collect::<Vec<_>>();
        let ggufs = ends(".gguf");
        if let Some(file) = id.file {
            return match names.contains(&file) {
                true => Ok(Self::File(file)),
                false => bail!("the repository has no `{file}`; its GGUF files: {}", listed(&ggufs)),
            };
        }
        let bare: Vec<&str> = ends(".safetensors").into_iter().filter(|name| !name.contains('/')).collect();
        if bare.is_empty() {
            return match (&ggufs[..], &ends(".bin")[..]) {
                ([only], _) => Ok(Self::File(only)),
                ([_, ..], _) => {
                    bail!(
                        "the repository has several GGUF files; name one, as in `{id}:{}`: {}",
                        ggufs[0],
                        listed(&ggufs)
                    )
                }
                ([], [pickled, ..]) => bail!(
                    "the repository has neither safetensors nor GGUF, but `{pickled}`: save it as safetensors with Hugging \
                     Face's transformers, and name that folder"
                ),
                ([], []) => bail!("the repository has neither safetensors nor GGUF"),
            };
        }
        if let Some(missing) = NEEDED.iter().find(|name| !names.contains(name)) {
            bail!(
                "the repository has no `{missing}`; save the model with Hugging Face's transformers, and name that folder"
            );
        }
        let index = names.contains(&INDEX).then_some(INDEX);
        let weights = match index {
            Some(_) => Vec::new(),
            // Others beside it are the same weights in another form.
            None if bare.contains(&"model.safetensors") => vec!["model.safetensors"],
            None => bare.into_iter().filter(|name| !TAKEN.contains(name)).collect(),
        };
        let beside = NEEDED.into_iter().chain(TAKEN).filter(|name| names.contains(name));
        Ok(Self::Folder { index, files: beside.chain(weights).collect() })
    }
}

/// The shards that an index names.
pub(crate) fn shards(index: &[u8], names: &[&str]) -> Result<BTreeSet<String>> {
    let index: Value = serde_json::from_slice(index).context(INDEX)?;
    let map = index["weight_map"].as_object().with_context(|| format!("{INDEX}: `weight_map` is missing"))?;
    let shard = |file: &Value| {
        let file = file.as_str().unwrap_or_default();
        // None but the repository's own can be fetched.
        match names.contains(&file) && !file.contains('/') {
            true => Ok(file.to_owned()),
            false => bail!("{INDEX} names `{file}`, which the repository does not have"),
        }
    };
    map.values().map(shard).collect()
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen<'a>(id: &'a str, names: &[&'a str]) -> Result<Choice<'a>> {
        Choice::of(&Id::parse(id).expect("an id"), names)
    }

    #[test]
    fn a_folder_is_its_weights_once_and_what_belongs_to_them() {
        let names =
            ["README.md", "config.json", "consolidated.safetensors", "model.safetensors", "tokenizer.json", "x/y.gguf"];
        let files = vec!["config.json", "tokenizer.json", "model.safetensors"];
        assert_eq!(chosen("a/b", &names).expect("a folder"), Choice::Folder { index: None, files });
        let names = ["config.json", INDEX, "model-1-of-2.safetensors", "tokenizer.json", "exit.safetensors"];
        let files = vec!["config.json", "tokenizer.json", "exit.safetensors"];
        assert_eq!(chosen("a/b", &names).expect("a folder"), Choice::Folder { index: Some(INDEX), files });
    }

    #[test]
    fn one_gguf_is_taken_and_several_are_listed() {
        assert_eq!(chosen("a/b", &["q8.gguf", "README.md"]).expect("one"), Choice::File("q8.gguf"));
        let names = ["q4.gguf", "q8.gguf"];
        assert_eq!(chosen("a/b:q8.gguf", &names).expect("named"), Choice::File("q8.gguf"));
        for id in ["a/b", "a/b:q5.gguf"] {
            let refused = chosen(id, &names).expect_err("which one?").to_string();
            assert!(refused.contains("q4.gguf, q8.gguf"), "{refused}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_before_it_is_fetched() {
        for (names, part) in [
            (&["pytorch_model.bin", "config.json"][..], "`pytorch_model.bin`"),
            (&["README.md"], "neither safetensors nor GGUF"),
            (&["model.safetensors", "config.json"], "no `tokenizer.json`"),
        ] {
            let refused = chosen("a/b", names).expect_err("no model").to_string();
            assert!(refused.contains(part), "{refused}");
        }
    }

    #[test]
    fn an_index_names_shards_of_its_repository() {
        let names = ["a.safetensors", "b.safetensors", "x/c.safetensors"];
        let index = |file: &str| format!(r#"{{"weight_map": {{"p": "a.safetensors", "q": "{file}"}}}}"#);
        let named = shards(index("b.safetensors").as_bytes(), &names).expect("shards");
        assert_eq!(named.into_iter().collect::<Vec<_>>(), ["a.safetensors", "b.safetensors"]);
        for bad in ["c.safetensors", "../a.safetensors", "x/c.safetensors"] {
            assert!(shards(index(bad).as_bytes(), &names).is_err(), "{bad}");
        }
        assert!(shards(b"{}", &names).is_err());
    }
}
