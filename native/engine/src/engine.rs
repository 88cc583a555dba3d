//! The handle that the rest of the process holds: facts, checks, admission.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Instant;

use specula_decoding::{EndConditions, Ends, ModelError, Rule, TokenBytes, TokenId};
use specula_grammar::{GrammarError, Grammars};
use specula_models::{
    ChatMessage, ChatTemplate, Cores, Latency, LoadedModel, Model, ModelThread, Resized, Simulated, Tokenizer,
    check_pair,
};
use specula_policies::{ModelInfo, Registry};
use tokio::sync::mpsc;

use crate::admission::{Place, Places};
use crate::auto::Arms;
use crate::calibration::{Costs, Coverage, Plan, TargetCosts, target_costs};
use crate::check;
use crate::draft_worker::{DraftWorker, ModelFactory};
use crate::event::Event;
use crate::learned::Learned;
use crate::plugins::Plugged;
use crate::report::Totals;
use crate::request::{OutputFormat, Request, RequestError, RequestSpec, Tenant};
use crate::sequence::Channel;
use crate::settings::{MAX_WINDOW, Method, Settings};
use crate::target_thread::{self, Admitted, TargetThread};

/// Rounds that a stream holds before its generation is parked.
const STREAM_ROUNDS: usize = 64;

/// What an engine serves and within which bounds.
pub struct EngineConfig {
    /// The model whose output is promised.
    pub target: LoadedModel,
    /// The model that drafts; without it methods that need one are not on offer.
    pub draft: Option<LoadedModel>,
    /// An accelerator for the draft; `None`: its cores.
    pub draft_device: Option<DraftDevice>,
    /// What every step of the draft takes beside its work: a simulated device.
    pub draft_latency: Option<Latency>,
    /// Plugins that requests may name.
    pub plugins: Arc<Registry>,
    /// The method used when a request names none; `None`: `auto`.
    pub default_method: Option<Method>,
    /// How often the target's early exits are right, if that was measured.
    pub coverage: Option<Coverage>,
    /// Generations running at once, round by round.
    pub max_running: usize,
    /// Generations waiting.
    pub max_waiting: usize,
    /// Cores of the target and of the draft. Those lent to the target are used while no draft works beside it.
    pub cores: (Cores, Cores),
}

/// Tells who opens the sequences of a draft that has its cores.
pub type DraftDevice = Box<dyn FnOnce(&Model) -> ModelFactory + Send>;

/// Facts about what is served.
#[derive(Debug, Clone)]
pub struct ModelFacts {
    /// Name of the target.
    pub name: String,
    /// Most tokens of prompt and answer together.
    pub context_length: usize,
    /// V.
    pub vocab_size: usize,
    /// N.
    pub layers: usize,
    /// Whether a row's bits do not depend on what is computed with it.
    pub row_invariant: bool,
    /// Name of the draft model, if one is loaded.
    pub draft: Option<String>,
    /// η, streams that the draft has at most.
    pub draft_streams: usize,
    /// Why `auto` does not use the draft, if it cannot pay where it runs.
    pub draft_refused: Option<String>,
    /// Why the target has the method `none` alone, if it has.
    pub cannot_speculate: Option<String>,
    /// Methods on offer with their default settings.
    pub methods: Vec<Settings>,
    /// The method used when a request names none.
    pub default_method: Method,
    /// Largest window.
    pub max_window: usize,
}

/// Counters since the start, and what is going on now.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Generations waiting for a place.
    pub queued: u64,
    /// Generations running.
    pub running: u64,
    /// Generations admitted.
    pub admitted: u64,
    /// Generations refused because the queue was full.
    pub refused: u64,
    /// Generations that reached their end.
    pub finished: u64,
    /// Generations cancelled or whose client went away.
    pub cancelled: u64,
    /// Generations that failed.
    pub failed: u64,
    /// Tokens of prompts prefilled.
    pub prompt_tokens: u64,
    /// Sums over all rounds by method, in the order of [`Method::ALL`].
    pub methods: Vec<(Method, Totals)>,
    /// Per plugin of the operator's, and for all uploads together: calls, fuel, microseconds, failures.
    pub plugins: Vec<(String, [u64; 4])>,
}

