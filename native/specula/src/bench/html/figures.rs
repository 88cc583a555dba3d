//! Which pictures the page has, and what it says about each.

use super::bars::{self, Bar};
use super::lanes;
use super::lines::{self, Curve};
use super::svg::{legend, short};
use super::with_draft;
use crate::bench::measured::Measured;
use crate::bench::run::Sample;
use crate::bench::summary::{Line, Summary};
use crate::bench::table::{percent, ratio};

/// A picture with its text.
pub(super) struct Figure {
    pub(super) title: &'static str,
    pub(super) text: String,
    /// Markup.
    pub(super) picture: String,
}

pub(super) fn all(summary: &Summary, measured: &Measured<'_>, samples: &[Sample]) -> Vec<Figure> {
    let figures = [
        Some(speed(summary)),
        mirrors(summary),
        Some(round_time(summary)),
        sample_lanes(measured, samples),
        acceptance(summary),
        hits(summary),
        ablation(summary),
        passes(summary),
    ];
    figures.into_iter().flatten().collect()
}

/// The colour of a method, whatever its settings.
fn colour(method: &str) -> String {
    const COLOURED: [&str; 6] = ["lookup", "sps", "mirror", "ssd", "recycling", "auto"];
    let kind = kind(method);
    let place = COLOURED.iter().position(|coloured| *coloured == kind);
    if kind == "none" { "c-none".to_owned() } else { format!("c-m{}", place.unwrap_or(COLOURED.len()) + 1) }
}

/// The method without its settings.
fn kind(method: &str) -> &str {
    method.split(':').next().unwrap_or_default()
}

/// One picture for each temperature, side by side.
fn by_temperature(summary: &Summary, draw: impl Fn(f64) -> String) -> String {
    let mut temperatures: Vec<f64> = summary.methods.iter().map(|line| line.temperature).collect();
    temperatures.dedup();
    let facet = |temperature: f64| {
        format!("<figure><figcaption>temperature {temperature}</figcaption>{}</figure>", draw(temperature))
    };
    format!("<div class=\"facets\">{}</div>", temperatures.into_iter().map(facet).collect::<String>())
}

fn at(summary: &Summary, temperature: f64) -> impl Iterator<Item = &Line> {
    summary.methods.iter().filter(move |line| line.temperature == temperature)
}

/// The farthest end of all bars, so that the pictures of all temperatures have one scale.
fn farthest(values: impl Iterator<Item = f64>) -> f64 {
    values.filter(|value| value.is_finite()).fold(0.0, f64::max)
}

fn speed(summary: &Summary) -> Figure {
    let bar = |line: &Line| Bar {
        label: with_draft(line),
        parts: vec![(line.speedup, colour(&line.method), format!("{:.2} × none", line.speedup))],
        interval: line.speedup_interval,
        mark: None,
        note: format!("{:.2} × ({:.0} tokens/s)", line.speedup, line.mean_tokens_per_second),
    };
    let most = farthest(summary.methods.iter().map(|line| bar(line).end()));
    let picture = by_temperature(summary, |temperature| {
        let bars: Vec<Bar> = at(summary, temperature).map(bar).collect();
        bars::draw(&bars, most, "speed / speed of the target alone", Some(1.0), "speedup by method")
    });
    Figure {
        title: "Speed by method",
        text: "Tokens per second after the prompt, as a multiple of the target decoding alone (none). Methods took turns, \
               question by question, in an order that changed with each; a bar is the ratio of mean speeds over questions, its \
               whisker the 95 % interval of a paired bootstrap over them. Left of the dashed line a method loses."
            .to_owned(),
        picture,
    }
}

fn mirrors(summary: &Summary) -> Option<Figure> {
    let most = farthest(
        summary.mirrors.iter().flat_map(|m| [m.ratio, m.bound.unwrap_or(0.0), m.interval.map_or(0.0, |i| i[1])]),
    );
    let picture = by_temperature(summary, |temperature| {
        let bars: Vec<Bar> = summary
            .mirrors
            .iter()
            .filter(|m| m.temperature == temperature)
            .map(|m| Bar {
                label: format!("draft {} / {}", m.draft, m.serial),
                parts: vec![(m.ratio, colour(&m.mirror), format!("{} is {:.2} × {}", m.mirror, m.ratio, m.serial))],
                interval: m.interval,
                mark: m.bound.map(|bound| (bound, format!("bound {bound:.2}"))),
                note: format!("{:.2} ×, {} of bound", m.ratio, percent(m.reached)),
            })
            .collect();
        bars::draw(&bars, most, "mirror / best serial method", Some(1.0), "mirror against the best serial method")
    });
    (!summary.mirrors.is_empty()).then_some(Figure {
        title: "Mirror against the best serial method",
        text: "How much faster the best mirror is than the best method that does nothing while the target works, with the same \
               draft. The black mark is the bound of that ratio: a draft that costs no time and a window ready after every round, \
               computed from the measured cost of passes by rows, the measured acceptance and the measured draft step (c)."
            .to_owned(),
        picture,
    })
}

