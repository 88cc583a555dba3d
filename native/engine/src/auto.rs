//! Method `auto`: which method, with which settings, commits most tokens a second. Found by trying, round by round.

use crate::settings::Settings;

/// Rounds that an arm is kept for, so that rollouts come to bear.
const BOUT: usize = 4;
/// Tokens that what all sequences know of an arm counts as in one sequence.
const TRUST: f64 = 24.0;
/// What is remembered of all sequences' rounds, each time that a round is added.
const MEMORY: f64 = 0.995;
/// How much an arm of one round is overrated: the fewer rounds, the sooner it is tried again (UCB, Auer et al. 2002).
const CURIOSITY: f64 = 0.6;

/// Settings to choose from, and how fast each was, apart for greedy decoding and sampling.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arms {
    settings: Vec<Settings>,
    paces: [Vec<Pace>; 2],
}

/// Tokens committed, and in which time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    tokens: f64,
    us: f64,
    rounds: f64,
}

impl Pace {
    /// Of nothing yet, but for a guess.
    fn guessed(tokens_per_us: f64) -> Self {
        Self { tokens: 1.0, us: 1.0 / tokens_per_us.max(1e-9), rounds: 1.0 }
    }

    /// Tokens a microsecond.
    pub(crate) fn rate(&self) -> f64 {
        self.tokens / self.us
    }

    fn add(&mut self, tokens: usize, us: f64) {
        self.tokens = self.tokens * MEMORY + tokens as f64;
        self.us = self.us * MEMORY + us;
        self.rounds = self.rounds * MEMORY + 1.0;
    }
}

/// One sequence's choice.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    greedy: bool,
    /// This sequence's own tokens and microseconds with each arm.
    own: Vec<(f64, f64)>,
    arm: usize,
    rounds_left: usize,
    /// Whether this arm's is the round before as well. The first round after a change pays for the change, which whoever stays
    /// does not: a draft catches up, nothing was rolled out, cores change hands.
    settled: bool,
}

impl Arms {
    /// Arms with the pace that is expected of each, tokens a microsecond.
    pub(crate) fn new(arms: Vec<(Settings, f64)>) -> Self {
        let paces: Vec<Pace> = arms.iter().map(|(_, rate)| Pace::guessed(*rate)).collect();
        Self { settings: arms.into_iter().map(|(settings, _)| settings).collect(), paces: [paces.clone(), paces] }
    }

    /// Begins a sequence; `None` if there is nothing to choose from.
    pub(crate) fn begin(&self, greedy: bool) -> Option<Choice> {
        let own = vec![(0.0, 0.0); self.settings.len()];
        let mut choice = Choice { greedy, own, arm: 0, rounds_left: 0, settled: true };
        choice.arm = self.best(&choice)?;
        choice.rounds_left = BOUT;
        Some(choice)
    }

    /// The settings chosen.
    pub(crate) fn settings(&self, choice: &Choice) -> &Settings {
        &self.settings[choice.arm]
    }

    /// Takes in a round and chooses the next one's arm.
    pub(crate) fn learn(&mut self, choice: &mut Choice, tokens: usize, us: f64) {
        if choice.settled {
            self.paces[usize::from(choice.greedy)][choice.arm].add(tokens, us);
            let own = &mut choice.own[choice.arm];
            *own = (own.0 + tokens as f64, own.1 + us);
        }
        choice.settled = true;
        choice.rounds_left -= 1;
        if choice.rounds_left == 0 {
            choice.rounds_left = BOUT;
            let arm = self.best(choice).unwrap_or(choice.arm);
            choice.settled = arm == choice.arm;
            choice.arm = arm;
        }
    }

    /// Takes in what rounds of another method would have come to in this sequence: `imagined` gives tokens and microseconds,
    /// for settings where that is known.
    pub(crate) fn imagine(&self, choice: &mut Choice, imagined: impl Fn(&Settings) -> Option<(usize, f64)>) {
        for (arm, settings) in self.settings.iter().enumerate().filter(|(arm, _)| *arm != choice.arm) {
            if let Some((tokens, us)) = imagined(settings) {
                let own = &mut choice.own[arm];
                *own = (own.0 + tokens as f64, own.1 + us);
            }
        }
    }

    /// Takes in a round of a sequence whose request chose the settings itself, if they are among the arms.
    pub(crate) fn hear(&mut self, settings: &Settings, greedy: bool, tokens: usize, us: f64) {
        if let Some(arm) = self.settings.iter().position(|known| known == settings) {
            self.paces[usize::from(greedy)][arm].add(tokens, us);
        }
    }

