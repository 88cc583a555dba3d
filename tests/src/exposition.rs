//! Prometheus' text format, read back.

use std::collections::BTreeMap;

/// The samples of one look at `/metrics`.
#[derive(Debug, Clone)]
pub struct Exposition(BTreeMap<String, f64>);

impl Exposition {
    /// Reads it; every line must be a comment or a sample.
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
        });
        Self(samples.collect())
    }

    /// A sample by its name with labels, as it is written.
    pub fn value(&self, sample: &str) -> f64 {
        *self.0.get(sample).unwrap_or_else(|| panic!("no sample `{sample}`"))
    }

    /// A sample of a family by method.
    pub fn of_method(&self, family: &str, method: &str) -> f64 {
        self.value(&format!("{family}{{method=\"{method}\"}}"))
    }

    /// Sum of a family's samples that bear a label, as it is written.
    pub fn sum(&self, family: &str, label: &str) -> f64 {
        let samples =
            self.0.iter().filter(|(name, _)| name.starts_with(&format!("{family}{{")) && name.contains(label));
        samples.map(|(_, value)| value).sum()
    }

    /// Generations that run.
    pub fn running(&self) -> f64 {
        self.value("specula_generations_running")
    }

    /// Generations that wait.
    pub fn queued(&self) -> f64 {
        self.value("specula_generations_queued")
    }

    /// Generations ended in a way: `finished`, `cancelled`, `failed`.
    pub fn ended(&self, how: &str) -> f64 {
        self.value(&format!("specula_generations_ended_total{{how=\"{how}\"}}"))
    }
}