/// Parts of a round: colour, name, milliseconds.
type Part = (&'static str, &'static str, fn(&Line) -> f64);

fn round_time(summary: &Summary) -> Figure {
    const PARTS: [Part; 7] = [
        ("prefix", "target, layers to the exit", |line| line.round.target_prefix_ms),
        ("exit", "exit", |line| line.round.exit_ms),
        ("suffix", "target, layers after the exit (all layers without one)", |line| line.round.target_suffix_ms),
        ("accept", "acceptance", |line| line.round.accept_ms),
        ("serial", "serial draft, waited for", |line| line.round.serial_draft_ms),
        ("overrun", "end of a rollout step, waited for", |line| line.round.rollout_overrun_ms),
        ("rendezvous", "messages, and what else passes between rounds", |line| line.round.rendezvous_ms),
    ];
    let bar = |line: &Line| Bar {
        label: with_draft(line),
        parts: PARTS
            .map(|(class, name, ms)| (ms(line), class.to_owned(), format!("{name} {:.3} ms", ms(line))))
            .to_vec(),
        interval: None,
        mark: line
            .formula_over_measured
            .map(|_| (line.round.formula_ms, format!("formula {:.3} ms", line.round.formula_ms))),
        note: format!("{:.2} ms, {:.2} tokens", line.round.measured_ms, line.acceptance_length),
    };
    let most = farthest(summary.methods.iter().map(|line| bar(line).end()));
    let names = PARTS.map(|(class, name, _)| (class.to_owned(), name.to_owned()));
    let pictures = by_temperature(summary, |temperature| {
        let bars: Vec<Bar> = at(summary, temperature).map(bar).collect();
        bars::draw(&bars, most, "milliseconds per round", None, "what the time of a round goes into")
    });
    Figure {
        title: "Where a round's time goes",
        text: "The mean round, from the end of one to the end of the next. What the draft does while the target works costs \
               nothing and is not seen here; what the target waits for is. The black mark is the latency formula over the measured \
               parts: first layers, exit, the longer of the other layers and the rollout, acceptance, messages, and a serial draft \
               after a miss. Beside each bar the tokens that such a round brings."
            .to_owned(),
        picture: legend(&names) + &pictures,
    }
}

fn sample_lanes(measured: &Measured<'_>, samples: &[Sample]) -> Option<Figure> {
    let mut pictures = String::new();
    for stage in 0..measured.stages.len() {
        let mirrors = |sample: &&Sample| {
            let entrant = measured.plan.entrants[sample.entrant];
            entrant.stage == stage && measured.contender(sample.entrant).method() == "mirror" && sample.temperature == 0
        };
        let drawn = samples.iter().find(mirrors).and_then(|sample| {
            let name = &measured.contender(sample.entrant).name;
            let about = format!(
                "{name}, draft {}, first question, temperature {}",
                measured.stages[stage].label(),
                measured.plan.temperatures[0]
            );
            Some(format!("<figure><figcaption>{about}</figcaption>{}</figure>", lanes::draw(&sample.rounds, &about)?))
        });
        pictures.extend(drawn);
    }
    let names = lanes::KINDS.map(|(_, class, name)| (class.to_owned(), name.to_owned()));
    (!pictures.is_empty()).then(|| Figure {
        title: "Some rounds as they ran",
        text: "Both models on one line of time, as measured. Thin lines are messages: down, the exit's candidates and the verdict; \
               up, the next window. After a hit the target goes on at once; after a miss the draft works and the target waits."
            .to_owned(),
        picture: legend(&names) + &pictures,
    })
}

