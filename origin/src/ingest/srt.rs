//! SRT ingest (draft-sharabayko-srt-01, live mode): encoders call, an MPEG transport stream comes out.
//!
//! | file | holds |
//! |---|---|
//! | [`weir_shared::srt`] | packets, handshakes and numbers as they are on the wire, keys and payload encryption |
//! | `cookie.rs` `handshake.rs` `reject.rs` | the handshake: stateless until the cookie is back |
//! | `streamid.rs` | what a stream id asks for |
//! | `clock.rs` `receiver.rs` `acks.rs` | play times, the buffer and its holes, acknowledgements |
//! | `session.rs` | one publish: all of the above together |
//! | `socket.rs` `port.rs` `server.rs` | datagrams in batches, handshakes, limits |
//! | `connection.rs` | one call: admission, its session, its payloads on their way to the pipeline |
//! | `end.rs` `metrics.rs` | every way a call ends; what is counted |
//!
//! All but the last three lines of this table are pure: bytes and the time in; packets, payloads and timeouts out.

pub mod acks;
pub mod clock;
mod connection;
pub mod cookie;
pub mod end;
pub mod handshake;
pub mod metrics;
mod port;
pub mod receiver;
pub mod reject;
pub mod server;
pub mod session;
mod socket;
pub mod streamid;

use std::{sync::Arc, time::Duration};

pub use end::End;
pub use metrics::Metrics;
pub use server::Server;
use weir_shared::srt::{crypto, hello, sequence, wire};

use super::{lobby::Places, ts};

/// What a [`Server`] is told.
#[derive(Debug, Clone, Default)]
pub struct Config {
    pub limits: Limits,
    pub offer: handshake::Offer,
    pub session: session::Settings,
    pub ts: ts::Limits,
    pub metrics: Arc<Metrics>,
}

/// Bounds of all SRT ports together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub places: Places,
    /// Longest time without a frame or configuration of a publishing encoder.
    pub silence: Duration,
    /// How long a refusal that may answer a guess is held back: callers call again at once.
    pub slow_refusal: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            places: Places::default(),
            silence: Duration::from_secs(15),
            slow_refusal: Duration::from_secs(1),
        }
    }
}
