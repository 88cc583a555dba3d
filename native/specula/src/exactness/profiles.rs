//! Profiles of parameters: together they set every parameter that a request has at least once.

use anyhow::{Context, Result};
use serde_json::json;
use specula_decoding::TokenId;
use specula_engine::{Engine, LogProbsSpec, OutputFormat, PluginSpec, RequestSpec, SettingsSpec};

use super::told::generate;

/// A way to set a request's parameters.
pub(crate) struct Profile {
    pub(crate) name: &'static str,
    set: fn(&Scene<'_>, &mut RequestSpec) -> Result<()>,
}

/// What a profile may look at.
pub(crate) struct Scene<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) page: usize,
    /// Tokens to fill prompts with.
    pub(crate) words: &'a [TokenId],
}

pub(crate) const PROFILES: &[Profile] = &[
    Profile { name: "plain", set: |_, _| Ok(()) },
    Profile { name: "truncation", set: truncation },
    Profile { name: "penalties", set: penalties },
    Profile { name: "logit-bias", set: logit_bias },
    Profile { name: "n-3", set: |_, _| Ok(()) },
    Profile { name: "logprobs", set: |_, spec| logprobs(spec, 5, false) },
    Profile { name: "logprobs-processed", set: logprobs_processed },
    Profile { name: "stop-straddling", set: stop_straddling },
    Profile { name: "stop-16", set: stop_16 },
    Profile { name: "min-tokens", set: min_tokens },
    Profile { name: "ignore-eos", set: ignore_eos },
    Profile { name: "echo", set: echo },
    Profile { name: "end-in-window", set: end_in_window },
    Profile { name: "context-end", set: context_end },
    Profile { name: "sampling-plugin", set: |_, spec| plugin(spec, "min-p", json!({"min_p": 0.1})) },
    Profile { name: "stopping-plugin", set: stopping_plugin },
    Profile { name: "rules-in-order", set: rules_in_order },
    Profile { name: "regex", set: |_, spec| plugin(spec, "regex", json!({"pattern": "([a-z ]+[.,]\n?)+"})) },
    Profile { name: "criteria", set: criteria },
    Profile { name: "format", set: format },
    Profile { name: "deterministic", set: deterministic },
    Profile { name: "everything", set: everything },
];

impl Profile {
    pub(crate) fn named(name: &str) -> Result<&'static Self> {
        let known = || PROFILES.iter().map(|profile| profile.name).collect::<Vec<_>>().join(", ");
        PROFILES.iter().find(|p| p.name == name).with_context(|| format!("--profile: no `{name}`; known: {}", known()))
    }

    /// The request, or all its choices.
    pub(crate) fn specs(&self, scene: &Scene<'_>, mut spec: RequestSpec) -> Result<Vec<RequestSpec>> {
        (self.set)(scene, &mut spec)?;
        let choices = if self.name == "n-3" { 3 } else { 1 };
        Ok((0..choices).map(|choice| RequestSpec { choice, ..spec.clone() }).collect())
    }
}

/// The settings of the target alone.
pub(crate) fn plain_decoding() -> SettingsSpec {
    SettingsSpec { method: Some("none".into()), ..SettingsSpec::default() }
}

fn truncation(_: &Scene<'_>, spec: &mut RequestSpec) -> Result<()> {
    (spec.top_k, spec.min_p) = (Some(40), Some(0.02));
    spec.top_p = spec.top_p.or(Some(0.95));
    Ok(())
}

fn penalties(_: &Scene<'_>, spec: &mut RequestSpec) -> Result<()> {
    spec.repetition_penalty = Some(1.2);
    (spec.presence_penalty, spec.frequency_penalty) = (Some(0.4), Some(-0.3));
    Ok(())
}

/// Raises some tokens of the prompt, and forbids one that the answer would have.
fn logit_bias(scene: &Scene<'_>, spec: &mut RequestSpec) -> Result<()> {
    let would = generate(scene.engine, &RequestSpec { speculation: plain_decoding(), ..spec.clone() })?;
    spec.logit_bias = spec.prompt.iter().take(4).map(|&token| (u64::from(token), 1.5)).collect();
    if let Some(&token) = would.tokens.first() {
        spec.logit_bias.retain(|&(id, _)| id != u64::from(token));
        spec.logit_bias.push((u64::from(token), -100.0));
    }
    spec.logit_bias.sort_by_key(|&(id, _)| id);
    spec.logit_bias.dedup_by_key(|&mut (id, _)| id);
    Ok(())
}

fn logprobs(spec: &mut RequestSpec, top: u64, processed: bool) -> Result<()> {
    spec.logprobs = Some(LogProbsSpec { top, processed });
    Ok(())
}

fn logprobs_processed(_: &Scene<'_>, spec: &mut RequestSpec) -> Result<()> {
    spec.top_k = Some(20);
    logprobs(spec, 20, true)
}

