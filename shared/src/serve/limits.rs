//! What the listeners of a node allow: one value for connections over TCP and QUIC alike.
//!
//! After this: `door.rs` (how many), `pace.rs` (how slow), `tcp.rs` and `quic.rs` (how large).

use std::time::Duration;

use ipnet::IpNet;

/// Limits on connections, whatever is asked on them.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at once; further ones are turned away.
    pub connections: usize,
    /// The same from one address (IPv6: one /64).
    pub connections_per_address: usize,
    /// Addresses that `connections_per_address` does not count: other nodes, a content delivery network in front.
    pub exempt: Vec<IpNet>,
    /// Longest time for a request's head to arrive, from its first byte, and for a TLS or QUIC handshake. A new connection
    /// has as long to send its first request.
    pub head_timeout: Duration,
    /// A connection on which nothing is asked for this long is closed.
    pub idle_timeout: Duration,
    /// An answer must be taken within this time ...
    pub answer_grace: Duration,
    /// ... plus what its length takes at this rate.
    pub answer_bytes_per_second: u64,
    /// Bytes a client may send without making a request by it: empty frames, settings, pings, bodies nobody wants.
    pub chatter_bytes: u64,
    /// Requests a client may take back within [`Self::RESETS_WINDOW`] on one connection.
    pub resets: u32,
    /// Requests at once on one HTTP/2 or HTTP/3 connection.
    pub streams: u32,
    /// Bytes of a request's header list.
    pub header_bytes: u32,
    /// Headers of an HTTP/1.1 request.
    pub h1_headers: usize,
    /// How long an idle HTTP/2 connection may leave a ping unanswered.
    pub ping_timeout: Duration,
}

impl Limits {
    pub const RESETS_WINDOW: Duration = Duration::from_secs(10);
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_address: usize::MAX,
            exempt: Vec::new(),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            answer_grace: Duration::from_secs(10),
            answer_bytes_per_second: 16 * 1024,
            chatter_bytes: 64 * 1024,
            resets: 200,
            streams: 128,
            header_bytes: 16 * 1024,
            h1_headers: 64,
            ping_timeout: Duration::from_secs(20),
        }
    }
}
