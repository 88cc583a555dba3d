//! What a request does about a plugin that fails: each of its plugins is wrapped in the policy asked for.

use std::sync::{Arc, Mutex, PoisonError};

use specula_decoding::{Acceptance, FinishReason, PolicyError, Row, Rule, Stop, Stopping, TokenId, WindowStats};

use crate::report::Warning;

/// What follows a plugin's failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Go on without its answer, with a warning: own draw for an acceptance policy, which is asked again in the next round;
    /// a sampling rule or stopping criterion is out for the rest of the request.
    Fallback,
    /// Fail the request.
    Fail,
    /// End the text where it failed, with a warning.
    Stop,
}

impl OnFailure {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fallback, Self::Fail, Self::Stop];

    /// Name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fallback => "fallback",
            Self::Fail => "fail",
            Self::Stop => "stop",
        }
    }

    /// The policy of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name() == name)
    }
}

/// The failures of one request's plugins that did not fail the request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failures(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    warnings: Vec<Warning>,
    end: Option<FinishReason>,
}

impl Failures {
    /// Each once for a plugin and code, with how often it happened.
    pub(crate) fn warnings(&self) -> Vec<Warning> {
        self.with(|state| state.warnings.clone())
    }

    /// Why the text is over, if a plugin failed whose policy is [`OnFailure::Stop`].
    pub(crate) fn end(&self) -> Option<FinishReason> {
        self.with(|state| state.end.clone())
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What `policy` makes of a failure: an error ends the request's rounds.
    fn settle(&self, policy: OnFailure, error: PolicyError) -> Result<(), PolicyError> {
        if policy == OnFailure::Fail {
            return Err(error);
        }
        self.with(|state| {
            let known = state.warnings.iter_mut().find(|w| w.plugin == error.policy && w.code == error.code);
            match known {
                Some(warning) => warning.count += 1,
                None => state.warnings.push(Warning {
                    plugin: error.policy.clone(),
                    code: error.code.clone(),
                    message: error.to_string(),
                    count: 1,
                }),
            }
            if policy == OnFailure::Stop {
                let reason = format!("policy-error: {}", error.code);
                state.end = Some(FinishReason::Plugin { name: error.policy.clone(), reason });
            }
        });
        if policy == OnFailure::Stop { Err(error) } else { Ok(()) }
    }
}

/// A plugin with its failure policy.
pub(crate) struct Guarded<T: ?Sized> {
    /// Gone once it failed and is not to be asked again.
    inner: Option<Box<T>>,
    policy: OnFailure,
    failures: Failures,
}

impl<T: ?Sized> Guarded<T> {
    pub(crate) fn new(inner: Box<T>, policy: OnFailure, failures: Failures) -> Self {
        Self { inner: Some(inner), policy, failures }
    }

    /// Calls the plugin unless it is out; `None` if there is no answer to be had.
    fn call<R>(&mut self, call: impl FnOnce(&mut T) -> Result<R, PolicyError>) -> Result<Option<R>, PolicyError> {
        let Some(inner) = &mut self.inner else { return Ok(None) };
        match call(inner) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) => self.failures.settle(self.policy, error).map(|()| None),
        }
    }
}

/// It stays: its host opens a fresh instance for the next round, and switches it off after a number of failures.
impl Acceptance for Guarded<dyn Acceptance> {
    fn judge(&mut self, window: &WindowStats) -> Result<usize, PolicyError> {
        Ok(self.call(|policy| policy.judge(window))?.unwrap_or_else(|| window.own_accepted()))
    }

    fn commit(&mut self, tokens: &[TokenId]) -> Result<(), PolicyError> {
        self.call(|policy| policy.commit(tokens)).map(drop)
    }
}

impl Rule for Guarded<dyn Rule> {
    fn apply(&mut self, path: &[TokenId], first: usize, rows: &mut [&mut Row]) -> Result<(), PolicyError> {
        let falls_back = self.policy == OnFailure::Fallback && self.inner.is_some();
        // A rule that fails half-way leaves rows half edited.
        let before: Vec<Row> = if falls_back { rows.iter().map(|row| (**row).clone()).collect() } else { Vec::new() };
        if self.call(|rule| rule.apply(path, first, rows))?.is_none() {
            self.inner = None;
            for (row, before) in rows.iter_mut().zip(before) {
                **row = before;
            }
        }
        Ok(())
    }

    fn commit(&mut self, tokens: &[TokenId]) -> Result<(), PolicyError> {
        if self.call(|rule| rule.commit(tokens))?.is_none() {
            self.inner = None;
        }
        Ok(())
    }
}

/// A stopping criterion under its name.
pub(crate) struct GuardedStopping {
    pub(crate) name: String,
    pub(crate) guarded: Guarded<dyn Stopping>,
}

impl Stopping for GuardedStopping {
    fn name(&self) -> &str {
        &self.name
    }

