//! Translates between the engine's types and the wire's, both ways. Knows no HTTP: the command line's JSON is made here
//! too.

mod asked;

use specula_decoding::FinishReason;
use specula_decoding::branches::Source;
use specula_engine::{
    Event, Failure, Finished, LaneKind, Method, ModelFacts, Report, Round, Settings, Started, Totals, allocation_name,
};
use specula_policies::{CallCost, Card, Facts, Stamp, UploadCard, VersionCard};
use specula_protocol as protocol;
use specula_protocol::ServerFrame;

use crate::errors;

pub(crate) use asked::{choices_per_prompt, encode_messages, invalid, token_ids};
pub use asked::{request_specs, spec_without_prompt};

/// The frame that tells a socket about an event; none for the echo of a prompt, which a socket cannot ask for.
pub fn frame(id: &str, event: Event) -> Option<ServerFrame> {
    Some(match event {
        Event::Prompt(_) => return None,
        Event::Started(started) => started_frame(id, &started),
        Event::Round(round) => round_frame(id, round),
        Event::Finished(finished) => ServerFrame::Finished {
            id: id.to_owned(),
            reason: finish_reason(finished.reason.as_ref()).to_owned(),
            usage: usage(&finished),
            specula: Box::new(report(&finished)),
        },
        Event::Failed(failure) => ServerFrame::Error { id: Some(id.to_owned()), error: failure_body(failure) },
    })
}

fn started_frame(id: &str, started: &Started) -> ServerFrame {
    ServerFrame::Started {
        id: id.to_owned(),
        seed: started.seed,
        prompt_tokens: started.prompt_tokens as u64,
        method: started.settings.method.name().to_owned(),
    }
}

fn round_frame(id: &str, round: Round) -> ServerFrame {
    let token = |t: specula_engine::Token| protocol::RoundToken { id: t.id, text: t.text, origin: origin(t.origin) };
    let span = |s: &specula_engine::Span| {
        Some(protocol::LaneSpan { lane: lane(s.kind)?, start_us: s.start_us, end_us: s.end_us })
    };
    ServerFrame::Round {
        id: id.to_owned(),
        lanes: round.lanes.iter().filter_map(span).collect(),
        tokens: round.tokens.into_iter().map(token).collect(),
        window: round.window as u64,
        accepted: round.accepted as u64,
        hit: round.hit,
        source: round.source.map(source),
    }
}

/// A failure in OpenAI's error shape.
pub fn failure_body(failure: Failure) -> protocol::ApiError {
    errors::Fault::Failed(failure).body()
}

/// Why the text ended, as the wire says it: `stop`, `length` or, for `None`, `cancelled`.
pub fn finish_reason(reason: Option<&FinishReason>) -> &'static str {
    match reason {
        Some(FinishReason::EndToken | FinishReason::StopString(_) | FinishReason::Plugin { .. }) => "stop",
        Some(FinishReason::MaxTokens | FinishReason::ContextEnd) => "length",
        None => "cancelled",
    }
}

/// Token counts.
pub fn usage(finished: &Finished) -> protocol::Usage {
    let (prompt_tokens, completion_tokens) = (finished.prompt_tokens as u64, finished.completion_tokens as u64);
    protocol::Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
}

/// The extension `specula`.
pub fn report(finished: &Finished) -> protocol::Report {
    let Report { totals, settings, chosen, seed, row_invariant, .. } = &finished.report;
    protocol::Report {
        lossless: finished.report.lossless(),
        row_invariant: *row_invariant,
        settings: effective_settings(settings),
        chosen: chosen.iter().map(|(method, rounds)| (method.name().to_owned(), *rounds)).collect(),
        seed: *seed,
        prefill_ms: ms(finished.report.prefill_us),
        first_token_ms: ms(finished.report.first_token_us),
        total_ms: ms(finished.report.total_us),
        stop: match &finished.reason {
            Some(FinishReason::Plugin { name, reason }) => {
                Some(protocol::PluginStop { plugin: name.clone(), reason: reason.clone() })
            }
            _ => None,
        },
        plugins: finished.report.plugins.iter().map(plugin_cost).collect(),
        warnings: finished.report.warnings.iter().map(warning).collect(),
        ..report_of_totals(totals)
    }
}

