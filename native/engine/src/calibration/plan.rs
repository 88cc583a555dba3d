//! From costs to settings, by the latency formula of ALGORITHMS §2 (Mirror-SD §3.4, arXiv:2510.13161).

use std::collections::BTreeMap;

use super::Costs;
use crate::rates::expected;
use crate::settings::{Method, Roots, Settings};

/// Windows that are considered.
const WINDOWS: [usize; 7] = [1, 2, 3, 4, 5, 6, 8];
/// Acceptance that drafts, look-up and recycling are reckoned with before any is seen.
const ACCEPTANCE: [f64; 3] = [0.7, 0.35, 0.35];
/// Part of outcomes that the draft's own guesses cover, and an exit's where no table says.
const COVERAGE: [f64; 2] = [0.75, 0.85];
/// A draft that does not pay with this acceptance and every outcome guessed never will.
const HOPEFUL: f64 = 0.85;
/// Rules, draws and commit of a round, microseconds.
pub(crate) const ROUND_US: f64 = 20.0;
/// Largest branch budget chosen.
const BRANCHES: usize = 16;
/// Of those, branches that grow together where time is short.
const TOGETHER: usize = 4;
/// More rows are as good as free in a step that takes at most this many times one over a single row.
const NEARLY_FREE: f64 = 1.3;
/// Windows of each method that `auto` tries.
const TRIED: usize = 2;

/// How often the target's own token is among an exit's four best: by layer, as `specula train exit` measures it.
pub type Coverage = BTreeMap<usize, f64>;

/// What was chosen, and why.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What was measured.
    pub costs: Costs,
    /// Settings that each method begins with, in the order of [`Method::ALL`].
    pub methods: Vec<Settings>,
    /// All that was considered, best first within each method.
    pub considered: Vec<Reckoned>,
    /// What `auto` tries.
    pub arms: Vec<Reckoned>,
    /// Why the draft is not used unless a request names a method that needs it.
    pub refused: Option<String>,
}

/// Settings with what they were reckoned to give.
#[derive(Debug, Clone, Copy)]
pub struct Reckoned {
    /// The settings.
    pub settings: Settings,
    /// Tokens a second.
    pub tokens_per_second: f64,
}

/// What is reckoned with.
struct Reckoner<'a> {
    costs: &'a Costs,
    layers: usize,
    coverage: Option<&'a Coverage>,
}

impl Plan {
    /// The plan of a target of `layers` layers that cannot speculate.
    pub fn alone(costs: Costs, layers: usize) -> Self {
        let considered = Reckoner { costs: &costs, layers, coverage: None }.ranked(Method::None);
        let methods = considered.iter().map(|reckoned| reckoned.settings).collect();
        Self { methods, arms: considered.clone(), considered, refused: None, costs }
    }

    /// Chooses for a target of `layers` layers and a draft with `streams`; `coverage` says how often exits are right, where
    /// that is known.
    pub fn of(costs: Costs, (layers, streams): (usize, usize), coverage: Option<&Coverage>) -> Self {
        let reckoner = Reckoner { costs: &costs, layers, coverage };
        let has_draft = costs.step.at(1).is_some();
        let (mut methods, mut considered, mut arms) = (Vec::new(), Vec::new(), Vec::new());
        let refused = reckoner.refusal();
        for method in Method::ALL.into_iter().filter(|method| has_draft || !method.needs_draft()) {
            let ranked = reckoner.ranked(method);
            methods.extend(ranked.first().map(|best| best.settings));
            if method == Method::Auto {
                continue;
            }
            // Some texts repeat themselves and others do not: look-up is tried with a window for either.
            let repeating = ranked.iter().filter(|_| method == Method::Lookup).max_by(|a, b| {
                let rate = |r: &Reckoned| reckoner.per_pass(HOPEFUL, r.settings.window, 0.0);
                rate(a).total_cmp(&rate(b))
            });
            // One exit for each window is enough to try.
            let mut tried: Vec<Reckoned> = repeating.copied().into_iter().collect();
            for reckoned in &ranked {
                if tried.len() < TRIED && tried.iter().all(|t| t.settings.window != reckoned.settings.window) {
                    tried.push(*reckoned);
                }
            }
            if refused.is_none() || !method.needs_draft() {
                // Whether looking ahead pays depends on the text too: it is for trying, not for reckoning.
                let looks_ahead = matches!(method, Method::Sps | Method::Mirror) && reckoner.rows_are_free(streams);
                let ahead = tried.first().filter(|_| looks_ahead);
                let ahead = ahead.map(|best| Reckoned { settings: Settings { streams, ..best.settings }, ..*best });
                arms.extend(tried.iter().copied().chain(ahead));
            }
            considered.extend(ranked);
        }
        Self { methods, considered, arms, refused, costs }
    }
}

