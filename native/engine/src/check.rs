//! From what was asked to what can be done: every bound in one place.

use specula_decoding::{Penalties, Sampling, TokenId};

use crate::engine::ModelFacts;
use crate::request::{LogProbsSpec, RequestError, RequestSpec};
use crate::settings::{LookAhead, Method, Roots, Settings, SettingsSpec, allocation_from_name};

/// Most stop strings of a request.
const STOP_STRINGS: usize = 16;
/// Longest stop string, in bytes.
const STOP_BYTES: usize = 1024;
/// Largest seed: integers that JSON clients can hold.
const MAX_SEED: u64 = (1 << 53) - 1;
/// Largest κ.
const MAX_EXIT_TOP: u64 = 32;
/// Largest B.
const MAX_BRANCHES: u64 = 64;
/// Most of the most likely tokens that are told beside a token.
const TOP_LOGPROBS: u64 = 20;
/// Most plugins of a request.
pub(crate) const MAX_PLUGINS: usize = 8;

/// Sampling parameters, checked; end conditions (`min_tokens` and what it forbids) are left to the caller. `seed` is what to
/// use if none was asked for.
pub(crate) fn sampling(spec: &RequestSpec, facts: &ModelFacts, seed: u64) -> Result<Sampling, RequestError> {
    let logit_bias = spec.logit_bias.iter().map(|&(id, bias)| logit_bias(id, bias, facts)).collect::<Result<_, _>>()?;
    let top_p = within("top_p", spec.top_p, 1.0, (0.0, 1.0))?;
    if top_p <= 0.0 {
        return Err(out_of_bounds("top_p", "above 0 and at most 1", top_p));
    }
    let repetition = within("repetition_penalty", spec.repetition_penalty, 1.0, (0.0, 10.0))?;
    if repetition <= 0.0 {
        return Err(out_of_bounds("repetition_penalty", "above 0 and at most 10", repetition));
    }
    if let Some(seed) = spec.seed.filter(|s| *s > MAX_SEED) {
        return Err(out_of_bounds("seed", "0..=9007199254740991", seed));
    }
    Ok(Sampling {
        temperature: within("temperature", spec.temperature, 1.0, (0.0, 2.0))?,
        top_k: usize::try_from(spec.top_k.unwrap_or(0)).unwrap_or(usize::MAX),
        top_p,
        min_p: within("min_p", spec.min_p, 0.0, (0.0, 1.0))?,
        seed: spec.seed.unwrap_or(seed),
        choice: spec.choice,
        logit_bias,
        penalties: Penalties {
            repetition,
            presence: within("presence_penalty", spec.presence_penalty, 0.0, (-2.0, 2.0))?,
            frequency: within("frequency_penalty", spec.frequency_penalty, 0.0, (-2.0, 2.0))?,
        },
        ..Sampling::default()
    })
}

fn logit_bias(id: u64, bias: f64, facts: &ModelFacts) -> Result<(TokenId, f32), RequestError> {
    if id >= facts.vocab_size as u64 {
        return Err(out_of_bounds("logit_bias", &format!("token ids 0..{}", facts.vocab_size), id));
    }
    if !(-100.0..=100.0).contains(&bias) {
        return Err(out_of_bounds("logit_bias", "biases −100..=100", bias));
    }
    // OpenAI's −100 means "never".
    let bias = if bias <= -100.0 { f32::NEG_INFINITY } else { bias as f32 };
    Ok((id as TokenId, bias))
}

/// Stop strings, checked.
pub(crate) fn stop_strings(stop: &[String]) -> Result<Vec<String>, RequestError> {
    if stop.len() > STOP_STRINGS {
        return Err(out_of_bounds("stop", "at most 16 strings", stop.len()));
    }
    if let Some(bad) = stop.iter().find(|s| s.is_empty() || s.len() > STOP_BYTES) {
        return Err(out_of_bounds("stop", "strings of 1..=1024 bytes", format!("one of {} bytes", bad.len())));
    }
    Ok(stop.to_vec())
}

