//! Questions, answers, and the connection that carries them.

use specula_protocol::{ClientFrame, Report, ServerFrame, Usage};
use wasm_bindgen::JsValue;
use web_sys::HtmlElement;

use super::{App, Failed, Generation};
use crate::conversation::Conversation;
use crate::progress::Progress;
use crate::transcript::Ending;
use crate::{controls, facts, lists, socket};

const LOST: &str = "The connection to the server was lost before the answer was finished. The page keeps trying to \
                    connect again; then the question can be asked once more.";
const AWAY: &str = "The server cannot be reached just now. Your question stays here until it can.";

impl App {
    pub(super) fn submit(&mut self) -> Result<(), JsValue> {
        if self.ask(&self.composer.question())? {
            self.composer.clear();
        }
        Ok(())
    }

    /// Asks, unless there is nothing to ask, an answer is being written, the server is away or a control is wrong.
    /// Returns whether it was asked.
    pub(super) fn ask(&mut self, question: &str) -> Result<bool, JsValue> {
        if question.is_empty() || self.running.is_some() {
            return Ok(false);
        }
        if !self.socket.is_open() {
            self.complain(AWAY);
            return Ok(false);
        }
        let messages = self.conversation.ask(question);
        let request = match self.settings.request(messages, &self.plugins.names(), &self.limits) {
            Ok(request) => Box::new(request),
            Err(invalid) => {
                self.complain(&invalid.message);
                self.open_panel(true);
                controls::point_at(&invalid.id);
                return Ok(false);
            }
        };
        self.asked += 1;
        let id = format!("g{}", self.asked);
        self.socket.send(&ClientFrame::Generate { id: id.clone(), request })?;

        self.forget_figures();
        self.failed = None;
        self.banner.hide();
        self.open_panel(false);
        self.composer.set_running(true);
        let exchange = self.transcript.begin(question);
        self.running = Some(Generation { id, question: question.to_owned(), answer: String::new(), exchange });
        self.paint_soon()?;
        Ok(true)
    }

    /// The answer ends when the server says so, at the end of the round.
    pub(super) fn stop(&mut self) -> Result<(), JsValue> {
        let Some(running) = &self.running else { return Ok(()) };
        self.composer.set_stopping();
        self.socket.send(&ClientFrame::Cancel { id: running.id.clone() })
    }

    /// Asks again, in place of what failed.
    pub(super) fn retry(&mut self) -> Result<(), JsValue> {
        let Some(failed) = self.failed.take() else { return Ok(()) };
        if self.ask(&failed.question)? {
            failed.exchange.remove();
        } else {
            self.failed = Some(failed);
        }
        Ok(())
    }

    pub(super) fn new_chat(&mut self) -> Result<(), JsValue> {
        self.stop()?;
        // What still comes for it has no generation to belong to.
        self.running = None;
        self.failed = None;
        self.conversation = Conversation::default();
        self.transcript.clear();
        self.banner.hide();
        self.composer.set_running(false);
        self.forget_figures();
        self.paint()
    }

    pub(super) fn socket_event(&mut self, event: socket::Event) -> Result<(), JsValue> {
        match event {
            socket::Event::Opened => {
                self.socket.opened();
                self.set_connected(true);
                if self.failed.is_none() {
                    self.banner.hide();
                }
                // Another server may answer now.
                lists::request()
            }
            socket::Event::Frame(Ok(frame)) => self.frame(frame),
            socket::Event::Frame(Err(reason)) => {
                self.fail(&format!("The server sent something this page does not understand: {reason}"));
                Ok(())
            }
            socket::Event::Closed => {
                self.set_connected(false);
                if self.running.is_some() {
                    self.fail(LOST);
                }
                self.socket.closed()
            }
            socket::Event::PauseOver => self.socket.pause_over(),
        }
    }

    fn frame(&mut self, frame: ServerFrame) -> Result<(), JsValue> {
        let is_running = |id: &str| self.running.as_ref().is_some_and(|running| running.id == id);
        match frame {
            ServerFrame::Round { id, tokens, accepted, hit, lanes, .. } if is_running(&id) => {
                self.progress.add(&tokens, accepted, hit, &lanes);
                self.timeline.push(&lanes, hit);
                if let Some(running) = &mut self.running {
                    running.answer.extend(tokens.iter().map(|token| token.text.as_str()));
                    running.exchange.append(&tokens, self.progress.rounds);
                }
                self.paint_soon()
            }
            ServerFrame::Finished { id, reason, usage, specula } if is_running(&id) => {
                self.finish(&reason, &usage, &specula)
            }
            ServerFrame::Error { id, error } if id.as_deref().is_none_or(is_running) => {
                let advice = match error.code.as_deref() {
                    Some("context_length_exceeded") => " A new chat begins without the earlier turns.",
                    _ => "",
                };
                self.fail(&format!("{}{advice}", sentence(&error.message)));
                Ok(())
            }
            // The beginning shows nothing yet; frames of forgotten generations are late.
            _ => Ok(()),
        }
    }

    fn finish(&mut self, reason: &str, usage: &Usage, report: &Report) -> Result<(), JsValue> {
        let ending = if reason == "cancelled" { Ending::Stopped } else { Ending::Finished };
        let facts = facts::of_report(reason, usage, report, &self.progress);
        if let Some(ended) = self.end(ending, &facts) {
            self.conversation.push(ended.question, ended.answer);
        }
        self.paint()
    }

    fn fail(&mut self, message: &str) {
        if let Some(Generation { question, exchange, .. }) = self.end(Ending::Failed, &facts::of_failure()) {
            self.failed = Some(Failed { question, exchange });
        }
        self.complain(message);
    }

    /// The banner takes room from the messages, which then end below the reader's view.
    pub(super) fn complain(&self, message: &str) {
        self.banner.show(message, self.failed.is_some());
        self.transcript.follow();
    }

    fn end(&mut self, ending: Ending, facts: &HtmlElement) -> Option<Generation> {
        let ended = self.running.take()?;
        ended.exchange.end(ending, facts);
        self.transcript.settle();
        self.composer.set_running(false);
        Some(ended)
    }

    fn set_connected(&self, connected: bool) {
        self.meters.set_connected(connected);
        self.composer.set_connected(connected);
        self.banner.set_connected(connected);
    }

    fn forget_figures(&mut self) {
        self.progress = Progress::default();
        self.timeline.clear();
    }
}

/// The server's messages begin in lower case and end without a full stop, to be joined; alone they are sentences.
fn sentence(message: &str) -> String {
    let mut letters = message.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let end = if message.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}