/// The part of a report that is sums over rounds; the rest is left empty.
fn report_of_totals(totals: &Totals) -> protocol::Report {
    let share = |o: &specula_engine::Offered| o.accepted as f64 / o.rounds.max(1) as f64;
    protocol::Report {
        deviations: totals.deviations,
        rounds: totals.rounds,
        drafted: totals.drafted,
        accepted: totals.accepted,
        // A text that ended before its first round was not slowed by speculation: as plain decoding.
        acceptance_length: totals.acceptance_length().unwrap_or(1.0),
        accepted_by_position: totals.by_position.iter().map(share).collect(),
        hits: totals.hits,
        misses: totals.misses,
        hits_from_draft: totals.hits_from_draft,
        hits_from_exit: totals.hits_from_exit,
        hits_by_depth: totals.hits_by_depth.clone(),
        hits_from_exit_by_depth: totals.hits_from_exit_by_depth.clone(),
        coverage: totals.coverage(),
        branches_expanded: totals.branches_expanded,
        branches_used: totals.branches_used,
        draft_steps: totals.draft_steps,
        exposed_draft_ms: ms(totals.exposed_draft_us),
        hidden_draft_ms: ms(totals.hidden_draft_us),
        bubble_ms: ms(totals.bubble_us),
        rendezvous_ms: ms(totals.rendezvous_us),
        target_prefix_ms: ms(totals.target_prefix_us),
        exit_ms: ms(totals.exit_us),
        target_suffix_ms: ms(totals.target_suffix_us),
        accept_ms: ms(totals.accept_us),
        ..protocol::Report::default()
    }
}

/// Settings in force; what a method does not have is left out.
pub fn effective_settings(settings: &Settings) -> protocol::EffectiveSettings {
    let exits = settings.method == Method::Mirror;
    let rolls_out = settings.method.rolls_out();
    let branches = rolls_out || settings.method == Method::Recycling;
    protocol::EffectiveSettings {
        method: settings.method.name().to_owned(),
        window: settings.window as u64,
        exit_layer: exits.then_some(settings.exit_layer as u64),
        exit_top: rolls_out.then_some(settings.exit_top as u64),
        branch_budget: branches.then_some(settings.branch_budget as u64),
        roots: exits.then(|| settings.roots.name().to_owned()),
        allocation: rolls_out.then(|| allocation_name(settings.allocation).to_owned()),
        streams: (settings.streams > 0).then_some(settings.streams as u64),
        look_ahead: (settings.streams > 0).then(|| settings.look_ahead.name().to_owned()),
        deterministic: settings.deterministic,
    }
}

/// The served model and what may be asked of it. `created` is in seconds since the epoch.
pub fn model_card(facts: &ModelFacts, created: u64) -> protocol::ModelCard {
    protocol::ModelCard {
        id: facts.name.clone(),
        object: "model".into(),
        created,
        owned_by: "specula".into(),
        context_length: facts.context_length as u64,
        vocab_size: facts.vocab_size as u64,
        layers: facts.layers as u64,
        row_invariant: facts.row_invariant,
        draft: facts.draft.clone(),
        draft_refused: facts.draft_refused.clone(),
        cannot_speculate: facts.cannot_speculate.clone(),
        methods: facts.methods.iter().map(|s| s.method.name().to_owned()).collect(),
        defaults: facts.methods.iter().map(effective_settings).collect(),
        default_method: facts.default_method.name().to_owned(),
        max_window: facts.max_window as u64,
    }
}

/// A plugin.
pub fn plugin_card(card: Card) -> protocol::PluginCard {
    let Card { name, kinds, digest, bytes, description, upload } = card;
    let bare = protocol::PluginCard {
        name,
        object: "plugin".into(),
        kinds: kinds.iter().map(|kind| kind.as_str().to_owned()).collect(),
        digest,
        bytes,
        description,
        owner: None,
        visibility: None,
        limits: None,
        versions: Vec::new(),
        report: None,
    };
    let Some(UploadCard { owner, visibility, versions, class, facts }) = upload else { return bare };
    let version =
        |v: VersionCard| protocol::PluginVersion { version: v.number, digest: v.digest, created: v.uploaded_s };
    protocol::PluginCard {
        owner: Some(owner),
        visibility: Some(visibility.as_str().to_owned()),
        limits: Some(class.as_str().to_owned()),
        versions: versions.into_iter().map(version).collect(),
        report: Some(plugin_report(facts)),
        ..bare
    }
}

/// What the examination of a plugin found.
pub fn plugin_report(facts: Facts) -> protocol::PluginReport {
    let cost = |cost: CallCost| protocol::PluginCallCost {
        kind: cost.kind.as_str().to_owned(),
        function: cost.function,
        calls: cost.calls,
        fuel: cost.fuel,
        fuel_max: cost.fuel_max,
        micros: cost.micros,
    };
    let stamp = |stamp: Stamp| protocol::PluginStamp {
        stamp: if stamp.exact { "exact" } else { "lossy" }.to_owned(),
        windows: stamp.windows,
        tokens: stamp.tokens,
        deviation: stamp.deviation,
        total_variation: stamp.total_variation,
    };
    protocol::PluginReport {
        interfaces: facts.interfaces,
        code_bytes: facts.code_bytes,
        compile_ms: facts.compile_ms,
        costs: facts.costs.into_iter().map(cost).collect(),
        stamp: facts.stamp.map(stamp),
    }
}

