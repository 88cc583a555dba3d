//! Counters in Prometheus' text format: the engine's sums by method and by plugin, and HTTP answers by route and status.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use specula_engine::{Method, Metrics, Totals};
use warp::http::StatusCode;

/// The text format's content type.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers by route and status; routes are known labels, so that the map stays small.
#[derive(Debug, Default)]
pub(crate) struct RequestCounts(Mutex<BTreeMap<(&'static str, u16), u64>>);

impl RequestCounts {
    pub(crate) fn count(&self, route: &'static str, status: StatusCode) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((route, status.as_u16())).or_default() += 1;
    }
}

/// All metrics.
pub(crate) fn text(metrics: &Metrics, requests: &RequestCounts) -> String {
    let mut page = Exposition::default();
    generations(&mut page, metrics);
    rounds(&mut page, &metrics.methods);
    plugins(&mut page, metrics);
    page.family("specula_http_requests_total", "counter", "HTTP answers by route and status.");
    for ((route, status), count) in requests.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        page.sample(&[("route", route), ("status", &status.to_string())], *count as f64);
    }
    page.text
}

fn generations(page: &mut Exposition, metrics: &Metrics) {
    page.family("specula_generations_queued", "gauge", "Generations waiting for a place.");
    page.sample(&[], metrics.queued as f64);
    page.family("specula_generations_running", "gauge", "Generations running.");
    page.sample(&[], metrics.running as f64);
    page.family("specula_generations_admitted_total", "counter", "Generations admitted.");
    page.sample(&[], metrics.admitted as f64);
    page.family("specula_generations_refused_total", "counter", "Generations refused because the queue was full.");
    page.sample(&[], metrics.refused as f64);
    page.family("specula_generations_ended_total", "counter", "Generations ended, by how.");
    for (how, count) in [("finished", metrics.finished), ("cancelled", metrics.cancelled), ("failed", metrics.failed)] {
        page.sample(&[("how", how)], count as f64);
    }
    page.family("specula_prompt_tokens_total", "counter", "Tokens of prompts prefilled.");
    page.sample(&[], metrics.prompt_tokens as f64);
}

/// A sum over rounds: name, help, value.
type Sum = (&'static str, &'static str, fn(&Totals) -> u64);

const COUNTS: [Sum; 14] = [
    ("specula_rounds_total", "Target passes after prefill.", |t| t.rounds),
    ("specula_committed_tokens_total", "Tokens committed.", |t| t.committed),
    ("specula_draft_steps_total", "Passes of the draft model, without prompts.", |t| t.draft_steps),
    ("specula_drafted_tokens_total", "Draft tokens verified.", |t| t.drafted),
    ("specula_accepted_tokens_total", "Draft tokens accepted.", |t| t.accepted),
    ("specula_deviations_total", "Accepted tokens that differed from the target's own draw.", |t| t.deviations),
    ("specula_hits_total", "Rounds that began with a window rolled out in time.", |t| t.hits),
    ("specula_misses_total", "Rounds whose outcome had not been rolled out.", |t| t.misses),
    ("specula_hits_from_draft_total", "Hits whose branch the draft's own rows had guessed.", |t| t.hits_from_draft),
    ("specula_hits_from_exit_total", "Hits whose branch the early exit had guessed.", |t| t.hits_from_exit),
    ("specula_exits_total", "Rounds with an exit message; the denominator of coverage.", |t| t.exits),
    ("specula_exits_covered_total", "Exit messages that held the next token of their row.", |t| t.covered),
    ("specula_branches_expanded_total", "Branches begun.", |t| t.branches_expanded),
    ("specula_branches_used_total", "Branches that became the next window.", |t| t.branches_used),
];

const TIMES: [Sum; 8] = [
    ("specula_exposed_draft_seconds_total", "Target waiting for draft tokens.", |t| t.exposed_draft_us),
    ("specula_hidden_draft_seconds_total", "Draft working while the target worked.", |t| t.hidden_draft_us),
    ("specula_bubble_seconds_total", "Draft idle while the target worked.", |t| t.bubble_us),
    ("specula_rendezvous_seconds_total", "Handing messages over, without the draft's work.", |t| t.rendezvous_us),
    ("specula_target_prefix_seconds_total", "Target, layers up to the exit.", |t| t.target_prefix_us),
    ("specula_exit_seconds_total", "Early exit's head and ranking.", |t| t.exit_us),
    ("specula_target_suffix_seconds_total", "Target, layers after the exit and head.", |t| t.target_suffix_us),
    ("specula_accept_seconds_total", "Rules, draws, acceptance, commit.", |t| t.accept_us),
];

fn rounds(page: &mut Exposition, methods: &[(Method, Totals)]) {
    for (name, help, value) in COUNTS {
        page.family(name, "counter", help);
        for (method, totals) in methods {
            page.sample(&[("method", method.name())], value(totals) as f64);
        }
    }
    for (name, help, value) in TIMES {
        page.family(name, "counter", help);
        for (method, totals) in methods {
            page.sample(&[("method", method.name())], seconds(value(totals)));
        }
    }
    let offered = |t: &Totals| t.by_position.iter().map(|o| o.rounds).collect();
    page.family("specula_position_offered_total", "counter", "Rounds whose window had this position.");
    by_index(page, "position", methods, offered);
    let accepted = |t: &Totals| t.by_position.iter().map(|o| o.accepted).collect();
    page.family("specula_position_accepted_total", "counter", "Rounds that accepted this position.");
    by_index(page, "position", methods, accepted);
    let depths = |t: &Totals| t.hits_by_depth.clone();
    page.family("specula_hits_by_depth_total", "counter", "Hits by the length of their window.");
    by_index(page, "depth", methods, depths);
    let depths = |t: &Totals| t.hits_from_exit_by_depth.clone();
    let help = "Of them, hits whose branch the early exit had guessed.";
    page.family("specula_hits_from_exit_by_depth_total", "counter", help);
    by_index(page, "depth", methods, depths);
}

fn by_index(page: &mut Exposition, index: &str, methods: &[(Method, Totals)], values: impl Fn(&Totals) -> Vec<u64>) {
    for (method, totals) in methods {
        for (i, value) in values(totals).into_iter().enumerate() {
            page.sample(&[("method", method.name()), (index, &i.to_string())], value as f64);
        }
    }
}

/// A sum over a plugin's calls: name, help, value.
type PluginSum = (&'static str, &'static str, fn(&[u64; 4]) -> f64);

fn plugins(page: &mut Exposition, metrics: &Metrics) {
    let sums: [PluginSum; 4] = [
        ("specula_plugin_calls_total", "Calls into plugins; uploads are counted together.", |p| p[0] as f64),
        ("specula_plugin_fuel_total", "Fuel used by plugins, in the sandbox's units.", |p| p[1] as f64),
        ("specula_plugin_seconds_total", "Time in plugins' calls.", |p| seconds(p[2])),
        ("specula_plugin_failures_total", "Traps, exhausted fuel and wrong answers of plugins.", |p| p[3] as f64),
    ];
    for (name, help, value) in sums {
        page.family(name, "counter", help);
        for (plugin, counts) in &metrics.plugins {
            page.sample(&[("plugin", plugin)], value(counts));
        }
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// The text format: families of samples, each family introduced once.
#[derive(Default)]
struct Exposition {
    text: String,
    name: &'static str,
}

impl Exposition {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(self.name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let open = if i == 0 { '{' } else { ',' };
            self.write(format_args!("{open}{label}=\"{}\"", escaped(text)));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        self.write(format_args!("{close} {value}\n"));
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.text.write_fmt(text).expect("a String takes all");
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use specula_engine::Offered;
    use std::collections::HashSet;

    fn metrics() -> Metrics {
        let mirror = Totals {
            rounds: 4,
            accepted: 6,
            hits: 2,
            hits_by_depth: vec![0, 2],
            hits_from_exit_by_depth: vec![0, 1],
            by_position: vec![Offered { rounds: 4, accepted: 3 }],
            exposed_draft_us: 1_500_000,
            ..Totals::default()
        };
        Metrics {
            running: 1,
            methods: vec![(Method::None, Totals::default()), (Method::Mirror, mirror)],
            plugins: vec![("od\"d\\".into(), [3, 100, 2_000_000, 1])],
            ..Metrics::default()
        }
    }

    #[test]
    fn values_stand_under_their_names_and_labels() {
        let requests = RequestCounts::default();
        requests.count("/v1/models", StatusCode::OK);
        requests.count("/v1/models", StatusCode::OK);
        requests.count("other", StatusCode::NOT_FOUND);
        let text = text(&metrics(), &requests);
        for line in [
            "specula_generations_running 1",
            "specula_generations_ended_total{how=\"failed\"} 0",
            "specula_rounds_total{method=\"none\"} 0",
            "specula_rounds_total{method=\"mirror\"} 4",
            "specula_accepted_tokens_total{method=\"mirror\"} 6",
            "specula_hits_by_depth_total{method=\"mirror\",depth=\"1\"} 2",
            "specula_hits_from_exit_by_depth_total{method=\"mirror\",depth=\"1\"} 1",
            "specula_position_offered_total{method=\"mirror\",position=\"0\"} 4",
            "specula_position_accepted_total{method=\"mirror\",position=\"0\"} 3",
            "specula_exposed_draft_seconds_total{method=\"mirror\"} 1.5",
            "specula_plugin_seconds_total{plugin=\"od\\\"d\\\\\"} 2",
            "specula_plugin_failures_total{plugin=\"od\\\"d\\\\\"} 1",
            "specula_http_requests_total{route=\"/v1/models\",status=\"200\"} 2",
            "specula_http_requests_total{route=\"other\",status=\"404\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing from\n{text}");
        }
    }

    #[test]
    fn each_family_is_introduced_once_and_before_its_samples() {
        let text = text(&metrics(), &RequestCounts::default());
        let (mut families, mut current) = (HashSet::new(), "");
        let lines: Vec<_> = text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                current = help.split(' ').next().expect("a name");
                assert!(families.insert(current), "{current} twice");
                let kind = if current.ends_with("_total") { "counter" } else { "gauge" };
                assert_eq!(lines[i + 1], format!("# TYPE {current} {kind}"));
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().expect("a name");
                assert_eq!(name, current);
            }
        }
        assert!(text.ends_with('\n'));
    }
}