/// Why a checked request was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Running and waiting places are taken.
    #[error("all {places} places are taken; try again in {retry_after_s} s")]
    Full {
        /// Running and waiting places together.
        places: usize,
        /// Estimate of when one is free.
        retry_after_s: u64,
    },
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Draining,
}

/// Why an engine could not start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

/// The engine's handle; cheap to clone. Its threads end when the last handle is dropped.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    facts: ModelFacts,
    plan: Plan,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    end_tokens: Vec<TokenId>,
    plugins: Arc<Registry>,
    plugin_model: ModelInfo,
    /// Made for the first request that asks for a format.
    grammars: OnceLock<Result<Grammars, GrammarError>>,
    places: Places,
    queue: SyncSender<Admitted>,
    draining: AtomicBool,
    metrics: Arc<Mutex<Metrics>>,
    seeds: AtomicU64,
}

/// The events of one generation. Dropping it cancels the generation within a round.
pub struct EventStream {
    events: mpsc::Receiver<Event>,
    cancelled: Arc<AtomicBool>,
}

impl EventStream {
    /// The next event; `None` after `Finished` or `Failed`. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// [`EventStream::next`] for callers without a runtime.
    pub fn blocking_next(&mut self) -> Option<Event> {
        self.events.blocking_recv()
    }

