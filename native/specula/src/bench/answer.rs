//! One entrant's answer to one question.

use serde_json::{Value, json};
use specula_decoding::TokenId;
use specula_engine::{Report, Totals};

use super::parts::Parts;
use super::run::Plan;
use super::stage::Stage;

/// What an entrant said to a question, turn by turn.
pub(crate) struct Answer {
    pub(crate) entrant: usize,
    pub(crate) temperature: usize,
    pub(crate) question: usize,
    pub(crate) turns: Vec<Turn>,
    /// Turns left out because their history leaves no room in the context.
    pub(crate) skipped: usize,
}

/// One turn.
pub(crate) struct Turn {
    pub(crate) text: String,
    pub(crate) tokens: Vec<TokenId>,
    /// Tokens committed in each round.
    pub(crate) lengths: Vec<usize>,
    pub(crate) parts: Vec<Parts>,
    pub(crate) report: Report,
    /// Whether the question was cut to fit the context.
    pub(crate) cut: bool,
}

impl Turn {
    /// Time after the prefill.
    fn decode_seconds(&self) -> f64 {
        self.report.total_us.saturating_sub(self.report.prefill_us) as f64 / 1e6
    }

    /// Prefill included, as Spec-Bench has it.
    fn wall_seconds(&self) -> f64 {
        self.report.total_us as f64 / 1e6
    }
}

impl Answer {
    /// Tokens of all turns.
    pub(crate) fn tokens(&self) -> u64 {
        self.turns.iter().map(|turn| turn.tokens.len() as u64).sum()
    }

    /// Time after the prefills.
    pub(crate) fn decode_seconds(&self) -> f64 {
        self.turns.iter().map(Turn::decode_seconds).sum()
    }

    /// Tokens per second after the prefills.
    pub(crate) fn speed(&self) -> f64 {
        self.tokens() as f64 / self.decode_seconds()
    }

    /// Tokens per second, prefills included.
    pub(crate) fn wall_speed(&self) -> f64 {
        self.tokens() as f64 / self.turns.iter().map(Turn::wall_seconds).sum::<f64>()
    }

    /// Whether the tokens of all turns are the same.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        let tokens = |answer: &Self| answer.turns.iter().map(|turn| turn.tokens.clone()).collect::<Vec<_>>();
        tokens(self) == tokens(other)
    }

    /// Whether every turn says of itself that it is the target's own.
    pub(crate) fn lossless(&self) -> bool {
        self.turns.iter().all(|turn| turn.report.lossless())
    }

    /// Sums over all turns.
    pub(crate) fn totals(&self) -> Totals {
        let mut sums = Totals::default();
        self.turns.iter().for_each(|turn| sums += &turn.report.totals);
        sums
    }

    /// The answer in Spec-Bench's format (its `speed.py` reads files of one `model_id`), and beside it what that does not know. `new_tokens` are
    /// committed tokens up to and including the end token, `accept_lengths` those of each pass.
    pub(crate) fn line(&self, plan: &Plan, stages: &[Stage]) -> Value {
        let question = &plan.questions[self.question];
        let entrant = plan.entrants[self.entrant];
        let method = &plan.contenders[entrant.contender].name;
        let temperature = plan.temperatures[self.temperature];
        let draft = stages[entrant.stage].label();
        let all = |of: fn(&Turn) -> Value| self.turns.iter().map(of).collect::<Vec<_>>();
        let totals = self.totals();
        json!({
            "question_id": question.id,
            "category": question.category,
            "model_id": format!("{method}, draft {draft}, temperature {temperature}"),
            "choices": [{
                "index": 0,
                "turns": all(|turn| json!(turn.text)),
                "decoding_steps": all(|turn| json!(turn.report.totals.rounds)),
                "new_tokens": all(|turn| json!(turn.tokens.len())),
                "wall_time": all(|turn| json!(turn.wall_seconds())),
                "accept_lengths": self.turns.iter().flat_map(|turn| &turn.lengths).collect::<Vec<_>>(),
            }],
            "method": method,
            "draft": draft,
            "temperature": temperature,
            "prefill_time": all(|turn| json!(turn.report.prefill_us as f64 / 1e6)),
            "first_token_time": all(|turn| json!(turn.report.first_token_us as f64 / 1e6)),
            "cut": all(|turn| json!(turn.cut)),
            "skipped_turns": self.skipped,
            "hit_rate": totals.hit_rate(),
            "lossless": self.lossless(),
            "tokens": all(|turn| json!(turn.tokens)),
        })
    }
}
