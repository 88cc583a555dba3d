//! How often a target's exits are right: what `specula train exit` measured, as far as calibration asks for it.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use specula_engine::Coverage;
use specula_models::LoadedModel;

use crate::options::EngineArgs;

/// κ whose coverage is taken: what a budget of branches spends on one row.
const TOP: usize = 4;

/// The embedded target's.
static EMBEDDED: &str = include_str!("../../weights/coverage.json");

/// Coverage at one setting of the sampler.
#[derive(Deserialize)]
struct Measured {
    exits: Vec<Exit>,
}

#[derive(Deserialize)]
struct Exit {
    layer: usize,
    adapter: bool,
    noise_aware: bool,
    /// κ and the part of tokens that are among the top κ.
    overall: Vec<(usize, f64)>,
}

/// The table that belongs to the target, if there is one.
pub(crate) fn read(args: &EngineArgs, target: &LoadedModel) -> Result<Option<Coverage>> {
    let beside = |target: &Path| Some(target.join("coverage.json")).filter(|file| file.exists());
    let file = args.coverage.clone().or_else(|| target.source.as_deref().and_then(beside));
    match (file, &target.source) {
        (Some(file), _) => {
            let text = std::fs::read_to_string(&file).with_context(|| format!("--coverage {}", file.display()))?;
            parse(&text).with_context(|| format!("--coverage {}", file.display())).map(Some)
        }
        (None, None) => parse(EMBEDDED).context("the embedded coverage table").map(Some),
        (None, Some(_)) => Ok(None),
    }
}

/// The exits that are run: with their adapters, ranked with the noise; the mean over the samplers.
fn parse(text: &str) -> Result<Coverage> {
    let measured: Vec<Measured> = serde_json::from_str(text)?;
    let mut coverage = Coverage::new();
    let count = measured.len() as f64;
    for exit in measured.into_iter().flat_map(|m| m.exits).filter(|exit| exit.adapter && exit.noise_aware) {
        let Some((_, part)) = exit.overall.iter().find(|(top, _)| *top == TOP) else {
            bail!("layer {}: nothing is said of κ = {TOP}", exit.layer);
        };
        *coverage.entry(exit.layer).or_default() += part / count;
    }
    Ok(coverage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers_are_averaged_and_bare_heads_left_out() {
        let exit = |adapter: bool, part: f64| {
            format!(
                r#"{{"layer": 4, "adapter": {adapter}, "noise_aware": true, "overall": [[1, 0.1], [4, {part}]],
                    "given_rejection": []}}"#
            )
        };
        let text = format!(
            r#"[{{"temperature": 0.0, "exits": [{}, {}]}}, {{"temperature": 1.0, "exits": [{}]}}]"#,
            exit(true, 0.5),
            exit(false, 0.1),
            exit(true, 0.75)
        );
        assert_eq!(parse(&text).expect("a table"), Coverage::from([(4, 0.625)]));
        assert!(parse("{}").is_err());
        assert!(parse(EMBEDDED).is_ok());
    }
}
