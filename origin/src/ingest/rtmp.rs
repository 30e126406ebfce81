//! RTMP ingest (Adobe RTMP 1.0): encoders push, [`Event`](super::Event)s come out.
//!
//! | file | holds |
//! |---|---|
//! | `server.rs` | sockets, tasks and time limits: the only file here that waits |
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
pub mod end;
mod enhanced;
pub mod metrics;
mod reply;
pub mod server;
pub mod session;

use std::{sync::Arc, time::Duration};

pub use end::End;
pub use metrics::Metrics;
pub use server::serve;

/// The application name of every push: `rtmp://host/app/<key>`.
pub const APP: &str = "app";

/// What [`serve`] is told.
#[derive(Debug, Clone, Default)]
pub struct Config {
    pub limits: Limits,
    pub metrics: Arc<Metrics>,
}

/// Bounds of the RTMP listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time, publishing or not; more are closed at once.
    pub connections: usize,
    /// From accept to an accepted publish.
    pub publish_within: Duration,
    /// Longest time without a frame or configuration of a publishing encoder.
    pub silence: Duration,
    /// Longest time for a reply to leave.
    pub write_within: Duration,
    /// Longest wait for the peer to close after our last reply. Closing earlier would reset the connection and lose it.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            publish_within: Duration::from_secs(10),
            silence: Duration::from_secs(15),
            write_within: Duration::from_secs(5),
            drain: Duration::from_secs(2),
        }
    }
}
