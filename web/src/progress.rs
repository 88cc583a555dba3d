//! Figures of a generation: live from its rounds, afterwards from its report.

use std::collections::HashMap;

use specula_protocol::{LaneSpan, Origin, Report, RoundToken};

use crate::lanes::{self, Row};

/// What the rounds so far add up to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// Tokens committed.
    pub tokens: u64,
    /// Rounds seen.
    pub rounds: u64,
    accepted: u64,
    hits: u64,
    misses: u64,
    by_origin: HashMap<Origin, u64>,
    /// First begin and last end of the target's work, in microseconds.
    span_us: Option<(u64, u64)>,
}

impl Progress {
    /// Adds a round.
    pub fn add(&mut self, tokens: &[RoundToken], accepted: u64, hit: Option<bool>, lanes: &[LaneSpan]) {
        self.tokens += tokens.len() as u64;
        for token in tokens {
            *self.by_origin.entry(token.origin).or_default() += 1;
        }
        self.rounds += 1;
        self.accepted += accepted;
        match hit {
            Some(true) => self.hits += 1,
            Some(false) => self.misses += 1,
            None => {}
        }
        for span in lanes.iter().filter(|span| lanes::row(span.lane) == Row::Target) {
            let (first, last) = self.span_us.unwrap_or((span.start_us, span.end_us));
            self.span_us = Some((first.min(span.start_us), last.max(span.end_us)));
        }
    }

    /// Tokens that came from `origin`.
    pub fn from(&self, origin: Origin) -> u64 {
        self.by_origin.get(&origin).copied().unwrap_or_default()
    }

    /// Tokens per second from the first pass's begin to the last one's end, so that neither prefill, in which the draft
    /// may work already, nor the network counts.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let (first, last) = self.span_us?;
        (last > first).then(|| self.tokens as f64 * 1e6 / (last - first) as f64)
    }

    /// Tokens committed per target pass.
    pub fn acceptance_length(&self) -> Option<f64> {
        (self.rounds > 0).then(|| 1.0 + self.accepted as f64 / self.rounds as f64)
    }

    /// Share of rounds that began with a window rolled out in time.
    pub fn hit_rate(&self) -> Option<f64> {
        hit_rate(self.hits, self.misses)
    }
}

/// Hits among rounds that could have hit.
pub fn hit_rate(hits: u64, misses: u64) -> Option<f64> {
    (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64)
}

/// A figure with `digits` decimals, or a dash where there is none.
pub fn figure(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

/// A share as whole per cent, or a dash where there is none.
pub fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.0} %", share * 100.0))
}

/// Whether the text is the target's own, in words.
pub fn verdict(report: &Report) -> String {
    match report.deviations {
        _ if report.lossless => "exact".to_owned(),
        1 => "1 deviation".to_owned(),
        n => format!("{n} deviations"),
    }
}

/// Why the text ended, in words.
pub fn ending(reason: &str, report: &Report) -> String {
    match (&report.stop, reason) {
        (Some(stop), _) => format!("stopped by {}: {}", stop.plugin, stop.reason),
        (None, "stop") => "end of answer".to_owned(),
        (None, "length") => "token limit".to_owned(),
        (None, "cancelled") => "stopped".to_owned(),
        (None, other) => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use specula_protocol::{Lane, PluginStop};

    use super::*;

    fn span(start_us: u64, end_us: u64) -> LaneSpan {
        LaneSpan { lane: Lane::TargetPrefix, start_us, end_us }
    }

    fn tokens(origins: &[Origin]) -> Vec<RoundToken> {
        origins.iter().map(|&origin| RoundToken { id: 0, text: String::new(), origin }).collect()
    }

    #[test]
    fn nothing_seen_gives_no_figures() {
        let progress = Progress::default();
        assert_eq!(progress.tokens_per_second(), None);
        assert_eq!(figure(progress.acceptance_length(), 2), "–");
        assert_eq!(percent(progress.hit_rate()), "–");
    }

    #[test]
    fn rounds_add_up() {
        let mut progress = Progress::default();
        let prefill = LaneSpan { lane: Lane::DraftSerial, start_us: 10, end_us: 500 };
        progress.add(&tokens(&[Origin::Correction]), 0, None, &[prefill, span(1000, 2000)]);
        let window = [Origin::Mirror, Origin::Mirror, Origin::Mirror, Origin::Bonus];
        progress.add(&tokens(&window), 3, Some(true), &[span(2000, 3000), span(1500, 6000)]);
        progress.add(&tokens(&[Origin::Correction]), 0, Some(false), &[]);
        assert_eq!(progress.tokens_per_second(), Some(1200.0));
        assert_eq!(progress.acceptance_length(), Some(2.0));
        assert_eq!(percent(progress.hit_rate()), "50 %");
        let counts = [Origin::Mirror, Origin::Bonus, Origin::Correction, Origin::Draft].map(|o| progress.from(o));
        assert_eq!(counts, [3, 1, 2, 0]);
    }

    #[test]
    fn endings_name_the_plugin() {
        let mut report = Report { lossless: true, ..Report::default() };
        assert_eq!((verdict(&report).as_str(), ending("length", &report).as_str()), ("exact", "token limit"));
        report.lossless = false;
        report.deviations = 3;
        report.stop = Some(PluginStop { plugin: "balanced-json".into(), reason: "closed".into() });
        assert_eq!(verdict(&report), "3 deviations");
        assert_eq!(ending("stop", &report), "stopped by balanced-json: closed");
    }
}
