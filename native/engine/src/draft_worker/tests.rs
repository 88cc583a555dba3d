//! The draft's desk beside a target that exists only as a timetable: a simulated device whose clock is moved by its own
//! steps and by hand, so that what is rolled out by when is the same in every run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use specula_decoding::{Chain, Logits, NewNode, Sampling};

use super::*;
use crate::settings::{Method, Roots, Settings};

const VOCAB: u32 = 16;
/// Layers of the target that is not there.
const LAYERS: usize = 8;
const PROMPT: [TokenId; 4] = [9, 1, 2, 3];

/// A draft that says after each token the next one, else the one after that, and so on; a step moves the clock.
struct Toy {
    tokens: Vec<TokenId>,
    linear: usize,
    clock: Arc<AtomicU64>,
    step_us: u64,
    /// What each row after the first adds to a step.
    row_us: u64,
}

impl LanguageModel for Toy {
    fn vocab_size(&self) -> usize {
        VOCAB as usize
    }

    fn context_length(&self) -> usize {
        64
    }

    fn linear(&self) -> usize {
        self.linear
    }

    fn slots(&self) -> usize {
        self.tokens.len()
    }

    fn forward(
        &mut self,
        nodes: &[NewNode],
        _: Option<(usize, specula_decoding::model::OnExit<'_>)>,
    ) -> Result<Logits, ModelError> {
        self.clock.fetch_add(self.step_us + self.row_us * (nodes.len() as u64 - 1), Ordering::Relaxed);
        let mut rows = Vec::new();
        for node in nodes {
            if self.linear == self.tokens.len() && node.parent == self.linear.checked_sub(1) {
                self.linear += 1;
            }
            self.tokens.push(node.token);
            rows.extend((0..VOCAB).map(|next| -(((next + VOCAB - node.token - 1) % VOCAB) as f32)));
        }
        Ok(Logits::new(rows, VOCAB as usize))
    }

    fn prefill(&mut self, tokens: &[TokenId]) -> Result<(), ModelError> {
        self.tokens.extend_from_slice(tokens);
        self.linear = self.tokens.len();
        Ok(())
    }

    fn keep(&mut self, from: usize, path: &[usize]) -> Result<(), ModelError> {
        let kept: Vec<TokenId> = path.iter().map(|slot| self.tokens[*slot]).collect();
        self.tokens.truncate(from);
        self.tokens.extend(kept);
        self.linear = self.tokens.len();
        Ok(())
    }
}

/// A desk with one open sequence, its clock, and what it replied.
struct Play {
    desk: Desk,
    clock: Arc<AtomicU64>,
    replies: Receiver<Result<Proposal, ModelError>>,
    settings: Settings,
}

/// A pass of 4 ms.
const PASS: Overlap = Overlap { pass: Duration::from_micros(4000), worth: Worth::ALL };

impl Play {
    fn new(step_us: u64, roots: Roots, deterministic: bool) -> Self {
        Self::with_rows((step_us, 0), roots, deterministic)
    }

    fn with_rows((step_us, row_us): (u64, u64), roots: Roots, deterministic: bool) -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let (ticks, reads) = (clock.clone(), clock.clone());
        let toy = move || -> Result<Box<dyn LanguageModel>, ModelError> {
            Ok(Box::new(Toy { tokens: Vec::new(), linear: 0, clock: ticks.clone(), step_us, row_us }))
        };
        let stopwatch = Stopwatch::new(move || reads.load(Ordering::Relaxed) as f64);
        let mut costs = ByRows::default();
        for rows in [1, 9] {
            costs.learn(rows as usize, (step_us + row_us * (rows - 1)) as f64);
        }
        stopwatch.set(costs);
        let mut desk = Desk::new(Arc::new(toy), stopwatch);
        let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
        let settings = Settings { roots, deterministic, window: 3, ..Settings::of(Method::Mirror, LAYERS) };
        let opening = Opening {
            text: PROMPT.to_vec(),
            prompt: PROMPT.len(),
            noise: Chain::new(sampling.clone(), &PROMPT, Vec::new()).noise().clone(),
            sampling,
            settings,
            wants_q: false,
        };
        let (tell, replies) = sync_channel(1);
        desk.take(ToDraft::Open { id: 1, opening: Box::new(opening), replies: tell });
        Self { desk, clock, replies, settings }
    }

    fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// Lets the desk work until a time, then hands a message over; a step that was begun is ended first.
    fn at(&mut self, time: u64, message: ToDraft) {
        while self.now() < time && self.desk.has_work() {
            self.desk.step();
        }
        self.clock.fetch_max(time, Ordering::Relaxed);
        self.desk.take(message);
    }