/// How many tokens may be generated.
pub(crate) fn max_tokens(spec: &RequestSpec, facts: &ModelFacts) -> Result<usize, RequestError> {
    let prompt = spec.prompt.len();
    if prompt == 0 {
        return Err(RequestError {
            field: "prompt".into(),
            code: "empty_prompt",
            message: "the prompt has no tokens; send at least one character".into(),
        });
    }
    if prompt >= facts.context_length {
        return Err(RequestError {
            field: "prompt".into(),
            code: "context_length_exceeded",
            message: format!(
                "the prompt has {prompt} tokens; at most {} fit the context of {} with one token to answer: shorten it",
                facts.context_length - 1,
                facts.context_length
            ),
        });
    }
    match spec.max_tokens {
        Some(0) if !spec.echo => Err(out_of_bounds("max_tokens", "at least 1, or 0 with `echo`", 0)),
        Some(n) => Ok(usize::try_from(n).unwrap_or(usize::MAX)),
        None => Ok(facts.context_length - prompt),
    }
}

/// Tokens before which the text cannot end. `max_tokens` is what [`max_tokens`] gave.
pub(crate) fn min_tokens(spec: &RequestSpec, max_tokens: usize) -> Result<usize, RequestError> {
    match spec.min_tokens {
        Some(n) if n > max_tokens as u64 => Err(out_of_bounds("min_tokens", "at most `max_tokens`", n)),
        n => Ok(n.unwrap_or(0) as usize),
    }
}

/// Log-probabilities asked for, checked.
pub(crate) fn logprobs(spec: &RequestSpec) -> Result<Option<LogProbsSpec>, RequestError> {
    match spec.logprobs {
        Some(asked) if asked.top > TOP_LOGPROBS => {
            Err(out_of_bounds("top_logprobs", &format!("0..={TOP_LOGPROBS}"), asked.top))
        }
        asked => Ok(asked),
    }
}

/// Settings of speculation in force.
pub(crate) fn settings(spec: &SettingsSpec, deterministic: bool, facts: &ModelFacts) -> Result<Settings, RequestError> {
    let method = match &spec.method {
        None => facts.default_method,
        Some(name) => Method::from_name(name).ok_or_else(|| unknown_name("method", name, &method_names(facts)))?,
    };
    // Rollouts that do not depend on timing need a method that does not.
    let method = match method {
        Method::Auto if deterministic && spec.method.is_some() => return Err(RequestError {
            field: "speculation.method".into(),
            code: "not_deterministic",
            message:
                "`speculation.method`: `auto` chooses by what it measures, which `deterministic` forbids; name a method"
                    .into(),
        }),
        Method::Auto if deterministic && facts.draft.is_some() => Method::Mirror,
        Method::Auto if deterministic => Method::Lookup,
        method => method,
    };
    let Some(defaults) = facts.methods.iter().find(|s| s.method == method) else {
        let refused = unknown_name("method", method.name(), &method_names(facts));
        return Err(match &facts.cannot_speculate {
            Some(why) => RequestError { message: format!("{}: {why}", refused.message), ..refused },
            None => refused,
        });
    };
    let bounded = |field: &str, value: Option<u64>, default: usize, (low, high): (u64, u64)| match value {
        None => Ok(default),
        Some(v) if (low..=high).contains(&v) => Ok(v as usize),
        Some(v) => Err(out_of_bounds(&format!("speculation.{field}"), &format!("{low}..={high}"), v)),
    };
    if let Some(field) = foreign_setting(method, spec) {
        return Err(RequestError {
            field: format!("speculation.{field}"),
            code: "unused_setting",
            message: format!(
                "`speculation.{field}` has no meaning for the method `{}`; leave it out, or name a method that has it",
                method.name()
            ),
        });
    }
    let roots = match &spec.roots {
        None => defaults.roots,
        Some(name) => Roots::from_name(name).ok_or_else(|| unknown_name("roots", name, "draft, exit, both"))?,
    };
    let allocation = match &spec.allocation {
        None => defaults.allocation,
        Some(name) => allocation_from_name(name).ok_or_else(|| unknown_name("allocation", name, "scored, per-row"))?,
    };
    let look_ahead = match &spec.look_ahead {
        None => defaults.look_ahead,
        Some(name) => LookAhead::from_name(name).ok_or_else(|| unknown_name("look_ahead", name, "keep, correct"))?,
    };
    let window = bounded("window", spec.window, defaults.window, (0, facts.max_window as u64))?;
    Ok(Settings {
        method,
        // The method `none` is a window of 0, whatever was asked.
        window: if method == Method::None { 0 } else { window },
        exit_layer: bounded("exit_layer", spec.exit_layer, defaults.exit_layer, (1, facts.layers as u64 - 1))?,
        exit_top: bounded("exit_top", spec.exit_top, defaults.exit_top, (1, MAX_EXIT_TOP))?,
        branch_budget: bounded("branch_budget", spec.branch_budget, defaults.branch_budget, (1, MAX_BRANCHES))?,
        roots,
        allocation,
        streams: match spec.streams.filter(|n| *n > 0 && facts.draft_streams == 0) {
            Some(n) => return Err(out_of_bounds("speculation.streams", "0: the draft has no streams", n)),
            None => bounded("streams", spec.streams, defaults.streams, (0, facts.draft_streams as u64))?,
        },
        look_ahead,
        deterministic,
    })
}