/// Stops at a string that begins in one token of the answer and ends in the next.
fn stop_straddling(scene: &Scene<'_>, spec: &mut RequestSpec) -> Result<()> {
    let would = generate(scene.engine, &RequestSpec { speculation: plain_decoding(), ..spec.clone() })?;
    let pairs: Vec<_> = would.texts.windows(2).filter(|two| two.iter().all(|text| !text.is_empty())).collect();
    let pair = pairs.get((pairs.len() / 3 + scene.page % 5).min(pairs.len().saturating_sub(1)));
    let stop = pair.and_then(|two| Some(two[0].chars().next_back()?.to_string() + &two[1].chars().next()?.to_string()));
    spec.stop = vec![stop.unwrap_or_else(|| ". ".to_owned())];
    Ok(())
}

/// As many stop strings as there may be, the last of them a piece of the answer over three tokens.
fn stop_16(scene: &Scene<'_>, spec: &mut RequestSpec) -> Result<()> {
    let would = generate(scene.engine, &RequestSpec { speculation: plain_decoding(), ..spec.clone() })?;
    let piece: String = would.texts.iter().skip(would.texts.len() / 2).take(3).map(String::as_str).collect();
    spec.stop = (0..15).map(|i| format!("{}never said", "e ".repeat(i))).collect();
    spec.stop.push(if piece.is_empty() { "the".to_owned() } else { piece });
    Ok(())
}

fn min_tokens(scene: &Scene<'_>, spec: &mut RequestSpec) -> Result<()> {
    spec.min_tokens = Some(spec.max_tokens.unwrap_or(0) / 2 + scene.page as u64 % 5);
    spec.stop = vec!["e".to_owned(), " ".to_owned()];
    Ok(())
}

fn ignore_eos(_: &Scene<'_>, spec: &mut RequestSpec) -> Result<()> {
    spec.ignore_eos = true;
    Ok(())
}

fn echo(_: &Scene<'_>, spec: &mut RequestSpec) -> Result<()> {
    spec.echo = true;
    logprobs(spec, 2, false)
}

fn end_in_window(scene: &Scene<'_>, spec: &mut RequestSpec) -> Result<()> {
    spec.max_tokens = Some(1 + scene.page as u64 % 13);
    Ok(())
}

/// A prompt that leaves a few tokens of the context.
fn context_end(scene: &Scene<'_>, spec: &mut RequestSpec) -> Result<()> {
    let length = scene.engine.facts().context_length - 1 - scene.page % 20;
    spec.prompt = scene.words.iter().copied().cycle().skip(scene.page).take(length).collect();
    // More than can follow, so that the context is what ends the text.
    spec.max_tokens = Some(64);
    ignore_eos(scene, spec)
}

fn plugin(spec: &mut RequestSpec, name: &str, config: serde_json::Value) -> Result<()> {
    spec.plugins.push(PluginSpec { name: name.to_owned(), config, on_failure: None });
    Ok(())
}

/// Brackets are made likely, for no pair need speak JSON of itself.
fn stopping_plugin(scene: &Scene<'_>, spec: &mut RequestSpec) -> Result<()> {
    let vocabulary = 0..scene.engine.facts().vocab_size as TokenId;
    let bytes = scene.engine.token_bytes();
    let brackets = vocabulary.filter(|&id| matches!(bytes.get(id), b"{" | b"}" | b"[" | b"]"));
    spec.logit_bias = brackets.map(|id| (u64::from(id), 8.0)).collect();
    plugin(spec, "balanced-json", json!({}))
}

/// Three rules, one after the other.
fn rules_in_order(_: &Scene<'_>, spec: &mut RequestSpec) -> Result<()> {
    plugin(spec, "dry", json!({"allowed": 1}))?;
    plugin(spec, "watermark", json!({"key": 7}))?;
    plugin(spec, "top-n-sigma", json!({"n": 1.5}))
}

fn criteria(_: &Scene<'_>, spec: &mut RequestSpec) -> Result<()> {
    plugin(spec, "repetition", json!({"times": 2, "tokens": 6}))?;
    plugin(spec, "budget", json!({"tokens": 12, "grace": 30}))
}

fn format(_: &Scene<'_>, spec: &mut RequestSpec) -> Result<()> {
    spec.format = Some(OutputFormat::JsonSchema(json!({
        "type": "object",
        "properties": {
            "command": {"type": "string", "maxLength": 20},
            "safe": {"type": "boolean"},
            "times": {"type": "array", "items": {"type": "integer"}, "maxItems": 3}
        },
        "required": ["command", "safe", "times"],
        "additionalProperties": false
    })));
    Ok(())
}

fn deterministic(_: &Scene<'_>, spec: &mut RequestSpec) -> Result<()> {
    spec.deterministic = true;
    Ok(())
}

fn everything(scene: &Scene<'_>, spec: &mut RequestSpec) -> Result<()> {
    truncation(scene, spec)?;
    penalties(scene, spec)?;
    logit_bias(scene, spec)?;
    logprobs_processed(scene, spec)?;
    min_tokens(scene, spec)?;
    spec.echo = true;
    spec.choice = 1;
    plugin(spec, "min-p", json!({"min_p": 0.02}))?;
    plugin(spec, "balanced-json", json!({}))
}