    /// Ends the generation within a round; its `Finished` (with `reason: None`) still comes.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Engine {
    /// Starts the threads that own the models.
    ///
    /// # Errors
    /// A pair that does not share its vocabulary, a default method that needs a draft where there is none, models that
    /// sessions run on already, no threads, a model that fails when it is first measured.
    pub fn start(config: EngineConfig) -> Result<Self, StartError> {
        let EngineConfig {
            mut target,
            mut draft,
            draft_device,
            draft_latency,
            plugins,
            default_method,
            coverage,
            max_running,
            max_waiting,
            cores,
        } = config;
        if let Some(draft) = &draft {
            check_pair(&target, draft).map_err(StartError)?;
        }
        let default_method = default_method_of(&target, draft.as_ref(), default_method)?;
        if default_method.needs_draft() && draft.is_none() {
            let name = default_method.name();
            return Err(StartError(format!("method `{name}` needs a draft model; name one with --draft")));
        }
        target.model.set_cores(&cores.0).map_err(StartError)?;
        if let Some(draft) = &mut draft {
            draft.model.set_cores(&cores.1).map_err(StartError)?;
        }
        let metrics = Arc::new(Mutex::new(Metrics {
            methods: Method::ALL.map(|m| (m, Totals::default())).to_vec(),
            ..Metrics::default()
        }));
        let worker = draft
            .as_ref()
            .map(|draft| {
                let sessions = draft_device.map_or_else(|| own_sessions(&draft.model), |device| device(&draft.model));
                let factory = draft_factory(draft, target.model.config().vocab_size, sessions, draft_latency);
                DraftWorker::spawn(factory, cores.1.own.first().copied(), !cores.0.lent.is_empty())
            })
            .transpose()
            .map_err(StartError)?
            .map(|(worker, _thread)| worker);
        let places = Places::new(max_running + max_waiting);
        let (queue, admitted) = sync_channel(places.total());
        let thread = TargetThread {
            row_invariant: target.model.row_invariant(),
            target: target.model.clone(),
            draft: worker.clone(),
            admitted,
            max_running,
            metrics: metrics.clone(),
        };
        let core = cores.0.own.first().copied();
        let shape = (target.model.config().layers, draft.as_ref().map_or(0, |d| d.model.streams()));
        let plan = calibrated(thread, worker.as_ref(), shape, (core, coverage.as_ref()))?;
        let facts = facts(&target, draft.as_ref(), default_method, &plan);
        let plugin_model = ModelInfo {
            vocab_size: facts.vocab_size as u32,
            end_tokens: target.model.config().end_tokens.clone(),
            token_bytes: target.tokenizer.bytes().clone(),
            max_window: MAX_WINDOW as u32,
        };
        let shared = Shared {
            end_tokens: target.model.config().end_tokens.clone(),
            tokenizer: target.tokenizer,
            template: target.template,
            facts,
            plan,
            plugins,
            plugin_model,
            grammars: OnceLock::new(),
            places,
            queue,
            draining: AtomicBool::new(false),
            metrics,
            seeds: AtomicU64::new(RandomState::new().build_hasher().finish()),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Facts about what is served.
    pub fn facts(&self) -> &ModelFacts {
        &self.shared.facts
    }

    /// What was measured at the start, and what was chosen by it.
    pub fn plan(&self) -> &Plan {
        &self.shared.plan
    }

    /// What each token stands for.
    pub fn token_bytes(&self) -> &Arc<TokenBytes> {
        self.shared.tokenizer.bytes()
    }

    /// Tokens of a chat, by the model's template, user text with special tokens switched off.
    ///
    /// # Errors
    /// Names the message at fault.
    pub fn encode_chat(&self, messages: &[(String, String)]) -> Result<Vec<TokenId>, RequestError> {
        let refuse = |message: String| RequestError { field: "messages".into(), code: "bad_messages", message };
        let Some(template) = &self.shared.template else {
            let message = format!("model `{}` has no chat template; use /v1/completions", self.facts().name);
            return Err(refuse(message));
        };
        if messages.is_empty() {
            return Err(refuse("`messages` must hold at least 1 message; got 0".into()));
        }
        for (i, (role, _)) in messages.iter().enumerate() {
            if !["system", "user", "assistant"].contains(&role.as_str()) {
                return Err(RequestError {
                    field: format!("messages[{i}].role"),
                    code: "unknown_role",
                    message: format!("`messages[{i}].role` must be one of system, user, assistant; got `{role}`"),
                });
            }
        }
        let chat: Vec<ChatMessage> = messages
            .iter()
            .map(|(role, content)| ChatMessage { role: role.clone(), content: content.clone() })
            .collect();
        template.encode(&self.shared.tokenizer, &chat).map_err(|e| refuse(e.to_string()))
    }

    /// Tokens of a plain text, special tokens switched off.
    ///
    /// # Errors
    /// Names the field.
    pub fn encode_text(&self, text: &str) -> Result<Vec<TokenId>, RequestError> {
        let refuse = |message| RequestError { field: "prompt".into(), code: "bad_prompt", message };
        self.shared.tokenizer.encode_prompt(text).map_err(refuse)
    }

    /// Checks a request against the model and its limits, and opens its plugins.
    ///
    /// # Errors
    /// Names field, bound, value and remedy.
    pub fn check(&self, spec: RequestSpec) -> Result<Request, RequestError> {
        let facts = self.facts();
        if spec.plugins.len() > check::MAX_PLUGINS {
            return Err(check::out_of_bounds("plugins", "at most 8", spec.plugins.len()));
        }
        let max_tokens = check::max_tokens(&spec, facts)?;
        let mut sampling = check::sampling(&spec, facts, self.pick_seed())?;
        sampling.min_tokens = check::min_tokens(&spec, max_tokens)?;
        sampling.end_tokens.clone_from(&self.shared.end_tokens);
        let logprobs = check::logprobs(&spec)?;
        let stop = check::stop_strings(&spec.stop)?;
        let settings = check::settings(&spec.speculation, spec.deterministic, facts)?;
        if let Some(bad) = spec.prompt.iter().find(|t| **t as usize >= facts.vocab_size) {
            return Err(check::out_of_bounds("prompt", &format!("token ids 0..{}", facts.vocab_size), bad));
        }
        let registry = (&*self.shared.plugins, &*spec.tenant.owner);
        let mut plugged = Plugged::open(registry, &self.shared.plugin_model, &spec.plugins, &spec.prompt)?;
        if let Some(format) = &spec.format {
            // First, so that plugins see what is left to choose from.
            plugged.rules.insert(0, self.format_rule(format)?);
        }
        let RequestSpec { prompt, ignore_eos, echo, exact_only, tenant: Tenant { exact_only: bound, .. }, .. } = spec;
        Ok(Request {
            prompt,
            max_tokens,
            ignore_eos,
            logprobs,
            echo,
            sampling,
            stop,
            settings,
            plugged,
            exact_only: exact_only || bound,
            recorder: None,
        })
    }

    /// The rule that holds a text to its format.
    fn format_rule(&self, format: &OutputFormat) -> Result<Box<dyn Rule>, RequestError> {
        let shared = &self.shared;
        let grammars = shared
            .grammars
            .get_or_init(|| Grammars::new(shared.tokenizer.bytes(), shared.facts.vocab_size, &shared.end_tokens));
        let rule = grammars.as_ref().map_err(Clone::clone).and_then(|grammars| match format {
            OutputFormat::JsonObject => grammars.json_object(),
            OutputFormat::JsonSchema(schema) => grammars.json_schema(schema),
        });
        rule.map_err(|error| RequestError {
            field: "response_format".into(),
            code: "format_refused",
            message: format!("`response_format`: {error}"),
        })
    }

    /// A seed for a request that names none; told with the answer, so that it can be asked for again.
    pub fn pick_seed(&self) -> u64 {
        // Any spread of seeds will do.
        self.shared.seeds.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed) >> 11
    }

    /// Admits a generation. Does not block.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn submit(&self, request: Request) -> Result<EventStream, Refused> {
        self.start_in(self.place()?, request)
    }