    fn wanted(&self, worth: Worth) -> Wanted {
        Wanted { window: 3, worth, settings: self.settings }
    }

    fn draft(&mut self) -> Vec<TokenId> {
        self.desk.take(ToDraft::Draft { id: 1, wanted: self.wanted(Worth::ALL) });
        self.reply().window.tokens
    }

    fn begin(&mut self, window: &[TokenId]) {
        let now = self.now();
        self.at(now, ToDraft::PassBegan { id: 1, window: window.to_vec(), overlap: Some(PASS) });
    }

    fn verdict(&mut self, time: u64, committed: &[TokenId], on_miss: OnMiss) -> Proposal {
        let next = Some((self.wanted(Worth::ALL), on_miss));
        self.at(time, ToDraft::Verdict { id: 1, committed: committed.to_vec(), next });
        self.reply()
    }

    fn reply(&self) -> Proposal {
        self.replies.try_recv().expect("replied").expect("the toy never fails")
    }
}

/// What cut-off branches are not drafted on for: a token would have to be worth more than one.
const AS_IT_IS: Worth = Worth { rate: 1.0, acceptance: 0.5, row_us: 1.0 };

/// The exit's rows that are sure of the draft's window and, after it, of `next`.
fn exit(window: &[TokenId], next: TokenId) -> ToDraft {
    let sure = |token: TokenId| vec![(token, 9.0), ((token + 5) % VOCAB, 0.0)];
    ToDraft::Exit { id: 1, rows: window.iter().copied().chain([next]).map(sure).collect() }
}

#[test]
fn a_quick_draft_has_the_next_window_when_the_verdict_comes() {
    let mut play = Play::new(100, Roots::Draft, false);
    let window = play.draft();
    assert_eq!(window, [4, 5, 6]);
    play.begin(&window);
    let begin = play.now();
    let hit = play.verdict(begin + 4000, &[4, 5, 6, 7], OnMiss::Draft);
    assert_eq!((hit.window.tokens.as_slice(), play.now()), (&[8, 9, 10][..], begin + 4000), "no time was lost");
    assert_eq!(hit.hit.map(|outcome| outcome.source), Some(specula_decoding::branches::Source::Draft));
}

#[test]
fn an_outcome_that_only_the_exit_expects_is_rolled_out_once_it_is_told() {
    let mut play = Play::new(100, Roots::Exit, false);
    let window = play.draft();
    play.begin(&window);
    let begin = play.now();
    play.at(begin + 2000, exit(&window, 13));
    let hit = play.verdict(begin + 4000, &[4, 5, 6, 13], OnMiss::Draft);
    assert_eq!(hit.window.tokens, [14, 15, 0]);
    assert_eq!(hit.hit.map(|outcome| outcome.source), Some(specula_decoding::branches::Source::Exit));
}

#[test]
fn settings_change_with_what_is_wanted() {
    let mut play = Play::new(10, Roots::Exit, false);
    let begun = |play: &mut Play| {
        let drafted = play.draft();
        play.begin(&drafted);
        let begin = play.now();
        play.at(begin + 100, exit(&drafted, 13));
        play.verdict(begin + 4000, &[4, 5, 6, 13], OnMiss::Draft).expanded
    };
    assert!(begun(&mut play) > 1);
    let mut play = Play::new(10, Roots::Exit, false);
    play.settings.branch_budget = 1;
    assert_eq!(begun(&mut play), 1);
}

#[test]
fn a_slow_draft_has_a_short_window_and_drafts_on_only_where_that_pays() {
    for (worth, window) in [(AS_IT_IS, &[14, 15][..]), (Worth::ALL, &[14, 15, 0])] {
        let mut play = Play::new(900, Roots::Exit, false);
        let drafted = play.draft();
        play.begin(&drafted);
        let begin = play.now();
        play.at(begin + 2000, exit(&drafted, 13));
        // Two steps fit, and a third is under way when the verdict comes.
        let committed = vec![4, 5, 6, 13];
        let next = Some((play.wanted(worth), OnMiss::Draft));
        play.at(begin + 3700, ToDraft::Verdict { id: 1, committed, next });
        assert_eq!(play.reply().window.tokens, window);
    }
}

