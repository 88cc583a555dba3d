//! Streamed answers: the engine's events as OpenAI's chunks, framed as server-sent events. The body is pulled only as fast
//! as the client reads, and dropping it (the client went away) cancels the generation.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use specula_engine::{Event, Finished, Round};
use specula_protocol::response::{AnswerMessage, Choice, Completion};
use specula_protocol::{ApiError, ErrorBody};
use warp::http::{HeaderValue, header};
use warp::reply::{Reply, Response};

use crate::errors::Fault;
use crate::seam::EventStream;
use crate::whole::{Head, choice};
use crate::wire;

/// Makes the pieces of one answer.
pub(crate) struct Chunks {
    pub(crate) head: Head,
    /// Send one more chunk with the token counts, and the others with `null` in their place.
    pub(crate) include_usage: bool,
}

/// The streamed answer.
pub(crate) fn answer(chunks: Chunks, events: EventStream) -> Response {
    let frames = stream::unfold(Some((chunks, events)), |state| async move {
        let (chunks, mut events) = state?;
        loop {
            let (frames, ended) = match events.next().await {
                Some(event) => chunks.frames(event),
                None => (failed(Fault::Internal("the engine ended without a last event").body()), true),
            };
            if ended {
                return Some((Ok::<_, Infallible>(Bytes::from(frames)), None));
            }
            // A round may show nothing: its text is held back as the possible beginning of a stop string.
            if !frames.is_empty() {
                return Some((Ok(Bytes::from(frames)), Some((chunks, events))));
            }
        }
    });
    let mut response = warp::reply::stream(frames).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that gather answers before passing them on would undo the streaming.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl Chunks {
    /// The frames of one event, and whether the stream ends with them.
    fn frames(&self, event: Event) -> (String, bool) {
        match event {
            Event::Started(_) if self.head.chat => (data(&self.piece("", true)), false),
            Event::Started(_) => (String::new(), false),
            Event::Round(round) => (self.round(&round), false),
            Event::Finished(finished) => (self.finished(&finished), true),
            Event::Failed(failure) => (failed(wire::failure_body(failure)), true),
        }
    }

    fn round(&self, round: &Round) -> String {
        let text: String = round.tokens.iter().map(|token| token.text.as_str()).collect();
        if text.is_empty() { text } else { data(&self.piece(&text, false)) }
    }

    fn finished(&self, finished: &Finished) -> String {
        let mut last = choice(Some(wire::finish_reason(finished.reason.as_ref())));
        if self.head.chat {
            last.delta = Some(AnswerMessage::default());
        } else {
            last.text = Some(String::new());
        }
        let last = Completion { specula: Some(wire::report(finished)), ..self.chunk(vec![last]) };
        let mut frames = data(&last);
        if self.include_usage {
            frames += &data(&Completion { usage: Some(Some(wire::usage(finished))), ..self.chunk(Vec::new()) });
        }
        frames + DONE
    }

    /// A chunk with some text; the first of a chat names the role.
    fn piece(&self, text: &str, first: bool) -> Completion {
        let mut piece = choice(None);
        if self.head.chat {
            let role = first.then(|| "assistant".to_owned());
            piece.delta = Some(AnswerMessage { role, content: Some(text.into()) });
        } else {
            piece.text = Some(text.into());
        }
        self.chunk(vec![piece])
    }

    fn chunk(&self, choices: Vec<Choice>) -> Completion {
        let object = if self.head.chat { "chat.completion.chunk" } else { "text_completion" };
        Completion { usage: self.include_usage.then_some(None), ..self.head.completion(object, choices) }
    }
}

const DONE: &str = "data: [DONE]\n\n";

fn failed(error: ApiError) -> String {
    data(&ErrorBody { error }) + DONE
}

/// One event. JSON has no raw line breaks, so that one `data:` line holds it.
fn data<T: Serialize>(value: &T) -> String {
    let json = serde_json::to_string(value).expect("wire types have string keys and serialise without failing");
    format!("data: {json}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::double;
    use serde_json::{Value, json};
    use specula_engine::Failure;

    fn stream(chat: bool, include_usage: bool, events: Vec<Event>) -> Vec<Value> {
        let head = Head { chat, id: "id".into(), created: 9, model: "m".into() };
        let chunks = Chunks { head, include_usage };
        let frames: String = events.into_iter().map(|event| chunks.frames(event).0).collect();
        let payloads = frames.split_terminator("\n\n").map(|frame| frame.strip_prefix("data: ").expect("a data line"));
        payloads.map(|p| if p == "[DONE]" { json!("[DONE]") } else { serde_json::from_str(p).expect("JSON") }).collect()
    }

    fn events() -> Vec<Event> {
        let end = Event::Finished(Box::new(double::finished(2, 3)));
        vec![double::started(), double::round("a"), double::round(""), double::round("b\n"), end]
    }

    #[test]
    fn a_chat_streams_role_pieces_reason_usage_done() {
        let got = stream(true, true, events());
        let chunk = |choices: Value| json!({"id": "id", "object": "chat.completion.chunk", "created": 9, "model": "m", "choices": choices, "usage": null});
        let piece =
            |delta: Value| chunk(json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}]));
        assert_eq!(got[0], piece(json!({"role": "assistant", "content": ""})));
        assert_eq!(got[1], piece(json!({"content": "a"})));
        assert_eq!(got[2], piece(json!({"content": "b\n"})), "a round without text sends nothing");
        let end = json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": "stop"}]);
        assert_eq!(got[3]["choices"], end);
        assert_eq!(got[3]["specula"]["lossless"], true);
        assert_eq!(got[4]["choices"], json!([]));
        assert_eq!(got[4]["usage"], json!({"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}));
        assert_eq!(got[5..], ["[DONE]"]);
    }

    #[test]
    fn a_text_streams_pieces_and_counts_only_if_asked() {
        let got = stream(false, false, events());
        assert!(got[..3].iter().all(|chunk| chunk["object"] == "text_completion"));
        assert_eq!(got[0]["choices"][0], json!({"index": 0, "text": "a", "logprobs": null, "finish_reason": null}));
        assert_eq!(got[2]["choices"][0]["finish_reason"], "stop");
        assert!(got[..3].iter().all(|chunk| chunk.get("usage").is_none()));
        assert_eq!(got[3..], ["[DONE]"]);
    }

    #[test]
    fn an_error_in_mid_stream_is_an_event() {
        let failure = Failure::Request { code: "empty_support".into(), message: "nothing is allowed".into() };
        let got = stream(true, false, vec![double::started(), Event::Failed(failure)]);
        let error = json!({"error": {"message": "nothing is allowed", "type": "invalid_request_error", "param": null,
                                     "code": "empty_support"}});
        assert_eq!(got[1..], [error, json!("[DONE]")]);
    }
}