    fn observe(&mut self, tokens: &[TokenId], text: &str, ends: &[u32]) -> Result<Option<Stop>, PolicyError> {
        let answer = self.guarded.call(|criterion| criterion.observe(tokens, text, ends))?;
        if answer.is_none() {
            self.guarded.inner = None;
        }
        Ok(answer.flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Works `good` times, then fails for ever; edits rows before it does.
    struct Failing {
        good: usize,
    }

    impl Failing {
        fn step(&mut self) -> Result<(), PolicyError> {
            let left = self.good.checked_sub(1);
            self.good = left.unwrap_or(0);
            let error = || PolicyError { policy: "p".into(), code: "fuel".into(), message: "none left".into() };
            left.map(drop).ok_or_else(error)
        }
    }

    impl Acceptance for Failing {
        fn judge(&mut self, _window: &WindowStats) -> Result<usize, PolicyError> {
            self.step().map(|()| 0)
        }

        fn commit(&mut self, _tokens: &[TokenId]) -> Result<(), PolicyError> {
            self.step()
        }
    }

    impl Rule for Failing {
        fn apply(&mut self, _: &[TokenId], _: usize, rows: &mut [&mut Row]) -> Result<(), PolicyError> {
            rows.iter_mut().for_each(|row| row.forbid(0));
            self.step()
        }

        fn commit(&mut self, _tokens: &[TokenId]) -> Result<(), PolicyError> {
            self.step()
        }
    }

    impl Stopping for Failing {
        fn name(&self) -> &str {
            "p"
        }

        fn observe(&mut self, _: &[TokenId], _: &str, _: &[u32]) -> Result<Option<Stop>, PolicyError> {
            self.step().map(|()| Some(Stop { keep: 1, reason: String::new() }))
        }
    }

    fn end() -> Option<FinishReason> {
        Some(FinishReason::Plugin { name: "p".into(), reason: "policy-error: fuel".into() })
    }

    #[test]
    fn an_acceptance_policy_falls_back_to_own_draw_and_is_asked_again() {
        let mut window = WindowStats::default();
        window.push(&Row::new(&[1.0, 0.0]), 0, 0);
        let failures = Failures::default();
        let mut policy: Guarded<dyn Acceptance> =
            Guarded::new(Box::new(Failing { good: 1 }), OnFailure::Fallback, failures.clone());
        assert_eq!([policy.judge(&window), policy.judge(&window), policy.judge(&window)], [Ok(0), Ok(1), Ok(1)]);
        assert_eq!(failures.warnings().iter().map(|w| w.count).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_rule_that_falls_back_leaves_rows_as_they_were_and_is_out() {
        let failures = Failures::default();
        let mut rule: Guarded<dyn Rule> =
            Guarded::new(Box::new(Failing { good: 1 }), OnFailure::Fallback, failures.clone());
        let edit = |rule: &mut Guarded<dyn Rule>| {
            let mut row = Row::new(&[1.0, 2.0]);
            rule.apply(&[], 0, &mut [&mut row]).expect("it falls back");
            row.logits()[0]
        };
        assert_eq!([edit(&mut rule), edit(&mut rule), edit(&mut rule)], [f32::NEG_INFINITY, 1.0, 1.0]);
        assert_eq!(failures.warnings()[0].count, 1, "it was asked no more");
        assert_eq!(failures.end(), None);
    }

    #[test]
    fn stop_and_fail_end_the_rounds_and_only_stop_tells_an_end() {
        for (policy, want) in [(OnFailure::Stop, end()), (OnFailure::Fail, None)] {
            let failures = Failures::default();
            let mut rule: Guarded<dyn Rule> = Guarded::new(Box::new(Failing { good: 0 }), policy, failures.clone());
            assert!(rule.commit(&[1]).is_err());
            let guarded = Guarded::new(Box::new(Failing { good: 0 }) as Box<dyn Stopping>, policy, failures.clone());
            assert!(GuardedStopping { name: "p".into(), guarded }.observe(&[1], "", &[0]).is_err());
            assert_eq!(failures.end(), want);
        }
    }

    #[test]
    fn a_criterion_that_falls_back_never_stops_again() {
        let failing: Box<dyn Stopping> = Box::new(Failing { good: 1 });
        let guarded = Guarded::new(failing, OnFailure::Fallback, Failures::default());
        let mut criterion = GuardedStopping { name: "p".into(), guarded };
        let mut observe = || criterion.observe(&[1], "", &[0]).expect("it falls back").is_some();
        assert_eq!([observe(), observe(), observe()], [true, false, false]);
    }

    #[test]
    fn names_come_back() {
        assert!(OnFailure::ALL.into_iter().all(|policy| OnFailure::from_name(policy.name()) == Some(policy)));
        assert_eq!(OnFailure::from_name("retry"), None);
    }
}
