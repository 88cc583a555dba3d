//! Methods with settings of their own, as `bench` and `exactness` take them: `mirror:window=8:branch_budget=16`.

use anyhow::{Context, Result, bail};
use specula_engine::{Method, SettingsSpec};

/// A method with its settings, under the name it was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) settings: SettingsSpec,
}

impl Contender {
    /// Reads `mirror:window=8:roots=exit`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut parts = text.split(':');
        let method = parts.next().unwrap_or_default();
        if Method::from_name(method).is_none() {
            let known = Method::ALL.map(Method::name).join(", ");
            bail!("--methods: no method `{method}`; known: {known}");
        }
        let mut settings = SettingsSpec { method: Some(method.to_owned()), ..SettingsSpec::default() };
        for part in parts {
            let (key, value) = part.split_once('=').with_context(|| format!("--methods: `{part}` is not KEY=VALUE"))?;
            let number =
                || value.parse::<u64>().with_context(|| format!("--methods: `{key}` needs a number, got `{value}`"));
            match key {
                "window" => settings.window = Some(number()?),
                "exit_layer" => settings.exit_layer = Some(number()?),
                "exit_top" => settings.exit_top = Some(number()?),
                "branch_budget" => settings.branch_budget = Some(number()?),
                "roots" => settings.roots = Some(value.to_owned()),
                "allocation" => settings.allocation = Some(value.to_owned()),
                "streams" => settings.streams = Some(number()?),
                "look_ahead" => settings.look_ahead = Some(value.to_owned()),
                _ => bail!(
                    "--methods: no setting `{key}`; known: window, exit_layer, exit_top, branch_budget, roots, \
                     allocation, streams, look_ahead"
                ),
            }
        }
        Ok(Self { name: text.to_owned(), settings })
    }

    /// Its method.
    pub(crate) fn method(&self) -> &str {
        self.settings.method.as_deref().unwrap_or_default()
    }

    /// Whether a draft model may take part: only then does its device matter.
    pub(crate) fn uses_draft(&self) -> bool {
        !["none", "lookup", "recycling"].contains(&self.method())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_carry_their_settings() {
        let c = Contender::parse("mirror:window=8:roots=exit").expect("valid");
        assert_eq!((c.settings.window, c.settings.roots.as_deref()), (Some(8), Some("exit")));
        for bad in ["merlin", "sps:window", "sps:window=x", "sps:width=3"] {
            assert!(Contender::parse(bad).is_err(), "{bad}");
        }
    }
}
