//! The WebSocket `/v1/stream`: several generations over one socket. Every generation has a task that moves its events into
//! one short queue; the socket's task sends from it. A slow reader thus slows its generations, which the engine ends after
//! its bound, and a reader that takes nothing is dropped by the connection's write time-out.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use specula_engine::{Event, Tenant};
use specula_protocol::ServerFrame;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use warp::ws::{Message, WebSocket};

use crate::app::{App, Phase};
use crate::connections::Slot;
use crate::errors::{Fault, clip};
use crate::generation::admit_value;
use crate::json;
use crate::request_id::RequestId;
use crate::wire;

/// Longest `id` in bytes: it is sent back with every round.
const MAX_ID_BYTES: usize = 64;
/// Frames that wait for the socket, of all its generations together.
const QUEUE: usize = 16;
/// Close codes (RFC 6455, 7.4.1).
const GOING_AWAY: u16 = 1001;
const POLICY: u16 = 1008;

/// Serves a socket until the client leaves, falls silent or the server closes. The slot keeps the connection's place.
pub(crate) async fn serve(app: Arc<App>, (id, tenant): (RequestId, Tenant), socket: WebSocket, slot: Option<Slot>) {
    let (frames, outgoing) = mpsc::channel(QUEUE);
    let session =
        Session { app, id: id.clone(), tenant, socket, frames, running: HashMap::new(), tasks: JoinSet::new() };
    if let Err(error) = session.run(outgoing).await {
        tracing::debug!(request = %id, %error, "a socket ended");
    }
    drop(slot);
}

/// Dropping it drops the tasks and with them the generations.
struct Session {
    app: Arc<App>,
    /// Of the handshake; the log knows all its generations by it.
    id: RequestId,
    /// Whose it is.
    tenant: Tenant,
    socket: WebSocket,
    frames: mpsc::Sender<Outgoing>,
    /// By id: how to cancel; `None` once it was used.
    running: HashMap<String, Option<oneshot::Sender<()>>>,
    tasks: JoinSet<()>,
}

/// A frame on its way to the client.
struct Outgoing {
    /// The id that is free again after this frame.
    ends: Option<String>,
    frame: ServerFrame,
}

impl Session {
    async fn run(mut self, mut outgoing: mpsc::Receiver<Outgoing>) -> Result<(), warp::Error> {
        let mut phase = self.app.phase.subscribe();
        let mut ping = interval(self.app.config.ping_interval);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let now = *phase.borrow_and_update();
            if now == Phase::Closed || (now == Phase::Draining && self.running.is_empty()) {
                return self.close(GOING_AWAY, "the server is shutting down").await;
            }
            tokio::select! {
                Some(out) = outgoing.recv() => self.send_out(out).await?,
                message = self.socket.next() => {
                    heard = Instant::now();
                    match message {
                        None => return Ok(()),
                        Some(Err(error)) => return self.close(POLICY, &clip(&error.to_string())).await,
                        Some(Ok(message)) => if self.receive(message).await?.is_break() { return Ok(()) },
                    }
                }
                _ = ping.tick() => {
                    if heard.elapsed() > self.app.config.pong_timeout {
                        return self.close(POLICY, "no answer to pings").await;
                    }
                    self.socket.send(Message::ping(Vec::new())).await?;
                }
                _ = phase.changed() => {}
                Some(_) = self.tasks.join_next() => {}
            }
        }
    }

    async fn close(mut self, code: u16, reason: &str) -> Result<(), warp::Error> {
        self.socket.send(Message::close_with(code, reason.to_owned())).await?;
        self.socket.close().await
    }

    async fn send_out(&mut self, out: Outgoing) -> Result<(), warp::Error> {
        if let Some(id) = out.ends {
            self.running.remove(&id);
        }
        self.send(&out.frame).await
    }

    async fn send(&mut self, frame: &ServerFrame) -> Result<(), warp::Error> {
        let json = serde_json::to_string(frame).expect("frames have string keys and serialise without failing");
        self.socket.send(Message::text(json)).await
    }

    async fn receive(&mut self, message: Message) -> Result<ControlFlow<()>, warp::Error> {
        if message.is_close() {
            return Ok(ControlFlow::Break(()));
        }
        if message.is_ping() || message.is_pong() {
            return Ok(ControlFlow::Continue(()));
        }
        let text = String::from_utf8(message.into_bytes().to_vec());
        // Text frames have been checked by the protocol's layer; a binary one may be anything.
        let read = match text {
            Ok(text) => self.app.off_thread(move |_| read_frame(&text)).await,
            Err(error) => {
                Ok(Err(FrameFault { id: None, fault: Fault::NotUtf8 { at: error.utf8_error().valid_up_to() } }))
            }
        };
        let taken = match read {
            Ok(Ok(frame)) => self.take(frame),
            Ok(Err(fault)) => Err(fault),
            Err(fault) => Err(FrameFault { id: None, fault }),
        };
        if let Err(FrameFault { id, fault }) = taken {
            self.send(&ServerFrame::Error { id, error: fault.body() }).await?;
        }
        Ok(ControlFlow::Continue(()))
    }

    fn take(&mut self, frame: Frame) -> Result<(), FrameFault> {
        match frame {
            Frame::Generate { id, request } => self.start(id, request),
            // An id that is not running is no fault: a cancel may cross its generation's last frame on the way.
            Frame::Cancel { id } => {
                if let Some(cancel) = self.running.get_mut(&id).and_then(Option::take) {
                    cancel.send(()).ok();
                }
                Ok(())
            }
        }
    }

    fn start(&mut self, id: String, request: Value) -> Result<(), FrameFault> {
        let most = self.app.config.max_generations_per_socket;
        if self.running.contains_key(&id) {
            let message = format!("`id` must be unique among those running on the socket. Given: `{id}`");
            // Without the id, which would seem to end the generation that bears it.
            return Err(FrameFault { id: None, fault: wire::invalid("id", message).into() });
        }
        if self.running.len() >= most {
            let message = format!("at most {most} generations may run on one socket; wait for a `finished` frame");
            return Err(FrameFault { id: Some(id), fault: wire::invalid("id", message).into() });
        }
        let (cancel, cancelled) = oneshot::channel();
        self.running.insert(id.clone(), Some(cancel));
        let asked = Asked { request: self.id.clone(), tenant: self.tenant.clone(), id, body: request };
        self.tasks.spawn(generate(self.app.clone(), asked, self.frames.clone(), cancelled));
        Ok(())
    }
}