/// A setting that was given although the method has no use for it. `none` is a window of 0, whatever else was asked.
fn foreign_setting(method: Method, spec: &SettingsSpec) -> Option<&'static str> {
    let (drafts, rolls_out) = (method.needs_draft(), method.rolls_out());
    let exits = method == Method::Mirror;
    let given = [
        ("exit_layer", spec.exit_layer.is_some() && !exits),
        ("exit_top", spec.exit_top.is_some() && !rolls_out),
        ("branch_budget", spec.branch_budget.is_some() && !rolls_out && method != Method::Recycling),
        ("roots", spec.roots.is_some() && !exits),
        ("allocation", spec.allocation.is_some() && !rolls_out),
        ("streams", spec.streams.is_some() && !drafts),
        ("look_ahead", spec.look_ahead.is_some() && !drafts),
    ];
    given.into_iter().find(|(_, foreign)| *foreign && method != Method::None).map(|(field, _)| field)
}

fn method_names(facts: &ModelFacts) -> String {
    let names: Vec<&str> = facts.methods.iter().map(|s| s.method.name()).collect();
    names.join(", ")
}

fn within(field: &str, value: Option<f64>, default: f32, (low, high): (f64, f64)) -> Result<f32, RequestError> {
    match value {
        None => Ok(default),
        Some(v) if (low..=high).contains(&v) => Ok(v as f32),
        Some(v) => Err(out_of_bounds(field, &format!("{low}..={high}"), v)),
    }
}

pub(crate) fn out_of_bounds(field: &str, bound: &str, value: impl std::fmt::Display) -> RequestError {
    RequestError {
        field: field.to_owned(),
        code: "out_of_bounds",
        message: format!("`{field}` must be {bound}; got {value}"),
    }
}

