//! The server's settings. Every bound has its unit in its type or name.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use specula_policies::Class;

use crate::visitors::Visitors;

/// Where to listen and what a client may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Address; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Who may ask.
    pub visitors: Visitors,
    /// Origins (`scheme://host[:port]`) of foreign pages that may use this server.
    pub allowed_origins: Vec<String>,
    /// Largest body of a request, and largest WebSocket message.
    pub max_body_bytes: usize,
    /// Connections held at once; more wait unaccepted.
    pub max_connections: usize,
    /// Longest wait for a request's head, from the opening of the connection or the end of the previous answer: thus also
    /// how long an idle connection is kept.
    pub header_timeout: Duration,
    /// Longest that a body may take to arrive.
    pub body_timeout: Duration,
    /// Longest that a client may take to read nothing of what waits for it.
    pub write_timeout: Duration,
    /// Time between pings on a WebSocket.
    pub ping_interval: Duration,
    /// Longest silence of a WebSocket's client before the socket is dropped; more than `ping_interval`.
    pub pong_timeout: Duration,
    /// Generations at once on one WebSocket.
    pub max_generations_per_socket: usize,
    /// How long running generations may go on after the shutdown signal.
    pub drain_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            visitors: Visitors::Open(Class::Standard),
            allowed_origins: Vec::new(),
            max_body_bytes: 1 << 20,
            max_connections: 1024,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            ping_interval: Duration::from_secs(20),
            pong_timeout: Duration::from_secs(60),
            max_generations_per_socket: 16,
            drain_timeout: Duration::from_secs(30),
        }
    }
}
