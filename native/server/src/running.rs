//! A generation as this room holds it: its events, and a line in the log when it ends, however it does. The log never tells
//! what was asked or answered.

use specula_engine::{Event, Failure, Finished};

use crate::request_id::RequestId;
use crate::seam::EventStream;
use crate::wire;

/// Dropping it cancels the generation.
pub(crate) struct Running {
    events: EventStream,
    request: RequestId,
    choice: usize,
    ended: bool,
}

impl Running {
    pub(crate) fn new(events: EventStream, request: RequestId, choice: usize) -> Self {
        Self { events, request, choice, ended: false }
    }

    /// The next event; `None` after the last.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        let event = self.events.next().await;
        match &event {
            Some(Event::Finished(finished)) => self.finished(finished),
            Some(Event::Failed(failure)) => self.failed(failure),
            _ => {}
        }
        event
    }

    /// Asks for the end; the last event still comes.
    pub(crate) fn cancel(&self) {
        self.events.cancel();
    }

    fn finished(&mut self, finished: &Finished) {
        self.ended = true;
        let report = wire::report(finished);
        tracing::info!(
            request = %self.request,
            choice = self.choice,
            method = report.settings.method,
            reason = wire::finish_reason(finished.reason.as_ref()),
            prompt_tokens = finished.prompt_tokens,
            completion_tokens = finished.completion_tokens,
            acceptance_length = report.acceptance_length,
            lossless = report.lossless,
            first_token_ms = report.first_token_ms,
            total_ms = report.total_ms,
            "generated"
        );
    }

    fn failed(&mut self, failure: &Failure) {
        self.ended = true;
        let body = wire::failure_body(failure.clone());
        tracing::warn!(request = %self.request, choice = self.choice, code = body.code, "a generation failed");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            tracing::info!(request = %self.request, choice = self.choice, "the client left a generation");
        }
    }
}
