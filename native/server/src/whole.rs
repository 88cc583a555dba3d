//! Answers in one piece: the same events as a stream's, folded.

use specula_engine::{Event, Failure, Finished};
use specula_protocol::response::{AnswerMessage, Choice, Completion};

use crate::app::{App, now_s};
use crate::errors::Fault;
use crate::generation::Endpoint;
use crate::seam::EventStream;
use crate::wire;

/// What all pieces of one answer have in common.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) chat: bool,
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
}

impl Head {
    pub(crate) fn new(app: &App, endpoint: Endpoint) -> Self {
        let chat = endpoint == Endpoint::Chat;
        let id = app.next_id(if chat { "chatcmpl" } else { "cmpl" });
        Self { chat, id, created: now_s(), model: app.engine.facts().name.clone() }
    }

    /// An answer, or a piece of one, with these choices.
    pub(crate) fn completion(&self, object: &str, choices: Vec<Choice>) -> Completion {
        Completion {
            id: self.id.clone(),
            object: object.into(),
            created: self.created,
            model: self.model.clone(),
            choices,
            usage: None,
            specula: None,
        }
    }
}

/// The answer once its generation has ended.
pub(crate) async fn answer(head: &Head, mut events: EventStream) -> Result<Completion, Fault> {
    let mut text = String::new();
    while let Some(event) = events.next().await {
        if let Some(finished) = fold(&mut text, event)? {
            return Ok(completion(head, text, &finished));
        }
    }
    Err(Fault::Internal("the engine ended without a last event"))
}

/// Adds one event to the text; gives the end once it came.
fn fold(text: &mut String, event: Event) -> Result<Option<Box<Finished>>, Failure> {
    match event {
        Event::Started(_) => Ok(None),
        Event::Round(round) => {
            text.extend(round.tokens.iter().map(|token| token.text.as_str()));
            Ok(None)
        }
        Event::Finished(finished) => Ok(Some(finished)),
        Event::Failed(failure) => Err(failure),
    }
}

fn completion(head: &Head, text: String, finished: &Finished) -> Completion {
    let mut choice = choice(Some(wire::finish_reason(finished.reason.as_ref())));
    if head.chat {
        choice.message = Some(AnswerMessage { role: Some("assistant".into()), content: Some(text) });
    } else {
        choice.text = Some(text);
    }
    let object = if head.chat { "chat.completion" } else { "text_completion" };
    Completion {
        usage: Some(Some(wire::usage(finished))),
        specula: Some(wire::report(finished)),
        ..head.completion(object, vec![choice])
    }
}

/// A choice without content.
pub(crate) fn choice(finish_reason: Option<&str>) -> Choice {
    Choice {
        index: 0,
        message: None,
        delta: None,
        text: None,
        logprobs: None,
        finish_reason: finish_reason.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::double;

    fn head(chat: bool) -> Head {
        Head { chat, id: "id".into(), created: 9, model: "m".into() }
    }

    #[test]
    fn rounds_fold_into_the_text() {
        let mut text = String::new();
        for event in [double::started(), double::round("a"), double::round(""), double::round("b")] {
            assert!(fold(&mut text, event).expect("no failure").is_none());
        }
        let end = fold(&mut text, Event::Finished(Box::new(double::finished(2, 3)))).expect("no failure");
        assert_eq!((text.as_str(), end.map(|e| e.completion_tokens)), ("ab", Some(3)));
        assert!(fold(&mut text, Event::Failed(Failure::SlowReader { seconds: 1 })).is_err());
    }

    #[test]
    fn whole_answers_have_openai_s_shapes() {
        let chat = completion(&head(true), "hi".into(), &double::finished(2, 3));
        let mut chat = serde_json::to_value(chat).expect("serialises");
        let specula = chat.as_object_mut().and_then(|o| o.remove("specula")).expect("a report");
        assert_eq!(specula["lossless"], true);
        let want = serde_json::json!({
            "id": "id", "object": "chat.completion", "created": 9, "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "logprobs": null,
                         "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}});
        assert_eq!(chat, want);
        let text = serde_json::to_value(completion(&head(false), "hi".into(), &double::finished(2, 3)));
        let text = text.expect("serialises");
        assert_eq!((&text["object"], &text["choices"][0]["text"]), (&"text_completion".into(), &"hi".into()));
        assert!(text["choices"][0].get("message").is_none());
    }
}
