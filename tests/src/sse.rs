//! Streamed answers as a client of OpenAI's API reads them.

use serde_json::{Value, json};

use crate::answer::{self, Answer};
use crate::request::with;
use crate::server::Server;

/// An open stream of server-sent events; dropping it hangs up.
pub struct Sse {
    response: reqwest::Response,
    unread: Vec<u8>,
}

/// A streamed answer with the chunks it came in, `[DONE]` not among them.
#[derive(Debug)]
pub struct StreamedAnswer {
    /// What they come to.
    pub answer: Answer,
    /// The chunks.
    pub chunks: Vec<Value>,
}

impl Server {
    /// Opens a stream; the server must agree.
    pub async fn open(&self, path: &str, request: &Value) -> Sse {
        let request = with(request, json!({"stream": true}));
        let response = self.posting(path, request.to_string()).send().await.expect("the server answers");
        let status = response.status().as_u16();
        if status != 200 {
            panic!("{status} for {request}: {}", response.text().await.unwrap_or_default());
        }
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Sse { response, unread: Vec::new() }
    }

    /// Asks for a streamed answer and reads it to its end.
    pub async fn streamed(&self, path: &str, request: &Value) -> StreamedAnswer {
        self.open(path, request).await.finish().await
    }
}

impl Sse {
    /// The next event's data; `None` once the stream is over.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = self.unread.drain(..end + 2).collect();
                let event = String::from_utf8(event).expect("events are UTF-8");
                let data = event.trim_end().strip_prefix("data: ").unwrap_or_else(|| panic!("no data: {event:?}"));
                return Some(data.to_owned());
            }
            match self.response.chunk().await.expect("the stream is not cut off") {
                Some(bytes) => self.unread.extend_from_slice(&bytes),
                None => {
                    assert!(self.unread.is_empty(), "the stream ends between events");
                    return None;
                }
            }
        }
    }

    /// Reads on to the end, which must be `[DONE]`.
    pub async fn events(mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(data) = self.next().await {
            if data == "[DONE]" {
                assert_eq!(self.next().await, None, "nothing follows [DONE]");
                return events;
            }
            events.push(serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error} in {data}")));
        }
        panic!("the stream ended without [DONE] after {events:?}");
    }

    /// Reads on to the end and puts the answer together.
    pub async fn finish(self) -> StreamedAnswer {
        let chunks = self.events().await;
        let choices = || chunks.iter().map(|chunk| &chunk["choices"][0]);
        let piece = |choice: &Value| choice["delta"]["content"].as_str().or(choice["text"].as_str()).map(str::to_owned);
        let reports: Vec<&Value> = chunks.iter().filter_map(|chunk| chunk.get("specula")).collect();
        assert_eq!(reports.len(), 1, "one chunk has the report: {chunks:?}");
        let reasons: Vec<&str> = choices().filter_map(|choice| choice["finish_reason"].as_str()).collect();
        assert_eq!(reasons.len(), 1, "one chunk has the reason: {chunks:?}");
        let answer = Answer {
            text: choices().filter_map(piece).collect(),
            finish_reason: reasons[0].to_owned(),
            usage: chunks.iter().find_map(|chunk| answer::usage(&chunk["usage"])),
            report: answer::report(reports[0]),
        };
        StreamedAnswer { answer, chunks }
    }
}