/// What a socket's generation is asked for.
struct Asked {
    /// Of the socket's handshake.
    request: RequestId,
    tenant: Tenant,
    /// The client's own.
    id: String,
    /// The fields beside `type` and `id`.
    body: Value,
}

/// Runs one generation, sending its frames as fast as the socket takes them.
async fn generate(app: Arc<App>, asked: Asked, frames: mpsc::Sender<Outgoing>, mut cancelled: oneshot::Receiver<()>) {
    let Asked { request, tenant, id, body } = asked;
    let last = match admit_value(&app, (&request, &tenant), body).await {
        Err(fault) => {
            tracing::info!(%request, code = fault.code(), "refused");
            Some(fault)
        }
        Ok(mut events) => {
            let mut may_cancel = true;
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    asked = &mut cancelled, if may_cancel => {
                        may_cancel = false;
                        if asked.is_ok() {
                            events.cancel();
                        }
                        continue;
                    }
                };
                let Some(event) = event else { break Some(Fault::Internal("the engine ended without a last event")) };
                let ended = matches!(event, Event::Finished(_) | Event::Failed(_));
                let Some(frame) = wire::frame(&id, event) else { continue };
                let out = Outgoing { ends: ended.then(|| id.clone()), frame };
                if frames.send(out).await.is_err() || ended {
                    break None;
                }
            }
        }
    };
    if let Some(fault) = last {
        let frame = ServerFrame::Error { id: Some(id.clone()), error: fault.body() };
        frames.send(Outgoing { ends: Some(id), frame }).await.ok();
    }
}

/// What a client's frame asks for.
#[derive(Debug, PartialEq)]
enum Frame {
    Generate { id: String, request: Value },
    Cancel { id: String },
}

/// A frame that cannot be taken, with its id if that could be read.
#[derive(Debug)]
struct FrameFault {
    id: Option<String>,
    fault: Fault,
}

/// Reads a frame as far as its type and id; the request's own fields are decoded with its generation. By hand, for
/// serde's flattened structs take unknown fields in silence.
fn read_frame(text: &str) -> Result<Frame, FrameFault> {
    let nameless = |fault: Fault| FrameFault { id: None, fault };
    let mut fields = match json::parse(text).map_err(|e| nameless(e.into()))? {
        Value::Object(fields) => fields,
        _ => return Err(nameless(wire::invalid("", "a frame must be an object".into()).into())),
    };
    let id = match fields.remove("id") {
        Some(Value::String(id)) if id.len() <= MAX_ID_BYTES => id,
        Some(Value::String(id)) => {
            let message = format!("`id` must be at most {MAX_ID_BYTES} bytes long. Given: {} bytes", id.len());
            return Err(nameless(wire::invalid("id", message).into()));
        }
        _ => return Err(nameless(wire::invalid("id", "`id` is needed and must be a string".into()).into())),
    };
    let kind = fields.remove("type");
    match kind.as_ref().and_then(Value::as_str) {
        Some("generate") => Ok(Frame::Generate { id, request: Value::Object(fields) }),
        Some("cancel") => match fields.keys().next() {
            None => Ok(Frame::Cancel { id }),
            Some(other) => {
                let message = format!("a `cancel` frame has only `type` and `id`. Given: `{}`", clip(other));
                Err(FrameFault { id: Some(id), fault: wire::invalid(&clip(other), message).into() })
            }
        },
        _ => {
            let message = "`type` must be `generate` or `cancel`".into();
            Err(FrameFault { id: Some(id), fault: wire::invalid("type", message).into() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn frames_are_read_as_far_as_type_and_id() {
        let generate = read_frame(r#"{"type":"generate","id":"a","prompt":"x"}"#).expect("valid");
        assert_eq!(generate, Frame::Generate { id: "a".into(), request: json!({"prompt": "x"}) });
        let cancel = read_frame(r#"{"type":"cancel","id":"a"}"#).expect("valid");
        assert_eq!(cancel, Frame::Cancel { id: "a".into() });
    }

    #[test]
    fn a_wrong_frame_is_answered_with_its_id_if_that_is_readable() {
        let long = format!(r#"{{"type":"cancel","id":"{}"}}"#, "x".repeat(65));
        for (text, id, param) in [
            ("{", None, None),
            ("[]", None, None),
            (r#"{"type":"generate"}"#, None, Some("id")),
            (r#"{"type":"generate","id":7}"#, None, Some("id")),
            (long.as_str(), None, Some("id")),
            (r#"{"type":"stop","id":"a"}"#, Some("a"), Some("type")),
            (r#"{"id":"a"}"#, Some("a"), Some("type")),
            (r#"{"type":"cancel","id":"a","now":true}"#, Some("a"), Some("now")),
        ] {
            let fault = read_frame(text).expect_err(text);
            assert_eq!((fault.id.as_deref(), fault.fault.body().param.as_deref()), (id, param), "{text}");
        }
        assert!(read_frame(&format!(r#"{{"type":"cancel","id":"{}"}}"#, "x".repeat(64))).is_ok());
    }
}
