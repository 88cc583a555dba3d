//! A scripted engine: the prompt's first word says what happens. `say a b` answers in words; `drip n` gives n tokens of
//! `x`, one every 20 ms; `break` fails after a token; `full` is refused; `crash` ends without a last event.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use specula_decoding::{FinishReason, TokenBytes, branches::Allocation};
use specula_engine::{
    Event, Failure, Finished, LookAhead, Method, Metrics, ModelFacts, Origin, Refused, Report, RequestError,
    RequestSpec, Roots, Round, Settings, Started, Token, Totals,
};
use specula_policies::{Limits, Registry};
use tokio::sync::{Notify, mpsc};

use crate::answer::Answer;

#[derive(Clone)]
pub struct Engine {
    facts: Arc<ModelFacts>,
    token_bytes: Arc<TokenBytes>,
    registry: Arc<Registry>,
    draining: Arc<AtomicBool>,
    running: Arc<AtomicUsize>,
}

#[derive(Debug, Clone)]
pub(crate) struct Request {
    prompt: String,
}

pub(crate) struct EventStream {
    events: mpsc::Receiver<Event>,
    cancelled: Arc<Notify>,
}

pub(crate) fn settings() -> Settings {
    Settings {
        method: Method::None,
        window: 7,
        exit_layer: 4,
        exit_top: 8,
        branch_budget: 16,
        streams: 0,
        look_ahead: LookAhead::Correct,
        roots: Roots::Both,
        allocation: Allocation::Scored,
        deterministic: false,
    }
}

pub(crate) fn finished(prompt_tokens: usize, completion_tokens: usize) -> Finished {
    let report = Report {
        totals: Totals::default(),
        settings: settings(),
        chosen: Vec::new(),
        seed: 5,
        row_invariant: true,
        prefill_us: 0,
        first_token_us: 0,
        total_us: 0,
        plugins: Vec::new(),
        warnings: Vec::new(),
    };
    Finished { reason: Some(FinishReason::EndToken), prompt_tokens, completion_tokens, report }
}

/// An answer of so many choices, all of one prompt.
pub(crate) fn answer(chat: bool, choices: usize) -> Answer {
    Answer {
        chat,
        id: "id".into(),
        created: 9,
        model: "m".into(),
        choices,
        per_prompt: choices,
        logprobs: false,
        token_bytes: Arc::default(),
    }
}

pub(crate) fn started() -> Event {
    Event::Started(Started { prompt_tokens: 2, seed: 5, settings: settings() })
}

pub(crate) fn round(text: &str) -> Event {
    let tokens = vec![Token { id: 7, text: text.into(), origin: Origin::Plain, logprobs: None }];
    Event::Round(Round {
        tokens,
        window: 0,
        accepted: 0,
        hit: None,
        source: None,
        lanes: Vec::new(),
        messages: Vec::new(),
    })
}

impl Engine {
    pub(crate) fn new() -> Self {
        let facts = ModelFacts {
            name: "double".into(),
            context_length: 64,
            vocab_size: 256,
            layers: 8,
            row_invariant: true,
            draft: None,
            methods: vec![settings()],
            default_method: Method::None,
            draft_streams: 0,
            draft_refused: None,
            cannot_speculate: None,
            max_window: 16,
        };
        Self {
            facts: Arc::new(facts),
            token_bytes: Arc::default(),
            registry: Arc::new(Registry::new(Limits::default()).expect("the sandbox works here")),
            draining: Arc::default(),
            running: Arc::default(),
        }
    }

    /// Generations whose stream is still held.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    pub(crate) fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    pub(crate) fn encode_chat(&self, messages: &[(String, String)]) -> Result<Vec<u32>, RequestError> {
        self.encode_text(&messages.last().map(|(_, text)| text.clone()).unwrap_or_default())
    }

    pub(crate) fn encode_text(&self, text: &str) -> Result<Vec<u32>, RequestError> {
        Ok(text.chars().map(u32::from).collect())
    }

    pub(crate) fn check(&self, spec: RequestSpec) -> Result<Request, RequestError> {
        match spec.temperature.filter(|t| !(0.0..=2.0).contains(t)) {
            Some(t) => Err(RequestError {
                field: "temperature".into(),
                code: "invalid_value",
                message: format!("`temperature` must be within 0..=2. Given: {t}"),
            }),
            None => Ok(Request { prompt: spec.prompt.into_iter().filter_map(char::from_u32).collect() }),
        }
    }

    pub(crate) fn pick_seed(&self) -> u64 {
        5
    }

    pub(crate) fn token_bytes(&self) -> &Arc<TokenBytes> {
        &self.token_bytes
    }

    pub(crate) fn submit_all(&self, requests: Vec<Request>) -> Result<Vec<EventStream>, Refused> {
        requests.into_iter().map(|request| self.submit(request)).collect()
    }

    fn submit(&self, request: Request) -> Result<EventStream, Refused> {
        if self.draining.load(Ordering::SeqCst) {
            return Err(Refused::Draining);
        }
        if request.prompt == "full" {
            return Err(Refused::Full { places: 4, retry_after_s: 3 });
        }
        let (sender, events) = mpsc::channel(2);
        let cancelled = Arc::new(Notify::new());
        self.running.fetch_add(1, Ordering::SeqCst);
        let (running, stop) = (self.running.clone(), cancelled.clone());
        tokio::spawn(async move {
            let gone = sender.clone();
            tokio::select! {
                () = play(&request.prompt, &sender) => {}
                () = gone.closed() => {}
                () = stop.notified() => {
                    let end = Finished { reason: None, ..finished(2, 1) };
                    sender.send(Event::Finished(Box::new(end))).await.ok();
                }
            }
            running.fetch_sub(1, Ordering::SeqCst);
        });
        Ok(EventStream { events, cancelled })
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub(crate) fn metrics(&self) -> Metrics {
        Metrics { running: self.running() as u64, ..Metrics::default() }
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }
}

/// Sends a script's events; a reader that has gone makes the rest void.
async fn play(prompt: &str, to: &mpsc::Sender<Event>) {
    to.send(started()).await.ok();
    let words: Vec<_> = prompt.split(' ').collect();
    match words[0] {
        "drip" => {
            for _ in 0..words[1].parse().expect("a number of tokens") {
                to.send(round("x")).await.ok();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        "break" => {
            to.send(round("x")).await.ok();
            to.send(Event::Failed(Failure::Engine("broke".into()))).await.ok();
            return;
        }
        "crash" => return,
        _ => {
            for word in &words[1..] {
                to.send(round(word)).await.ok();
            }
        }
    }
    to.send(Event::Finished(Box::new(finished(2, words.len() - 1)))).await.ok();
}

impl EventStream {
    pub(crate) async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.notify_one();
    }
}
