//! Frames of the WebSocket `/v1/stream`, JSON text each. Several generations may share a socket, told apart by `id`.

use serde::{Deserialize, Serialize};

use crate::{ApiError, GenerateRequest, Report, Usage};

/// From client to server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientFrame {
    /// Begin a generation. On the wire the request's fields stand beside `type` and `id`.
    Generate {
        /// The client's name for it, unique among those running on the socket; at most 64 bytes.
        id: String,
        /// What to generate.
        #[serde(flatten)]
        request: Box<GenerateRequest>,
    },
    /// End a generation; its `finished` or `error` frame still comes.
    Cancel {
        /// Which.
        id: String,
    },
}

/// From server to client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame {
    /// The generation was admitted.
    Started {
        /// Which.
        id: String,
        /// The seed in force.
        seed: u64,
        /// Tokens of the prompt, template included.
        prompt_tokens: u64,
        /// Method in force.
        method: String,
    },
    /// One round: one pass of the target.
    Round {
        /// Which.
        id: String,
        /// Tokens committed, in order.
        tokens: Vec<RoundToken>,
        /// Draft tokens verified.
        window: u64,
        /// Draft tokens accepted.
        accepted: u64,
        /// Whether the window had been rolled out in time; absent for methods that do not roll out and in the first
        /// round.
        #[serde(skip_serializing_if = "Option::is_none")]
        hit: Option<bool>,
        /// After a hit: who had guessed the round's outcome.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<Source>,
        /// What both devices did, in microseconds since the generation was admitted.
        lanes: Vec<LaneSpan>,
    },
    /// The generation ended.
    Finished {
        /// Which.
        id: String,
        /// `stop`, `length` or `cancelled`.
        reason: String,
        /// Token counts.
        usage: Usage,
        /// What speculation did.
        specula: Box<Report>,
    },
    /// The generation could not begin or go on; or, without an id, the frame could not be read.
    Error {
        /// Which.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// Why.
        error: ApiError,
    },
}

/// A committed token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoundToken {
    /// Its id.
    pub id: u32,
    /// Text that it makes showable; may be empty, may include text held back before.
    pub text: String,
    /// Where it came from.
    pub origin: Origin,
}

/// Where a committed token came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Drawn by the target without speculation (window 0).
    Plain,
    /// Accepted from a window drafted serially (or looked up).
    Draft,
    /// Accepted from a branch rolled out while the target was busy.
    Mirror,
    /// The target's own draw where a draft token differed.
    Correction,
    /// The target's own draw after a fully accepted window.
    Bonus,
}

/// Who guesses outcomes that are rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The draft's own rows.
    Draft,
    /// The target's early exit.
    Exit,
}

/// Which device, doing what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Target, layers 1…e.
    TargetPrefix,
    /// Target, early exit's head and ranking.
    Exit,
    /// Target, layers e+1…N and head.
    TargetSuffix,
    /// Target's thread: rules, draws, acceptance, commit.
    Accept,
    /// Draft, serial drafting that the target waits for.
    DraftSerial,
    /// Draft, rolling out branches.
    DraftRollout,
}

/// One stretch of work, microseconds since the generation was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LaneSpan {
    /// What was done.
    pub lane: Lane,
    /// Begin.
    pub start_us: u64,
    /// End.
    pub end_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_look_on_the_wire_as_documented() {
        let frame = ClientFrame::Generate {
            id: "a".into(),
            request: Box::new(GenerateRequest { prompt: Some("x".into()), ..GenerateRequest::default() }),
        };
        let json = serde_json::to_value(&frame).expect("serialises");
        assert_eq!(json, serde_json::json!({"type": "generate", "id": "a", "prompt": "x"}));
        let error = ServerFrame::Error { id: None, error: ApiError::new("m", "invalid_request_error") };
        let json = serde_json::to_value(&error).expect("serialises");
        let want = serde_json::json!({"type": "error",
            "error": {"message": "m", "type": "invalid_request_error", "param": null, "code": null}});
        assert_eq!(json, want);
    }
}
