//! The laws of the interface, checked by calls that must agree: evaluation is pure, edits are causal, texts may come in any
//! pieces, forks go their own way. What passes may still break a law where these calls do not look; the host stays robust
//! against it, but exactness across methods is then the plugin's to lose.

use std::sync::Arc;

use serde_json::Value;
use specula_decoding::ends::Decoder;
use specula_decoding::{PolicyError, Row, TokenId, WindowStats};

use crate::load_error::LoadError;
use crate::plugin::{ForkingAcceptance, ForkingRule, ForkingStopping, Told};
use crate::{Kind, ModelInfo, Plugin, PluginUse, schema};

/// Windows judged, paths adjusted, texts observed.
const TRIALS: u64 = 12;
/// Draft tokens of a window.
const WINDOW: usize = 6;
/// Tokens of the texts.
const PROMPT: usize = 20;
const CONTINUATION: usize = 7;
const OBSERVED: usize = 60;
/// Entries of the rows whose statistics acceptance policies see.
const STATISTICS: usize = 64;

/// What the checks cost, kind by kind. All laws held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LawReport {
    /// The configuration under which the laws were checked.
    pub config: Value,
    /// One entry for each kind that the plugin is, in order.
    pub kinds: Vec<KindReport>,
}

/// What one kind's checks cost: calls of the guest, opening included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindReport {
    /// The kind.
    pub kind: Kind,
    /// Calls made.
    pub calls: u64,
    /// Fuel that they used.
    pub fuel: u64,
    /// Wall clock that they took, microseconds.
    pub micros: u64,
    /// Answers that were compared.
    pub compared: u64,
}

/// Checks the laws of every kind that a plugin is, for this model. Without a configuration the first example of the plugin's
/// schema is taken, else `{}`. Takes some hundred calls.
///
/// # Errors
/// [`LoadError::SelfTestFailed`] names kind and law, and the first answers that differ; or the call that failed.
pub fn check(plugin: &Arc<Plugin>, model: &ModelInfo, config: Option<&Value>) -> Result<LawReport, LoadError> {
    let config = config.cloned().unwrap_or_else(|| schema::sample(plugin.info().config_schema.as_ref()));
    let mut kinds = Vec::new();
    for kind in &plugin.info().kinds {
        let mut trial =
            Trial { plugin, model, config: &config, kind: *kind, uses: Vec::new(), compared: 0, stage: Check::Open };
        let held = match kind {
            Kind::Acceptance => trial.acceptance(),
            Kind::Sampling => trial.sampling(),
            Kind::Stopping => trial.stopping(),
        };
        if let Err(found) = held {
            return Err(LoadError::SelfTestFailed { kind: kind.as_str(), check: trial.stage.name(), found: found.0 });
        }
        kinds.push(trial.report());
    }
    Ok(LawReport { config, kinds })
}

/// What is being checked.
#[derive(Debug, Clone, Copy)]
enum Check {
    Open,
    Pure,
    Causal,
    Forked,
    Chunks,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Pure => "pure",
            Self::Causal => "causal",
            Self::Forked => "fork",
            Self::Chunks => "chunk-invariant",
        }
    }
}

/// Why a law does not hold.
struct Found(String);

impl From<PolicyError> for Found {
    fn from(error: PolicyError) -> Self {
        Self(format!("{}: {}", error.code, error.message))
    }
}

/// The checks of one kind.
struct Trial<'a> {
    plugin: &'a Arc<Plugin>,
    model: &'a ModelInfo,
    config: &'a Value,
    kind: Kind,
    uses: Vec<Arc<PluginUse>>,
    compared: u64,
    stage: Check,
}

