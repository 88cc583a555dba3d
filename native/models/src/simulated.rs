//! A device slower than the one that it stands on: the real work, then a wait. Stands in for accelerators that are not
//! there.

use std::str::FromStr;
use std::time::{Duration, Instant};

use specula_decoding::model::OnExit;
use specula_decoding::{LanguageModel, Logits, ModelError, NewNode, TokenId};

/// What a step takes beside its real work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// Mean.
    pub step: Duration,
    /// Most that a step deviates from the mean, either way.
    pub jitter: Duration,
}

impl FromStr for Latency {
    type Err = String;

    /// Reads milliseconds, `0.5` or `0.5±0.1` (or `0.5+-0.1`).
    fn from_str(text: &str) -> Result<Self, String> {
        let (step, jitter) = text.split_once('±').or_else(|| text.split_once("+-")).unwrap_or((text, "0"));
        let milliseconds = |text: &str| match text.parse::<f64>() {
            Ok(ms) if (0.0..=60_000.0).contains(&ms) => Ok(Duration::from_secs_f64(ms / 1e3)),
            _ => Err(format!("`{text}` is not a number of milliseconds, 0 to 60000")),
        };
        let latency = Self { step: milliseconds(step)?, jitter: milliseconds(jitter)? };
        if latency.jitter > latency.step {
            return Err(format!("a jitter of {jitter} ms is larger than the {step} ms that it is around"));
        }
        Ok(latency)
    }
}

/// A model on such a device.
pub struct Simulated {
    model: Box<dyn LanguageModel>,
    latency: Latency,
    steps: u64,
}

impl Simulated {
    /// Slows a model down.
    pub fn new(model: Box<dyn LanguageModel>, latency: Latency) -> Self {
        Self { model, latency, steps: 0 }
    }

    /// Waits, awake: sleeping threads wake too late for what is measured here.
    fn wait(&mut self) {
        self.steps += 1;
        let until = Instant::now() + delay(self.latency, self.steps);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    }
}

/// What step `n` takes: the same in every run.
fn delay(latency: Latency, n: u64) -> Duration {
    // Weyl's sequence spreads evenly.
    let spread = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) as f64 / u64::MAX as f64;
    (latency.step + latency.jitter.mul_f64(2.0 * spread)).saturating_sub(latency.jitter)
}

impl LanguageModel for Simulated {
    fn vocab_size(&self) -> usize {
        self.model.vocab_size()
    }

    fn context_length(&self) -> usize {
        self.model.context_length()
    }

    fn linear(&self) -> usize {
        self.model.linear()
    }

    fn slots(&self) -> usize {
        self.model.slots()
    }

    fn forward(&mut self, nodes: &[NewNode], exit: Option<(usize, OnExit<'_>)>) -> Result<Logits, ModelError> {
        let rows = self.model.forward(nodes, exit)?;
        self.wait();
        Ok(rows)
    }

    fn streams(&self) -> usize {
        self.model.streams()
    }

    fn look_ahead(&mut self, nodes: &[NewNode], from: &[usize], count: usize) -> Result<Logits, ModelError> {
        let rows = self.model.look_ahead(nodes, from, count)?;
        self.wait();
        Ok(rows)
    }

    fn prefill(&mut self, tokens: &[TokenId]) -> Result<(), ModelError> {
        self.model.prefill(tokens)?;
        self.wait();
        Ok(())
    }

    fn keep(&mut self, from: usize, path: &[usize]) -> Result<(), ModelError> {
        self.model.keep(from, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_read_and_refused_with_reasons() {
        let ms = |ms: f64| Duration::from_secs_f64(ms / 1e3);
        assert_eq!("0.5".parse(), Ok(Latency { step: ms(0.5), jitter: ms(0.0) }));
        assert_eq!("0.5±0.25".parse(), Ok(Latency { step: ms(0.5), jitter: ms(0.25) }));
        assert_eq!("2+-1".parse(), Ok(Latency { step: ms(2.0), jitter: ms(1.0) }));
        for bad in ["", "x", "-1", "1±2", "1±", "NaN", "60001"] {
            assert!(bad.parse::<Latency>().is_err(), "{bad}");
        }
    }

    #[test]
    fn delays_stay_within_the_jitter_and_repeat() {
        let latency: Latency = "1±0.4".parse().expect("valid");
        let delays: Vec<Duration> = (0..1000).map(|n| delay(latency, n)).collect();
        assert_eq!(delays, (0..1000).map(|n| delay(latency, n)).collect::<Vec<_>>());
        let (least, most) = (delays.iter().min(), delays.iter().max());
        assert!(least.is_some_and(|d| (600..650).contains(&d.as_micros())), "{least:?}");
        assert!(most.is_some_and(|d| (1350..=1400).contains(&d.as_micros())), "{most:?}");
    }
}
