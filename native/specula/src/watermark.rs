//! `specula watermark`: looks for the green tokens that the policy `watermark` favours.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use specula_decoding::TokenId;

use crate::options::EngineArgs;
use crate::startup;

// The plugin's own choice of green tokens: one file, so that they cannot differ.
#[path = "../../../wasm-plugins/watermark/src/green.rs"]
mod green;

/// Whom to ask for what.
#[derive(Args)]
pub(crate) struct WatermarkArgs {
    /// The key that the text was made with.
    #[arg(long)]
    key: u32,
    /// Share of green tokens that it was made with: 0.5, 0.25 or 0.125.
    #[arg(long, default_value = "0.5", value_parser = halvings)]
    gamma: u32,
    /// The text; `-` reads standard input.
    file: PathBuf,
    #[command(flatten)]
    engine: EngineArgs,
}

fn halvings(gamma: &str) -> Result<u32, String> {
    match gamma {
        "0.5" => Ok(1),
        "0.25" => Ok(2),
        "0.125" => Ok(3),
        other => Err(format!("`{other}` is none of 0.5, 0.25, 0.125")),
    }
}

/// Prints what was found.
pub(crate) fn run(args: &WatermarkArgs) -> Result<()> {
    let text = read(&args.file)?;
    let (target, _) = startup::pair(&EngineArgs { draft: None, draft_streams: None, ..args.engine.clone() })?;
    let tokens = target.tokenizer.encode_prompt(&text).map_err(anyhow::Error::msg)?;
    let Some(found) = Found::count(&tokens, args.key, args.gamma) else {
        bail!("the text has {} tokens; at least 2 different pairs of neighbours are needed", tokens.len());
    };
    let Found { pairs, green, .. } = found;
    println!("{pairs} pairs of neighbours, {green} green, {:.1} expected", found.share * pairs as f64);
    println!("z = {:.2}, probability that chance did it: {:.2e}", found.z(), found.p());
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    let context = || format!("read {}", path.display());
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).with_context(context)?;
        return Ok(text);
    }
    std::fs::read_to_string(path).with_context(context)
}

/// Green tokens of a text.
struct Found {
    /// Pairs of neighbours, each counted once however often it comes: repetitions are no evidence.
    pairs: usize,
    /// Those whose second token is green after the first.
    green: usize,
    /// Share that chance gives, γ.
    share: f64,
}

impl Found {
    fn count(tokens: &[TokenId], key: u32, halvings: u32) -> Option<Self> {
        let mut pairs: Vec<(TokenId, TokenId)> = tokens.windows(2).map(|two| (two[0], two[1])).collect();
        pairs.sort_unstable();
        pairs.dedup();
        let is_green = |(previous, token): &&(TokenId, TokenId)| {
            let word = green::words(key, *previous, halvings, token / 32 + 1).last().unwrap_or(0);
            word >> (token % 32) & 1 == 1
        };
        let green = pairs.iter().filter(is_green).count();
        (pairs.len() > 1).then(|| Self { pairs: pairs.len(), green, share: 0.5_f64.powi(halvings as i32) })
    }

    /// Standard deviations above what chance gives (Kirchenbauer et al., arXiv:2301.10226, Eq. 2).
    fn z(&self) -> f64 {
        let pairs = self.pairs as f64;
        (self.green as f64 - self.share * pairs) / (pairs * self.share * (1.0 - self.share)).sqrt()
    }

    /// Probability that chance gives a z as large: of the normal distribution.
    fn p(&self) -> f64 {
        0.5 * libm::erfc(self.z() / 2.0_f64.sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens in which every second one is green after its neighbour.
    fn marked(key: u32) -> Vec<TokenId> {
        let mut tokens: Vec<TokenId> = vec![1];
        for i in 0..400_u32 {
            let previous = *tokens.last().expect("there is one");
            let mask: Vec<u32> = green::words(key, previous, 1, 64).collect();
            let wanted = (0..2048).map(|j| (i.wrapping_mul(2_654_435_761).wrapping_add(j * 37)) % 2048);
            let green = |token: &u32| i % 2 == 0 || mask[*token as usize / 32] >> (token % 32) & 1 == 1;
            tokens.extend(wanted.into_iter().find(green));
        }
        tokens
    }

    #[test]
    fn the_key_finds_what_it_marked_and_another_does_not() {
        let found = |key| Found::count(&marked(7), key, 1).expect("enough pairs");
        assert!(found(7).z() > 6.0 && found(7).p() < 1e-9, "{}", found(7).z());
        assert!((1000..1040).map(found).all(|other| other.z().abs() < 4.0));
        assert!(Found::count(&[1], 7, 1).is_none());
    }

    #[test]
    fn shares_are_what_they_say() {
        for halvings in 1..=3 {
            let bits: u32 = (0..500).flat_map(|t| green::words(3, t, halvings, 8)).map(u32::count_ones).sum();
            let share = f64::from(bits) / (500.0 * 8.0 * 32.0);
            assert!((share - 0.5_f64.powi(halvings as i32)).abs() < 0.005, "{halvings}: {share}");
        }
    }
}
