//! What the end-to-end tests share: they start the release binary and talk to it as clients do, over its command line,
//! HTTP, server-sent events and WebSocket, and judge only what comes back. No engine, no server room is linked here.
//!
//! A failed expectation panics at the caller, as `assert!` does; nothing here returns an error to be forgotten.
#![allow(clippy::missing_panics_doc)]

mod answer;
mod binary;
mod browser;
mod cli;
mod exposition;
mod folder;
mod http;
mod hub;
mod request;
mod server;
mod socket;
mod sse;
mod tiny;
mod wait;

pub use answer::Answer;
pub use binary::specula;
pub use browser::Browser;
pub use cli::{Generated, bench, exactness, generate, refused, refused_bench, watermark};
pub use exposition::Exposition;
pub use folder::Folder;
pub use http::{CHAT, Reply, TEXT};
pub use hub::{Asked, Hub};
pub use request::{METHODS, bans_the_end, question, questions, with};
pub use server::{Resources, Server};
pub use socket::Socket;
pub use sse::{Sse, StreamedAnswer};
pub use tiny::tiny_model;
pub use wait::{PATIENCE, in_time, until};