#[test]
fn a_verdict_ends_all_rollouts_within_a_step() {
    let mut play = Play::new(1000, Roots::Draft, false);
    let window = play.draft();
    play.begin(&window);
    let begin = play.now();
    play.desk.step();
    assert!(play.desk.has_work(), "branches to grow");
    let miss = play.verdict(begin + 1500, &[11], OnMiss::Tell);
    assert_eq!((miss.hit, miss.window.tokens.as_slice()), (None, &[][..]));
    assert!(!play.desk.has_work(), "nothing goes on for a pass that is over");
    assert!(play.now() < begin + 1500 + 1000 + 1);
    // What comes too late is of no effect.
    play.desk.take(exit(&window, 7));
    assert!(!play.desk.has_work());
    assert_eq!(play.draft(), [12, 13, 14], "from what was committed");
}

#[test]
fn a_miss_is_drafted_for_or_told_at_once() {
    let play = |on_miss| {
        let mut play = Play::new(100, Roots::Draft, false);
        let window = play.draft();
        play.begin(&window);
        let begin = play.now();
        let miss = play.verdict(begin + 4000, &[4, 12], on_miss);
        assert_eq!(miss.hit, None);
        (miss.window.tokens, play.now() - begin)
    };
    assert_eq!(play(OnMiss::Tell), (vec![], 4000));
    let (window, took) = play(OnMiss::Draft);
    assert_eq!((window, took), (vec![13, 14, 15], 4300));
}

/// After a miss the target may verify what others guessed: the draft reads that and rolls out from it.
#[test]
fn another_guessers_window_is_read_and_rolled_out() {
    let mut play = Play::new(100, Roots::Draft, false);
    let window = play.draft();
    play.begin(&window);
    let begin = play.now();
    play.verdict(begin + 4000, &[4, 12], OnMiss::Tell);
    play.begin(&[7, 8]);
    let begin = play.now();
    let hit = play.verdict(begin + 4000, &[7, 8, 9], OnMiss::Draft);
    assert_eq!((hit.hit.is_some(), hit.window.tokens), (true, vec![10, 11, 12]));
}

#[test]
fn no_more_branches_grow_together_than_pay() {
    let expanded = |costs: (u64, u64)| {
        let mut play = Play::with_rows(costs, Roots::Draft, false);
        let window = play.draft();
        play.begin(&window);
        let begin = play.now();
        play.verdict(begin + 4000, &[4, 5, 6, 7], OnMiss::Draft).expanded
    };
    assert_eq!(expanded((100, 10)), 8, "all of the budget");
    assert!(expanded((600, 600)) <= 6, "rows are dear: one branch a step, of which six are begun");
    assert_eq!(expanded((1100, 0)), 8, "rows that cost nothing take no time from the first");
}

#[test]
fn what_grew_is_kept_where_the_exit_expects_otherwise() {
    let mut play = Play::new(100, Roots::Both, false);
    play.settings.branch_budget = 1;
    let window = play.draft();
    play.begin(&window);
    let begin = play.now();
    // Alone, the draft holds the first correction for likelier than all of its window.
    play.at(begin + 2000, exit(&window, 13));
    let hit = play.verdict(begin + 4000, &[5], OnMiss::Draft);
    assert_eq!((hit.hit.is_some(), hit.window.tokens.as_slice(), hit.expanded), (true, &[6, 7, 8][..], 2));
}

#[test]
fn no_step_is_begun_that_is_not_worth_waiting_for() {
    let ends = |rate: f64| {
        let mut play = Play::new(1100, Roots::Draft, false);
        let window = play.draft();
        let begin = play.now();
        let overlap = Some(Overlap { worth: Worth { rate, acceptance: 0.5, row_us: 0.0 }, ..PASS });
        play.at(begin, ToDraft::PassBegan { id: 1, window, overlap });
        // The window's last token and two steps fit; a third would end 400 µs after the pass.
        let next = Some((play.wanted(AS_IT_IS), OnMiss::Tell));
        play.at(begin + 4000, ToDraft::Verdict { id: 1, committed: vec![4, 5, 6, 7], next });
        (play.reply().window.tokens.len(), play.now() - begin)
    };
    assert_eq!(ends(0.01), (2, 4000), "400 µs are worth four tokens");
    assert_eq!(ends(1e-6), (3, 4400));
}

#[test]
fn deterministic_rollouts_do_not_depend_on_time() {
    let play = |step_us: u64, verdict_after: u64| {
        let mut play = Play::new(step_us, Roots::Both, true);
        let window = play.draft();
        play.begin(&window);
        let begin = play.now();
        play.at(begin + verdict_after / 2, exit(&window, 13));
        let proposal = play.verdict(begin + verdict_after, &[4, 5, 6, 13], OnMiss::Draft);
        (proposal.window.tokens, proposal.expanded, proposal.steps)
    };
    assert_eq!(play(1, 100_000), play(3000, 10));
}