    fn best(&self, choice: &Choice) -> Option<usize> {
        let paces = &self.paces[usize::from(choice.greedy)];
        let promise = |arm: usize| {
            let (pace, own) = (paces[arm], choice.own[arm]);
            let rate = (own.0 + TRUST) / (own.1 + TRUST / pace.rate());
            rate * (1.0 + CURIOSITY / pace.rounds.sqrt())
        };
        (0..paces.len()).max_by(|a, b| promise(*a).total_cmp(&promise(*b)).then(b.cmp(a)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Method;

    fn arms(rates: &[f64]) -> Arms {
        let settings = |i: usize| Settings { window: i, ..Settings::of(Method::Sps, 8) };
        Arms::new(rates.iter().enumerate().map(|(i, rate)| (settings(i), *rate)).collect())
    }

    /// Sequences of 60 rounds; time lost against the best arm, as a part of its time.
    fn regret(arms: &mut Arms, true_rates: &[f64], sequences: usize) -> f64 {
        let (mut tokens, mut us) = (0.0, 0.0);
        for sequence in 0..sequences {
            let mut choice = arms.begin(true).expect("there are arms");
            for round in 0..60 {
                let rate = true_rates[arms.settings(&choice).window];
                // Rounds differ.
                let committed = 1 + (sequence * 7 + round * 3) % 3;
                let time = committed as f64 / rate;
                tokens += committed as f64;
                us += time;
                arms.learn(&mut choice, committed, time);
            }
        }
        let best = true_rates.iter().copied().fold(0.0, f64::max);
        us / (tokens / best) - 1.0
    }

    #[test]
    fn the_best_arm_is_found_and_kept_whatever_was_guessed() {
        let truth = [0.0010, 0.0012, 0.0018, 0.0006];
        for guesses in [truth, [0.001; 4], [0.0018, 0.0012, 0.0010, 0.003]] {
            let mut arms = arms(&guesses);
            regret(&mut arms, &truth, 10);
            let later = regret(&mut arms, &truth, 40);
            assert!(later < 0.02, "{later} lost with guesses {guesses:?}");
        }
    }

    #[test]
    fn what_a_change_costs_is_not_held_against_who_stays() {
        let (truth, mut arms) = ([0.0010, 0.0012], arms(&[0.0012, 0.0010]));
        let mut chosen = [0, 0];
        for _ in 0..40 {
            let (mut choice, mut before) = (arms.begin(true).expect("arms"), 0);
            for _ in 0..60 {
                let arm = arms.settings(&choice).window;
                chosen[arm] += 1;
                // The better one takes three times as long where the round before was another's.
                let time = 2.0 / truth[arm] * if arm == 1 && before != 1 { 3.0 } else { 1.0 };
                before = arm;
                arms.learn(&mut choice, 2, time);
            }
        }
        assert!(chosen[1] > 10 * chosen[0], "{chosen:?}");
    }

    #[test]
    fn a_change_is_followed() {
        let mut arms = arms(&[0.001, 0.001]);
        regret(&mut arms, &[0.002, 0.001], 20);
        regret(&mut arms, &[0.0005, 0.001], 20);
        assert!(regret(&mut arms, &[0.0005, 0.001], 20) < 0.03);
    }

    #[test]
    fn what_would_have_been_quicker_is_taken() {
        let mut arms = arms(&[0.0015, 0.001]);
        regret(&mut arms, &[0.0015, 0.001], 20);
        let mut choice = arms.begin(true).expect("arms");
        for _ in 0..2 * BOUT {
            arms.imagine(&mut choice, |settings| (settings.window == 1).then_some((5, 5.0 / 0.004)));
            let rate = if arms.settings(&choice).window == 0 { 0.0015 } else { 0.004 };
            arms.learn(&mut choice, 2, 2.0 / rate);
        }
        assert_eq!(arms.settings(&choice).window, 1);
    }

    #[test]
    fn requests_that_choose_for_themselves_teach_the_others() {
        let mut arms = arms(&[0.002, 0.001]);
        let taught = *arms.settings(&arms.begin(true).expect("arms"));
        for _ in 0..40 {
            arms.hear(&taught, true, 2, 2.0 / 0.0003);
            arms.hear(&Settings { window: 9, ..taught }, true, 2, 0.1);
        }
        assert_ne!(arms.settings(&arms.begin(true).expect("arms")), &taught);
        assert_eq!(arms.settings(&arms.begin(false).expect("arms")), &taught, "sampling is another matter");
    }

    #[test]
    fn a_sequence_that_differs_is_served_otherwise() {
        let mut arms = arms(&[0.001, 0.001]);
        regret(&mut arms, &[0.0015, 0.001], 20);
        let mut choice = arms.begin(true).expect("arms");
        for _ in 0..40 {
            let rate = if arms.settings(&choice).window == 0 { 0.0003 } else { 0.001 };
            arms.learn(&mut choice, 2, 2.0 / rate);
        }
        assert_eq!(arms.settings(&choice).window, 1);
        assert_eq!(arms.settings(&arms.begin(true).expect("arms")).window, 0, "the others are not swayed");
    }
}