impl Trial<'_> {
    fn acceptance(&mut self) -> Result<(), Found> {
        let (prompt, more) = (self.tokens(PROMPT, 1), self.tokens(CONTINUATION, 2));
        let windows: Vec<WindowStats> = (0..TRIALS).map(|seed| self.window(seed)).collect();
        let judge = |policy: &mut Box<dyn ForkingAcceptance>| -> Result<Vec<usize>, Found> {
            Ok(windows.iter().map(|window| policy.judge(window)).collect::<Result<_, _>>()?)
        };
        let mut policy = self.open_acceptance(&prompt)?;
        let first = judge(&mut policy)?;
        self.stage = Check::Pure;
        for (i, window) in windows.iter().enumerate().rev() {
            self.agree(&first[i], &policy.judge(window)?, "the same window, judged again")?;
        }
        self.stage = Check::Forked;
        policy.fork()?;
        self.agree(&first, &judge(&mut policy)?, "a fork")?;
        policy.commit(&more)?;
        let of_fork = judge(&mut policy)?;
        policy.back();
        self.agree(&first, &judge(&mut policy)?, "the original after its fork went on")?;
        policy.commit(&more)?;
        self.agree(&of_fork, &judge(&mut policy)?, "the original where its fork went")?;
        self.stage = Check::Chunks;
        let mut pieces = self.open_acceptance(&[])?;
        for token in prompt.iter().chain(&more) {
            pieces.commit(&[*token])?;
        }
        self.agree(&of_fork, &judge(&mut pieces)?, "the same text token by token")
    }

    fn sampling(&mut self) -> Result<(), Found> {
        let (prompt, more) = (self.tokens(PROMPT, 3), self.tokens(CONTINUATION, 4));
        let paths: Vec<Vec<TokenId>> = (0..TRIALS).map(|seed| self.tokens(WINDOW, 10 + seed)).collect();
        let rows: Vec<Row> = (0..=WINDOW as u64).map(|seed| self.row(self.model.vocab_size as usize, seed)).collect();
        let adjust = |rule: &mut Box<dyn ForkingRule>, path: &[TokenId]| -> Result<Vec<Row>, Found> {
            let mut edited = rows.clone();
            rule.apply(path, 0, &mut edited.iter_mut().collect::<Vec<_>>())?;
            Ok(edited)
        };
        let all = |rule: &mut Box<dyn ForkingRule>| -> Result<Vec<Vec<Row>>, Found> {
            paths.iter().map(|path| adjust(rule, path)).collect()
        };
        let mut rule = self.open_rule(&prompt)?;
        let first = all(&mut rule)?;
        self.stage = Check::Pure;
        for (path, rows) in paths.iter().zip(&first).rev() {
            self.same_rows(rows, &adjust(&mut rule, path)?, "the same rows, adjusted again")?;
        }
        self.stage = Check::Causal;
        for (path, edited) in paths.iter().zip(&first) {
            for (i, row) in rows.iter().enumerate() {
                // Alone, and with another tail behind it.
                let tail: Vec<TokenId> = path[..i].iter().chain(&more).copied().collect();
                let mut alone = row.clone();
                rule.apply(&tail, i, &mut [&mut alone])?;
                let what = format!("row {i} alone, with other draft tokens behind it");
                self.same_rows(std::slice::from_ref(&edited[i]), &[alone], &what)?;
            }
        }
        self.stage = Check::Forked;
        rule.fork()?;
        self.same_rows(&first[0], &adjust(&mut rule, &paths[0])?, "a fork")?;
        rule.commit(&more)?;
        let of_fork = adjust(&mut rule, &paths[0])?;
        rule.back();
        self.same_rows(&first[0], &adjust(&mut rule, &paths[0])?, "the original after its fork went on")?;
        rule.commit(&more)?;
        self.same_rows(&of_fork, &adjust(&mut rule, &paths[0])?, "the original where its fork went")?;
        self.stage = Check::Causal;
        // What was drafted and came true must leave the rows behind it as they were.
        let mut drafted = rows[0].clone();
        let mut before = self.open_rule(&prompt)?;
        before.apply(&more, more.len(), &mut [&mut drafted])?;
        self.same_rows(&of_fork[..1], &[drafted], "a row behind a text that is drafted instead of committed")?;
        self.stage = Check::Chunks;
        let mut pieces = self.open_rule(&[])?;
        for token in prompt.iter().chain(&more) {
            pieces.commit(&[*token])?;
        }
        self.same_rows(&of_fork, &adjust(&mut pieces, &paths[0])?, "the same text token by token")
    }

    fn stopping(&mut self) -> Result<(), Found> {
        for seed in 0..TRIALS {
            let text = Text::of(self.text(seed), self.model);
            let mut criterion = self.open_stopping()?;
            let whole = observe(&mut criterion, &text, 0, text.tokens.len())?;
            self.stage = Check::Chunks;
            for size in [1, 2, 5, OBSERVED / 2] {
                let mut criterion = self.open_stopping()?;
                let found = observe(&mut criterion, &text, 0, size)?;
                self.agree(&whole, &found, &format!("the same text in pieces of {size} tokens"))?;
            }
            self.stage = Check::Forked;
            let half = OBSERVED / 2;
            let mut criterion = self.open_stopping()?;
            if observe(&mut criterion, &text.first(half), 0, half)?.is_some() {
                continue;
            }
            criterion.fork()?;
            self.agree(&whole, &observe(&mut criterion, &text, half, half)?, "a fork")?;
            criterion.back();
            self.agree(&whole, &observe(&mut criterion, &text, half, half)?, "the original after its fork")?;
        }
        Ok(())
    }

    /// With so much of the prompt as `told`; the rest is still to be committed.
    fn open_acceptance(&mut self, told: &[TokenId]) -> Result<Box<dyn ForkingAcceptance>, Found> {
        let opened = self.plugin.forking_acceptance(self.model, self.config, &Told { prompt_tokens: PROMPT, told })?;
        self.uses.push(opened.usage);
        Ok(opened.policy)
    }

    fn open_rule(&mut self, told: &[TokenId]) -> Result<Box<dyn ForkingRule>, Found> {
        let opened = self.plugin.forking_rule(self.model, self.config, &Told { prompt_tokens: PROMPT, told })?;
        self.uses.push(opened.usage);
        Ok(opened.policy)
    }

    fn open_stopping(&mut self) -> Result<Box<dyn ForkingStopping>, Found> {
        let opened = self.plugin.forking_stopping(self.model, self.config)?;
        self.uses.push(opened.usage);
        Ok(opened.policy)
    }

    fn agree<T: PartialEq + std::fmt::Debug>(&mut self, one: &T, other: &T, what: &str) -> Result<(), Found> {
        self.compared += 1;
        if one == other { Ok(()) } else { Err(Found(format!("{what} gave {other:?}, not {one:?}"))) }
    }

    /// Compares bits: a zero's sign counts.
    fn same_rows(&mut self, one: &[Row], other: &[Row], what: &str) -> Result<(), Found> {
        self.compared += 1;
        for (a, b) in one.iter().zip(other) {
            let differs = a.logits().iter().zip(b.logits()).position(|(x, y)| x.to_bits() != y.to_bits());
            if let Some(token) = differs {
                let (x, y) = (a.logits()[token], b.logits()[token]);
                return Err(Found(format!("{what} gave token {token} the logit {y}, not {x}")));
            }
        }
        Ok(())
    }

    fn report(&self) -> KindReport {
        let sum = |count: fn(&PluginUse) -> u64| self.uses.iter().map(|used| count(used)).sum();
        KindReport {
            kind: self.kind,
            calls: sum(PluginUse::calls),
            fuel: sum(PluginUse::fuel),
            micros: sum(PluginUse::micros),
            compared: self.compared,
        }
    }

    /// Tokens of the model, the same every time.
    fn tokens(&self, n: usize, seed: u64) -> Vec<TokenId> {
        let mut random = Random(seed);
        (0..n).map(|_| (random.next() % u64::from(self.model.vocab_size.max(1))) as TokenId).collect()
    }

    /// A text: at random, or of few tokens that come again and again.
    fn text(&self, seed: u64) -> Vec<TokenId> {
        let tokens = self.tokens(OBSERVED, 100 + seed);
        let few = if seed.is_multiple_of(2) { OBSERVED } else { 1 + seed as usize };
        (0..OBSERVED).map(|i| tokens[i % few]).collect()
    }

    fn row(&self, entries: usize, seed: u64) -> Row {
        let mut random = Random(1000 + seed);
        Row::new(&(0..entries).map(|_| (random.next() % 16_000) as f32 / 1000.0 - 8.0).collect::<Vec<f32>>())
    }

    fn window(&self, seed: u64) -> WindowStats {
        let entries = STATISTICS.min(self.model.vocab_size as usize).max(1);
        let mut random = Random(2000 + seed);
        let mut stats = WindowStats { position: PROMPT as u32, ..WindowStats::default() };
        for i in 0..1 + seed % WINDOW as u64 {
            let row = self.row(entries, seed * WINDOW as u64 + i);
            // As drafts are: half of them the own draw, most of the others likely.
            let likely = row.top(4);
            let own = likely[random.next() as usize % likely.len()].0;
            let other = likely[random.next() as usize % likely.len()].0;
            stats.push(&row, if random.next().is_multiple_of(2) { own } else { other }, own);
        }
        if seed.is_multiple_of(2) {
            stats.log_q = stats.log_p.iter().map(|log_p| log_p * 0.5 - 0.1).collect();
        }
        stats
    }
}