/// Where a token came from.
pub fn origin(origin: specula_engine::Origin) -> protocol::Origin {
    match origin {
        specula_engine::Origin::Plain => protocol::Origin::Plain,
        specula_engine::Origin::Draft => protocol::Origin::Draft,
        specula_engine::Origin::Mirror => protocol::Origin::Mirror,
        specula_engine::Origin::Correction => protocol::Origin::Correction,
        specula_engine::Origin::Bonus => protocol::Origin::Bonus,
    }
}

/// Who guesses outcomes.
pub fn source(source: Source) -> protocol::Source {
    match source {
        Source::Draft => protocol::Source::Draft,
        Source::Exit => protocol::Source::Exit,
    }
}

/// Which device, doing what in a round; `None` for what is no stretch of its own there.
pub fn lane(kind: LaneKind) -> Option<protocol::Lane> {
    Some(match kind {
        LaneKind::Prefill | LaneKind::Policy => return None,
        LaneKind::TargetPrefix => protocol::Lane::TargetPrefix,
        LaneKind::Exit => protocol::Lane::Exit,
        LaneKind::TargetSuffix => protocol::Lane::TargetSuffix,
        LaneKind::Accept => protocol::Lane::Accept,
        LaneKind::DraftSerial => protocol::Lane::DraftSerial,
        LaneKind::DraftRollout => protocol::Lane::DraftRollout,
    })
}

fn plugin_cost(cost: &specula_engine::PluginCost) -> protocol::PluginCost {
    protocol::PluginCost {
        name: cost.name.clone(),
        kind: cost.kind.to_owned(),
        calls: cost.calls,
        fuel: cost.fuel,
        micros: cost.micros,
        failures: cost.failures,
    }
}

fn warning(warning: &specula_engine::Warning) -> protocol::Warning {
    protocol::Warning {
        plugin: warning.plugin.clone(),
        code: warning.code.clone(),
        message: warning.message.clone(),
        count: warning.count,
    }
}

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::double;

    #[test]
    fn reasons_follow_openai() {
        let plugin = FinishReason::Plugin { name: "p".into(), reason: "r".into() };
        assert_eq!(finish_reason(Some(&FinishReason::EndToken)), "stop");
        assert_eq!(finish_reason(Some(&FinishReason::StopString("x".into()))), "stop");
        assert_eq!(finish_reason(Some(&plugin)), "stop");
        assert_eq!(finish_reason(Some(&FinishReason::MaxTokens)), "length");
        assert_eq!(finish_reason(Some(&FinishReason::ContextEnd)), "length");
        assert_eq!(finish_reason(None), "cancelled");
    }

    #[test]
    fn a_report_says_what_the_totals_say() {
        let mut finished = double::finished(3, 9);
        finished.reason = Some(FinishReason::Plugin { name: "json".into(), reason: "closed".into() });
        finished.report.totals = Totals {
            rounds: 4,
            accepted: 6,
            deviations: 1,
            by_position: vec![
                specula_engine::Offered { rounds: 4, accepted: 4 },
                specula_engine::Offered { rounds: 4, accepted: 2 },
            ],
            exits: 4,
            covered: 3,
            exposed_draft_us: 1500,
            ..Totals::default()
        };
        let report = report(&finished);
        assert!(!report.lossless);
        assert_eq!(report.acceptance_length, 2.5);
        assert_eq!(report.accepted_by_position, [1.0, 0.5]);
        assert_eq!(report.coverage, Some(0.75));
        assert_eq!(report.exposed_draft_ms, 1.5);
        let stop = report.stop.expect("a plugin ended the text");
        assert_eq!((stop.plugin.as_str(), stop.reason.as_str()), ("json", "closed"));
        assert_eq!(usage(&finished), protocol::Usage { prompt_tokens: 3, completion_tokens: 9, total_tokens: 12 });
    }

    #[test]
    fn settings_a_method_lacks_are_left_out() {
        let mut settings = double::settings();
        settings.method = specula_engine::Method::Sps;
        let sps = serde_json::to_value(effective_settings(&settings)).expect("serialises");
        assert_eq!(sps, serde_json::json!({"method": "sps", "window": 7, "deterministic": false}));
        settings.method = specula_engine::Method::Mirror;
        let mirror = effective_settings(&settings);
        assert_eq!((mirror.exit_layer, mirror.roots.as_deref()), (Some(4), Some("both")));
    }
}