    /// Admits several generations, all or none of them. Does not block.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn submit_all(&self, requests: Vec<Request>) -> Result<Vec<EventStream>, Refused> {
        let places: Vec<Place> = requests.iter().map(|_| self.place()).collect::<Result<_, _>>()?;
        places.into_iter().zip(requests).map(|(place, request)| self.start_in(place, request)).collect()
    }

    fn place(&self) -> Result<Place, Refused> {
        let shared = &self.shared;
        if shared.draining.load(Ordering::Relaxed) {
            return Err(Refused::Draining);
        }
        shared.places.take().ok_or_else(|| {
            self.metrics_guard().refused += 1;
            Refused::Full { places: shared.places.total(), retry_after_s: 1 }
        })
    }

    fn start_in(&self, place: Place, mut request: Request) -> Result<EventStream, Refused> {
        let shared = &self.shared;
        let conditions = EndConditions {
            end_tokens: if request.ignore_eos { Vec::new() } else { shared.end_tokens.clone() },
            min_tokens: request.sampling.min_tokens,
            stop_strings: std::mem::take(&mut request.stop),
            max_tokens: request.max_tokens,
            context_left: shared.facts.context_length - request.prompt.len(),
        };
        let stopping = std::mem::take(&mut request.plugged.stopping);
        let ends = Ends::new(conditions, shared.tokenizer.bytes().clone(), stopping);
        let (sender, events) = mpsc::channel(STREAM_ROUNDS + 3);
        let cancelled = Arc::new(AtomicBool::new(false));
        let channel = Channel { events: sender, cancelled: cancelled.clone(), admitted: Instant::now(), _place: place };
        match shared.queue.try_send(Admitted { request, ends, channel }) {
            Ok(()) => {
                self.metrics_guard().admitted += 1;
                Ok(EventStream { events, cancelled })
            }
            // The queue is as long as there are places, so it is never full; without its reader nothing can run.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Refused::Draining),
        }
    }

    /// The model as plugins are told of it.
    pub fn plugin_model(&self) -> &ModelInfo {
        &self.shared.plugin_model
    }

    /// The plugins that requests may name.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.shared.plugins
    }

    /// Counters.
    pub fn metrics(&self) -> Metrics {
        let mut metrics = self.metrics_guard().clone();
        metrics.queued = (self.shared.places.taken() as u64).saturating_sub(metrics.running);
        metrics
    }

    /// Admits nothing more; what runs goes on.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
    }

    fn metrics_guard(&self) -> MutexGuard<'_, Metrics> {
        // Counters stay usable if a thread died while it held them.
        self.shared.metrics.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn own_sessions(model: &Model) -> ModelFactory {
    let own = model.clone();
    Arc::new(move || own.session())
}

