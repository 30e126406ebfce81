//! RTMP ingest (Adobe RTMP 1.0): encoders push, [`Event`](super::Event)s come out.
//!
//! | file | holds |
//! |---|---|
//! | `server.rs` | listeners: plain, TLS, shared and own ports |
//! | `connection.rs` | one connection: its socket and every time limit |
//! | `session.rs` | the dialogue of one connection: bytes in, replies and steps out |
//! | `chunk.rs` | chunk streams → messages |
//! | `amf0.rs` `command.rs` `reply.rs` | what messages say, and what we say back |
//! | `enhanced.rs` | what we can do of Enhanced RTMP |
//! | `end.rs` | every way a connection ends |
//! | `metrics.rs` | what is counted |
//!
//! The handshake and the chunk writer are `rml_rtmp`'s. Nothing a peer sends reaches its chunk reader or its AMF0 decoder:
//! the one panics on interleaved chunk streams, the other overflows the stack on nested values.

pub mod amf0;
pub mod chunk;
pub mod command;
mod connection;
pub mod end;
mod enhanced;
pub mod metrics;
mod reply;
pub mod server;
pub mod session;

use std::{sync::Arc, time::Duration};

pub use end::End;
pub use metrics::Metrics;
pub use server::Server;

use super::lobby::Places;

/// What a [`Server`] is told.
#[derive(Debug, Clone, Default)]
pub struct Config {
    pub limits: Limits,
    pub metrics: Arc<Metrics>,
}

/// Bounds of all RTMP listeners together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub places: Places,
    /// From accept to an accepted publish, TLS included.
    pub publish_within: Duration,
    /// Slower than this, in bytes per second on average, is too slow before the publish …
    pub slowest: u64,
    /// … once this much time has gone by.
    pub slow_grace: Duration,
    /// How long a refusal that may answer a guess is held back.
    pub slow_refusal: Duration,
    /// Longest time without a frame or configuration of a publishing encoder.
    pub silence: Duration,
    /// A publishing encoder that sends nothing for this long is asked whether it is there: a connection whose other end is
    /// gone without a word breaks by that.
    pub ping_after: Duration,
    /// Longest time for a reply to leave.
    pub write_within: Duration,
    /// Longest wait for the peer to close after our last reply. Closing earlier would reset the connection and lose it.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            places: Places::default(),
            publish_within: Duration::from_secs(10),
            slowest: 100,
            slow_grace: Duration::from_secs(3),
            slow_refusal: Duration::from_secs(1),
            silence: Duration::from_secs(15),
            ping_after: Duration::from_secs(3),
            write_within: Duration::from_secs(5),
            drain: Duration::from_secs(2),
        }
    }
}