/// Tokens with what they stand for.
struct Text {
    tokens: Vec<TokenId>,
    text: String,
    ends: Vec<u32>,
}

impl Text {
    fn of(tokens: Vec<TokenId>, model: &ModelInfo) -> Self {
        let mut decoder = Decoder::default();
        let mut text = String::new();
        let mut ends = Vec::with_capacity(tokens.len());
        for token in &tokens {
            text.push_str(&decoder.push(model.token_bytes.get(*token)));
            ends.push(text.len() as u32);
        }
        Self { tokens, text, ends }
    }

    fn first(&self, n: usize) -> Self {
        let end = self.ends[n - 1] as usize;
        Self { tokens: self.tokens[..n].to_vec(), text: self.text[..end].to_owned(), ends: self.ends[..n].to_vec() }
    }
}

/// Gives a text from token `from` on in pieces of `size` tokens; where it ends and why.
fn observe(
    criterion: &mut Box<dyn ForkingStopping>,
    text: &Text,
    from: usize,
    size: usize,
) -> Result<Option<(usize, String)>, Found> {
    let mut at = from;
    while at < text.tokens.len() {
        let to = (at + size).min(text.tokens.len());
        let begin = if at == 0 { 0 } else { text.ends[at - 1] };
        let ends: Vec<u32> = text.ends[at..to].iter().map(|end| end - begin).collect();
        let piece = &text.text[begin as usize..text.ends[to - 1] as usize];
        if let Some(stop) = criterion.observe(&text.tokens[at..to], piece, &ends)? {
            return Ok(Some((at + stop.keep, stop.reason)));
        }
        at = to;
    }
    Ok(None)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) >> 8
    }
}