impl Reckoner<'_> {
    /// A method's settings, best first.
    fn ranked(&self, method: Method) -> Vec<Reckoned> {
        let first = Settings::of(method, self.layers);
        let windows = if matches!(method, Method::None | Method::Auto) { vec![first.window] } else { WINDOWS.to_vec() };
        let exits: Vec<usize> = match (method, self.coverage) {
            (Method::Mirror, Some(table)) if !table.is_empty() => table.keys().copied().collect(),
            _ => vec![first.exit_layer],
        };
        let mut all = Vec::new();
        for window in windows {
            for &exit_layer in &exits {
                let settings = self.with_branches(Settings { window, exit_layer, ..first });
                all.push(Reckoned { settings, tokens_per_second: 1e6 * self.rate(&settings) });
            }
        }
        all.sort_by(|a, b| b.tokens_per_second.total_cmp(&a.tokens_per_second));
        all
    }

    /// Branches for all likely outcomes, where any are rolled out: how many of them grow, and how far, is seen as time goes by.
    fn with_branches(&self, settings: Settings) -> Settings {
        if settings.method.rolls_out() { Settings { branch_budget: BRANCHES, ..settings } } else { settings }
    }

    /// Expected tokens a microsecond.
    fn rate(&self, settings: &Settings) -> f64 {
        let [draft, lookup, recycling] = ACCEPTANCE;
        match settings.method {
            Method::Auto | Method::None => self.per_pass(0.0, 0, 0.0),
            Method::Lookup => self.per_pass(lookup, settings.window, 0.0),
            Method::Recycling => {
                let rows = settings.branch_budget + 1;
                expected(recycling, settings.window) / (self.pass(rows) + ROUND_US)
            }
            Method::Sps => self.serial(draft, settings.window),
            Method::Ssd | Method::Mirror => self.mirrored(draft, settings),
        }
    }

    fn per_pass(&self, acceptance: f64, window: usize, draft_us: f64) -> f64 {
        expected(acceptance, window) / (self.pass(window + 1) + draft_us + ROUND_US)
    }

    fn serial(&self, acceptance: f64, window: usize) -> f64 {
        self.per_pass(acceptance, window, window as f64 * self.step(1) + self.costs.rendezvous_us)
    }

    /// T = T_target + T_exit + T_rv, and the draft's time where it does not fit or was for nothing.
    fn mirrored(&self, acceptance: f64, settings: &Settings) -> f64 {
        let Settings { window, exit_layer, roots, .. } = *settings;
        let rows = window + 1;
        let exits = roots != Roots::Draft;
        let costs = if exits { &self.costs.with_exit } else { &self.costs.beside };
        let pass = costs.at(rows).unwrap_or(0.0);
        let by_exit = match (exits, self.coverage) {
            (false, _) => 0.0,
            (true, None) => COVERAGE[1],
            (true, Some(table)) => table.get(&exit_layer).copied().unwrap_or(COVERAGE[1]),
        };
        let by_draft = if roots == Roots::Exit { 0.0 } else { COVERAGE[0] };
        let covered = by_draft.max(by_exit);
        // The draft's own branches have all of the pass to grow in; what the exit adds has what is left of it.
        let depth = |time: f64| (time / self.step(TOGETHER).max(1e-3)).floor() as usize;
        let left = pass * (1.0 - exit_layer as f64 / self.layers as f64);
        let hit = by_draft * expected(acceptance, window.min(depth(pass)))
            + (covered - by_draft) * expected(acceptance, window.min(depth(left)));
        let miss = (1.0 - covered) * expected(acceptance, window);
        let serial = (1.0 - covered) * window as f64 * self.step(1);
        (hit + miss) / (pass + serial + self.costs.rendezvous_us + ROUND_US)
    }

    /// Whether a step that reads what `streams` guessed, and guesses again, costs about what one over a single token does
    /// (speculative streaming pays there, arXiv:2402.11131).
    fn rows_are_free(&self, streams: usize) -> bool {
        streams > 0 && self.step(1 + 2 * streams) <= self.step(1) * NEARLY_FREE
    }

    /// Why no method that drafts can be faster than the target alone.
    fn refusal(&self) -> Option<String> {
        self.costs.step.at(1)?;
        let rate = |window: &usize| {
            let serial = self.serial(HOPEFUL, *window);
            // All hidden, every outcome guessed; what it cannot draft in a pass it does not draft.
            let pass = self.costs.beside.at(window + 1).unwrap_or(0.0);
            let deep = (pass / self.step(1).max(1e-3)) as usize;
            serial.max(expected(HOPEFUL, (*window).min(deep)) / (pass + self.costs.rendezvous_us + ROUND_US))
        };
        let best = WINDOWS.iter().map(rate).fold(0.0, f64::max);
        let alone = self.per_pass(0.0, 0, 0.0);
        (best <= alone).then(|| {
            format!(
                "a step of the draft takes {:.2} ms and a pass of the target {:.2} ms: even with {:.0} % of its tokens \
                 accepted, {:.1} tokens/s against {:.1} of the target alone",
                self.step(1) / 1e3,
                self.pass(1) / 1e3,
                HOPEFUL * 100.0,
                best * 1e6,
                alone * 1e6,
            )
        })
    }

    /// A pass without a draft beside it.
    fn pass(&self, rows: usize) -> f64 {
        self.costs.alone.at(rows).unwrap_or(0.0)
    }

    fn step(&self, rows: usize) -> f64 {
        self.costs.step.at(rows).unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::by_rows::ByRows;

    /// A pass of 1 and of 9 rows, and a draft's step over 1 and 8.
    fn costs(pass: (f64, f64), step: Option<(f64, f64)>) -> Costs {
        let line = |one: f64, (rows, more): (usize, f64)| {
            let mut costs = ByRows::default();
            costs.learn(1, one);
            costs.learn(rows, more);
            costs
        };
        Costs {
            alone: line(pass.0, (9, pass.1)),
            beside: line(pass.0, (9, pass.1)),
            with_exit: line(pass.0 * 1.05, (9, pass.1 * 1.1)),
            step: step.map(|(one, eight)| line(one, (8, eight))).unwrap_or_default(),
            rendezvous_us: 20.0,
        }
    }

    fn default(plan: &Plan, method: Method) -> Settings {
        *plan.methods.iter().find(|s| s.method == method).expect("on offer")
    }

    #[test]
    fn cheap_rows_make_long_windows() {
        let cheap = Plan::of(costs((4000.0, 4400.0), Some((80.0, 300.0))), (8, 0), None);
        let dear = Plan::of(costs((1000.0, 5000.0), Some((80.0, 300.0))), (8, 0), None);
        for method in [Method::Sps, Method::Mirror, Method::Lookup] {
            assert!(default(&cheap, method).window > default(&dear, method).window, "{method:?}");
        }
        assert_eq!(default(&cheap, Method::None).window, 0);
        assert!(cheap.refused.is_none());
    }

    #[test]
    fn a_slow_draft_is_for_mirrors_and_a_hopeless_one_for_nobody() {
        let slow = Plan::of(costs((4000.0, 4400.0), Some((800.0, 900.0))), (8, 0), None);
        let best = |method| {
            let arms = slow.arms.iter().filter(|arm| arm.settings.method == method);
            arms.map(|arm| arm.tokens_per_second).fold(0.0, f64::max)
        };
        assert!(best(Method::Mirror) > best(Method::Sps) * 1.2, "{slow:?}");
        assert!(slow.refused.is_none());
        let hopeless = Plan::of(costs((4000.0, 4400.0), Some((9000.0, 9000.0))), (8, 0), None);
        let why = hopeless.refused.as_ref().expect("refused");
        assert!(why.contains("9.00 ms") && why.contains("4.00 ms"), "{why}");
        assert!(hopeless.arms.iter().all(|arm| !arm.settings.method.needs_draft()));
        assert!(hopeless.methods.iter().any(|s| s.method == Method::Mirror), "a request may still name it");
    }

    #[test]
    fn streams_are_tried_where_rows_cost_little() {
        let looks_ahead = |streams, eight: f64| {
            let plan = Plan::of(costs((4000.0, 4400.0), Some((80.0, eight))), (8, streams), None);
            let arms = plan.arms.iter().filter(|arm| arm.settings.streams > 0);
            arms.map(|arm| (arm.settings.method, arm.settings.streams)).collect::<Vec<_>>()
        };
        assert_eq!(looks_ahead(2, 90.0), [(Method::Sps, 2), (Method::Mirror, 2)]);
        assert!(looks_ahead(0, 90.0).is_empty() && looks_ahead(2, 300.0).is_empty());
    }

    #[test]
    fn a_target_alone_has_one_method() {
        let plan = Plan::alone(costs((4000.0, 4400.0), None), 8);
        assert_eq!(plan.methods.iter().map(|s| s.method).collect::<Vec<_>>(), [Method::None]);
        assert!(plan.arms.iter().all(|arm| arm.settings.method == Method::None && arm.tokens_per_second > 200.0));
    }

    #[test]
    fn without_a_draft_nothing_needs_one() {
        let plan = Plan::of(costs((4000.0, 4400.0), None), (8, 0), None);
        assert!(plan.methods.iter().chain(plan.arms.iter().map(|a| &a.settings)).all(|s| !s.method.needs_draft()));
        assert!(plan.refused.is_none());
    }

    #[test]
    fn the_exit_stands_where_it_covers_enough_in_time() {
        let costs = costs((4000.0, 4400.0), Some((200.0, 400.0)));
        let table = |early: f64, late: f64| Coverage::from([(2, early), (4, late), (7, 0.99)]);
        let exit = |table| default(&Plan::of(costs.clone(), (8, 0), Some(&table)), Method::Mirror).exit_layer;
        assert_eq!(exit(table(0.95, 0.95)), 2, "no later than need be");
        assert_eq!(exit(table(0.3, 0.95)), 4, "an early exit that guesses badly is of no use");
    }
}