fn unknown_name(field: &str, name: &str, known: &str) -> RequestError {
    RequestError {
        field: format!("speculation.{field}"),
        code: "unknown_name",
        message: format!("`speculation.{field}` must be one of {known}; got `{name}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use specula_decoding::branches::Allocation;

    fn facts() -> ModelFacts {
        let settings = |method| Settings {
            method,
            window: 4,
            exit_layer: 4,
            exit_top: 4,
            branch_budget: 8,
            streams: 0,
            look_ahead: LookAhead::Correct,
            roots: Roots::Both,
            allocation: Allocation::Scored,
            deterministic: false,
        };
        ModelFacts {
            name: "m".into(),
            context_length: 100,
            vocab_size: 50,
            layers: 8,
            row_invariant: true,
            draft: None,
            draft_streams: 0,
            draft_refused: None,
            cannot_speculate: None,
            methods: vec![settings(Method::None), settings(Method::Lookup), settings(Method::Recycling)],
            default_method: Method::Lookup,
            max_window: 16,
        }
    }

    #[test]
    fn bounds_are_named_with_field_and_value() {
        type Change = fn(&mut RequestSpec);
        let spec = |f: Change| {
            let mut spec = RequestSpec { prompt: vec![1], ..RequestSpec::default() };
            f(&mut spec);
            spec
        };
        let cases: [(&str, Change, &str); 8] = [
            ("temperature", |s| s.temperature = Some(2.5), "2.5"),
            ("temperature", |s| s.temperature = Some(f64::NAN), "NaN"),
            ("top_p", |s| s.top_p = Some(0.0), "0"),
            ("min_p", |s| s.min_p = Some(-0.1), "-0.1"),
            ("seed", |s| s.seed = Some(1 << 53), "9007199254740992"),
            ("logit_bias", |s| s.logit_bias = vec![(50, 1.0)], "50"),
            ("logit_bias", |s| s.logit_bias = vec![(1, 101.0)], "101"),
            ("presence_penalty", |s| s.presence_penalty = Some(3.0), "3"),
        ];
        for (field, change, value) in cases {
            let error = sampling(&spec(change), &facts(), 1).expect_err(field);
            assert_eq!(error.field, field);
            assert!(error.message.contains(value), "{}", error.message);
        }
        assert_eq!(sampling(&spec(|_| ()), &facts(), 7).expect("defaults").seed, 7);
    }

    #[test]
    fn methods_that_are_not_on_offer_are_refused_with_those_that_are() {
        let asked = SettingsSpec { method: Some("mirror".into()), ..SettingsSpec::default() };
        let error = settings(&asked, false, &facts()).expect_err("no draft");
        assert!(error.message.contains("none, lookup"), "{}", error.message);
        let mut alone = ModelFacts { cannot_speculate: Some("its caches are whole".into()), ..facts() };
        alone.methods.truncate(1);
        let error = settings(&asked, false, &alone).expect_err("none alone");
        assert!(error.message.contains("one of none; got `mirror`: its caches are whole"), "{}", error.message);
        let asked = SettingsSpec { window: Some(17), ..SettingsSpec::default() };
        assert_eq!(settings(&asked, false, &facts()).expect_err("window").field, "speculation.window");
        assert_eq!(settings(&SettingsSpec::default(), false, &facts()).expect("defaults").method, Method::Lookup);
        let asked = SettingsSpec { exit_layer: Some(3), ..SettingsSpec::default() };
        let error = settings(&asked, false, &facts()).expect_err("look-up has no exit");
        assert_eq!((error.field.as_str(), error.code), ("speculation.exit_layer", "unused_setting"));
        let nodes = |method: &str| SettingsSpec {
            method: Some(method.into()),
            branch_budget: Some(9),
            ..SettingsSpec::default()
        };
        assert_eq!(settings(&nodes("recycling"), false, &facts()).expect("nodes").branch_budget, 9);
        assert!(settings(&nodes("none"), false, &facts()).is_ok(), "a window of 0 whatever was asked");
    }

    #[test]
    fn prompts_must_leave_room_for_an_answer() {
        let spec = |len| RequestSpec { prompt: vec![1; len], ..RequestSpec::default() };
        assert_eq!(max_tokens(&spec(99), &facts()), Ok(1));
        assert_eq!(max_tokens(&spec(100), &facts()).expect_err("full").code, "context_length_exceeded");
        assert_eq!(max_tokens(&spec(0), &facts()).expect_err("empty").code, "empty_prompt");
    }
}