fn acceptance(summary: &Summary) -> Option<Figure> {
    let curve = |line: &Line| Curve {
        name: with_draft(line),
        class: colour(&line.method),
        points: line.accepted_by_position.iter().enumerate().map(|(i, share)| (i + 1, *share)).collect(),
    };
    // A slower draft guesses the same.
    let drafts = |line: &&Line| !line.accepted_by_position.is_empty() && !line.draft.starts_with('c');
    let pictures = by_temperature(summary, |temperature| {
        let curves: Vec<Curve> = at(summary, temperature).filter(drafts).map(curve).collect();
        lines::draw(&curves, 1.0, ("position in the window", "share accepted"), "acceptance by position")
    });
    let mut names: Vec<(String, String)> = Vec::new();
    for line in summary.methods.iter().filter(drafts) {
        let name = (colour(&line.method), kind(&line.method).to_owned());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    (!names.is_empty()).then(|| Figure {
        title: "Acceptance by position",
        text: "Of the windows that had a token at this position, the share that accepted it, and so all tokens before it. \
               Methods whose windows come from the same draft accept alike: their curves may lie on each other."
            .to_owned(),
        picture: legend(&names) + &pictures,
    })
}

fn hits(summary: &Summary) -> Option<Figure> {
    let rolls = |line: &&Line| line.hit_rate.is_some();
    let bar = |line: &Line| {
        let all = (line.hits_from_draft + line.hits_from_exit + line.misses).max(1) as f64;
        let part = |count: u64, class: &str, name: &str| {
            (100.0 * count as f64 / all, class.to_owned(), format!("{name}, {count} rounds"))
        };
        Bar {
            label: with_draft(line),
            parts: vec![
                part(line.hits_from_draft, "hit-draft", "hit guessed by the draft"),
                part(line.hits_from_exit, "hit-exit", "hit guessed by the exit"),
                part(line.misses, "miss", "miss"),
            ],
            interval: None,
            mark: None,
            note: format!("{} hits, depth {}", percent(line.hit_rate), short((mean_depth(line) * 10.0).round() / 10.0)),
        }
    };
    let names =
        [("hit-draft", "hit, guessed by the draft"), ("hit-exit", "hit, guessed by the exit"), ("miss", "miss")];
    let names = names.map(|(class, name)| (class.to_owned(), name.to_owned()));
    let pictures = by_temperature(summary, |temperature| {
        let bars: Vec<Bar> = at(summary, temperature).filter(rolls).map(bar).collect();
        bars::draw(&bars, 100.0, "% of rounds", None, "hits by who guessed the outcome")
    });
    summary.methods.iter().any(|line| rolls(&line)).then(|| Figure {
        title: "Hits",
        text: "How often the round's outcome had been rolled out when it came, and whose guess it was. Beside each bar the mean \
               length of the windows that hits found ready."
            .to_owned(),
        picture: legend(&names) + &pictures,
    })
}

fn mean_depth(line: &Line) -> f64 {
    let hits: u64 = line.hits_by_depth.iter().sum();
    let tokens: u64 = line.hits_by_depth.iter().enumerate().map(|(depth, count)| depth as u64 * count).sum();
    tokens as f64 / hits.max(1) as f64
}

fn ablation(summary: &Summary) -> Option<Figure> {
    let several = summary.ablation.iter().any(|step| step.draft != summary.ablation[0].draft);
    let bars = |temperature: f64| -> Vec<Bar> {
        let steps = summary.ablation.iter().filter(|step| step.temperature == temperature);
        steps
            .map(|step| Bar {
                label: if several { format!("{}, draft {}", step.step, step.draft) } else { step.step.clone() },
                parts: vec![(
                    step.speedup,
                    if step.computed { "c-none".to_owned() } else { colour(&step.method) },
                    format!(
                        "{:.2} × none, {} × serial",
                        step.speedup,
                        ratio(step.over_serial, step.over_serial_interval)
                    ),
                )],
                interval: None,
                mark: None,
                note: format!("{:.2} ×, {} hits", step.speedup, percent(step.hit_rate)),
            })
            .collect()
    };
    let most = farthest(summary.ablation.iter().map(|step| step.speedup));
    (!summary.ablation.is_empty()).then(|| Figure {
        title: "What each part brings",
        text: "The same draft, first serial, then working beside the target behind its own guesses (draft roots), the exit's \
               (exit roots), both, and with streams if it has them. The grey bar is computed: the last of them with the same hits and \
               a draft that takes no time at all."
            .to_owned(),
        picture: by_temperature(summary, |temperature| {
            bars::draw(&bars(temperature), most, "speed / speed of the target alone", Some(1.0), "speedup by part")
        }),
    })
}

fn passes(summary: &Summary) -> Option<Figure> {
    let one = summary.row_costs.iter().find(|cost| cost.rows == 1)?.median_ms;
    let points: Vec<(usize, f64)> = summary.row_costs.iter().map(|cost| (cost.rows, cost.median_ms / one)).collect();
    let most = farthest(points.iter().map(|point| point.1));
    let curve = Curve { name: String::new(), class: "c-m1".to_owned(), points };
    Some(Figure {
        title: "What rows cost",
        text: format!(
            "A pass of the target by the number of its rows (the last committed token and the window), as a multiple of a pass of \
             one row, {one:.2} ms. The flatter this is, the more speculation can gain."
        ),
        picture: lines::draw(&[curve], most, ("rows of a pass", "time / time of one row"), "cost of passes by rows"),
    })
}