/// The method used when a request names none. A model that cannot speculate has one, and no other beside it.
fn default_method_of(
    target: &LoadedModel,
    draft: Option<&LoadedModel>,
    named: Option<Method>,
) -> Result<Method, StartError> {
    if let Some((draft, why)) = draft.and_then(|draft| Some((draft, draft.model.cannot_speculate()?))) {
        return Err(StartError(format!("`{}` cannot draft: {why}; name another --draft", draft.name)));
    }
    let Some(why) = target.model.cannot_speculate() else { return Ok(named.unwrap_or(Method::Auto)) };
    match (named, draft) {
        (Some(other), _) if other != Method::None => {
            Err(StartError(format!("method `{}`: `{}` has `none` alone: {why}", other.name(), target.name)))
        }
        (_, Some(draft)) => Err(StartError(format!(
            "draft `{}` has nothing to draft for: `{}` has the method `none` alone: {why}; leave --draft out",
            draft.name, target.name
        ))),
        _ => Ok(Method::None),
    }
}

/// The draft with rows of the target's size, on the device that it is to run on.
fn draft_factory(draft: &LoadedModel, rows: usize, sessions: ModelFactory, latency: Option<Latency>) -> ModelFactory {
    let same_size = draft.model.config().vocab_size == rows;
    Arc::new(move || {
        let model = sessions()?;
        let model = if same_size { model } else { Box::new(Resized::new(model, rows)) };
        Ok(match latency {
            Some(latency) => Box::new(Simulated::new(model, latency)),
            None => model,
        })
    })
}

fn facts(target: &LoadedModel, draft: Option<&LoadedModel>, default_method: Method, plan: &Plan) -> ModelFacts {
    let config = target.model.config();
    ModelFacts {
        name: target.name.clone(),
        context_length: config.context_length.min(draft.map_or(usize::MAX, |d| d.model.config().context_length)),
        vocab_size: config.vocab_size,
        layers: config.layers,
        row_invariant: target.model.row_invariant(),
        draft: draft.map(|d| d.name.clone()),
        methods: plan.methods.clone(),
        default_method,
        max_window: MAX_WINDOW,
        draft_streams: draft.map_or(0, |d| d.model.streams()),
        draft_refused: plan.refused.clone(),
        cannot_speculate: target.model.cannot_speculate(),
    }
}

/// Starts the target's thread. Both models are measured, at once, as they will run.
fn calibrated(
    thread: TargetThread,
    draft: Option<&DraftWorker>,
    (layers, streams): (usize, usize),
    (core, coverage): (Option<usize>, Option<&Coverage>),
) -> Result<Plan, StartError> {
    let (tell, measured) = sync_channel(1);
    let (give, learned) = sync_channel(1);
    let alone_only = thread.target.cannot_speculate().is_some();
    let body = move || {
        let exit_layer = (layers / 2).max(1);
        // The other end waits for it.
        let _ = tell.send(target_costs(&thread.target, exit_layer));
        if let Ok(learned) = learned.recv() {
            target_thread::run(thread, learned);
        }
    };
    ModelThread::spawn("target", core, body).map_err(StartError)?;
    let failed = |error: ModelError| StartError(format!("calibration: {error}"));
    let step = draft.map(DraftWorker::measure).transpose().map_err(failed)?.unwrap_or_default();
    let costs = measured.recv().map_err(|_| StartError("the target's thread has ended".into()))?;
    let TargetCosts { alone, beside, with_exit } = costs.map_err(failed)?;
    let rendezvous_us = draft.map(DraftWorker::rendezvous_us).transpose().map_err(failed)?.unwrap_or(0.0);
    let costs = Costs { alone, beside, with_exit, step, rendezvous_us };
    let plan = if alone_only { Plan::alone(costs, layers) } else { Plan::of(costs, (layers, streams), coverage) };
    let arms = plan.arms.iter().map(|arm| (arm.settings, arm.tokens_per_second / 1e6)).collect();
    // If the thread died, the first request shows it.
    let _ = give.send(Learned::new(&plan.costs, Arms::new(arms)));
    Ok(plan)
}
