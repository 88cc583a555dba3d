//! Streamed answers: the engine's events as OpenAI's chunks, framed as server-sent events. The body is pulled only as fast
//! as the client reads, and dropping it (the client went away) cancels the generation.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use specula_engine::{Event, Finished};
use specula_protocol::response::{AnswerMessage, Choice, Completion};
use specula_protocol::{ApiError, ErrorBody, Usage};
use warp::http::{HeaderValue, header};
use warp::reply::{Reply, Response};

use crate::answer::{Answer, choice};
use crate::choices::Choices;
use crate::pieces::{Piece, PieceWriter};
use crate::wire;

/// Makes the frames of one answer.
pub(crate) struct Frames {
    answer: Answer,
    /// Send one more chunk with the token counts, and the others with `null` in their place.
    include_usage: bool,
    /// One for each choice.
    writers: Vec<PieceWriter>,
    usage: Usage,
}

/// The streamed answer.
pub(crate) fn answer(frames: Frames, choices: Choices) -> Response {
    let bodies = stream::unfold(Some((frames, choices)), |state| async move {
        let (mut frames, mut choices) = state?;
        loop {
            let (sent, ended) = match choices.next().await {
                Some((index, Ok(event))) => (frames.event(index, event), false),
                Some((_, Err(fault))) => (failed(fault.body()), true),
                None => (frames.end(), true),
            };
            if ended {
                return Some((Ok::<_, Infallible>(Bytes::from(sent)), None));
            }
            if !sent.is_empty() {
                return Some((Ok(Bytes::from(sent)), Some((frames, choices))));
            }
        }
    });
    let mut response = warp::reply::stream(bodies).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that gather answers before passing them on would undo the streaming.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl Frames {
    pub(crate) fn new(answer: Answer, include_usage: bool) -> Self {
        let writers = (0..answer.choices).map(|_| answer.writer()).collect();
        Self { answer, include_usage, writers, usage: Usage::default() }
    }

    /// The frames of one event of a choice.
    fn event(&mut self, index: usize, event: Event) -> String {
        match event {
            Event::Started(_) if self.answer.chat => self.chunk_with(index, Piece::default(), true),
            Event::Started(_) | Event::Failed(_) => String::new(),
            Event::Prompt(tokens) => {
                let piece = self.writers[index].prompt(&tokens);
                self.piece(index, piece)
            }
            Event::Round(round) => {
                let piece = self.writers[index].round(&round);
                self.piece(index, piece)
            }
            Event::Finished(finished) => self.finished(index, &finished),
        }
    }

    fn piece(&self, index: usize, piece: Piece) -> String {
        if piece.is_empty() { String::new() } else { self.chunk_with(index, piece, false) }
    }

    fn finished(&mut self, index: usize, finished: &Finished) -> String {
        self.answer.count(&mut self.usage, index, finished);
        let mut last = choice(index, Some(wire::finish_reason(finished.reason.as_ref())));
        if self.answer.chat {
            last.delta = Some(AnswerMessage::default());
        } else {
            last.text = Some(String::new());
        }
        data(&Completion { specula: Some(wire::report(finished)), ..self.chunk(vec![last]) })
    }

    /// What follows when all choices have ended.
    fn end(&self) -> String {
        if !self.include_usage {
            return DONE.to_owned();
        }
        data(&Completion { usage: Some(Some(self.usage)), ..self.chunk(Vec::new()) }) + DONE
    }

    /// A chunk with a piece; the first of a chat's choice names the role.
    fn chunk_with(&self, index: usize, piece: Piece, first: bool) -> String {
        let mut shaped = choice(index, None);
        shaped.logprobs = piece.logprobs;
        if self.answer.chat {
            let role = first.then(|| "assistant".to_owned());
            shaped.delta = Some(AnswerMessage { role, content: Some(piece.text) });
        } else {
            shaped.text = Some(piece.text);
        }
        data(&self.chunk(vec![shaped]))
    }

    fn chunk(&self, choices: Vec<Choice>) -> Completion {
        let object = if self.answer.chat { "chat.completion.chunk" } else { "text_completion" };
        Completion { usage: self.include_usage.then_some(None), ..self.answer.completion(object, choices) }
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

    fn stream(chat: bool, include_usage: bool, events: Vec<(usize, Event)>) -> Vec<Value> {
        let mut frames = Frames::new(double::answer(chat, 2), include_usage);
        let sent: String = events.into_iter().map(|(index, event)| frames.event(index, event)).collect();
        let frames = sent + &frames.end();
        let payloads = frames.split_terminator("\n\n").map(|frame| frame.strip_prefix("data: ").expect("a data line"));
        payloads.map(|p| if p == "[DONE]" { json!("[DONE]") } else { serde_json::from_str(p).expect("JSON") }).collect()
    }

    fn events() -> Vec<(usize, Event)> {
        let end = Event::Finished(Box::new(double::finished(2, 3)));
        let events = [double::started(), double::round("a"), double::round(""), double::round("b\n"), end];
        events.map(|event| (0, event)).into()
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
    fn choices_interleave_and_are_counted_together() {
        let end = || Event::Finished(Box::new(double::finished(2, 3)));
        let events =
            [(1, double::round("x")), (0, double::round("a")), (1, end()), (0, double::round("b")), (0, end())];
        let got = stream(false, true, events.into());
        let order: Vec<_> = got[..5].iter().map(|chunk| chunk["choices"][0]["index"].clone()).collect();
        assert_eq!(order, [1, 0, 1, 0, 0]);
        assert!(got[2]["specula"].is_object() && got[4]["specula"].is_object());
        assert_eq!(got[5]["usage"], json!({"prompt_tokens": 2, "completion_tokens": 6, "total_tokens": 8}));
        assert_eq!(got[6..], ["[DONE]"]);
    }
}
