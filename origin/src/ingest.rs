//! Ingest: sockets of broadcasters in, [`Event`]s out. Whatever the protocol, it ends here.
//!
//! After this: `live/pipeline.rs`.

pub mod admission;
pub mod catalog;
mod counted;
pub mod flv;
pub mod language;
pub mod lobby;
pub mod ports;
pub mod rtmp;
pub mod secret;
pub mod srt;
pub mod timeline;
pub mod ts;
pub mod webhook;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use parking_lot::Mutex;
use serde::{Serialize, Serializer};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use weir_shared::id::StreamKey;

pub use admission::Admitted;

use language::Languages;

use crate::{
    codec::CodecConfig,
    package::frame::{Frame, TrackId},
};

/// What a publish session tells its pipeline, in order.
#[derive(Debug, Clone)]
pub enum Event {
    /// What the encoder says it will send (RTMP `onMetaData`). Hints only; may come several times or never.
    Announced(Announced),
    /// A track's decoder configuration, first or changed. Precedes the track's first frame.
    Config(TrackId, Arc<CodecConfig>),
    /// One access unit.
    Frame(Frame),
}

/// Hints of an encoder about its publish; `None` = not said.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Announced {
    pub has_video: Option<bool>,
    pub has_audio: Option<bool>,
    /// Frames per second.
    pub frame_rate: Option<f64>,
    /// Bits per second.
    pub video_bitrate: Option<u64>,
    /// Bits per second.
    pub audio_bitrate: Option<u64>,
    pub audio_languages: Languages,
}

/// Which of a stream's two inputs a publish feeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    Primary,
    Backup,
}

impl Slot {
    pub const ALL: [Self; 2] = [Self::Primary, Self::Backup];

    /// Label value and log word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Backup => "backup",
        }
    }
}

/// The listener that a connection came through. Never what the encoder writes in its URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entrance {
    /// The port of all streams.
    Shared,
    /// The port of this one.
    Own(StreamKey),
}

impl Entrance {
    /// The stream that the port belongs to.
    pub const fn own(&self) -> Option<&StreamKey> {
        match self {
            Self::Shared => None,
            Self::Own(key) => Some(key),
        }
    }
}

/// What a connection is wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    Rtmp,
    /// RTMP over TLS.
    Rtmps,
    Srt,
}

impl Transport {
    pub const ALL: [Self; 3] = [Self::Rtmp, Self::Rtmps, Self::Srt];

    /// Label value, log word and URL scheme.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rtmp => "rtmp",
            Self::Rtmps => "rtmps",
            Self::Srt => "srt",
        }
    }
}

/// The socket a publish came over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub entrance: Entrance,
    pub transport: Transport,
    pub peer: SocketAddr,
    pub local: SocketAddr,
}

/// A publish that was let in. Dropping it tells the pipeline that the publisher is gone.
#[derive(Debug)]
pub struct Publication {
    /// Bounded: when it is full the session stops reading and the encoder feels it.
    pub events: mpsc::Sender<Event>,
    /// Cancelled when the publish is wanted no more (takeover, shutdown): the session says so and closes.
    pub stop: CancellationToken,
    /// Kept by the session, read by the pipeline.
    pub tally: Arc<Tally>,
}

/// What a session counts of its publish for the stream's health.
#[derive(Debug, Default)]
pub struct Tally {
    /// Access units left out.
    pub dropped: AtomicU64,
    /// Frames whose timestamps were put right.
    pub repaired: AtomicU64,
    /// What the way to the encoder is like; `None` where the transport does not know.
    pub link: Mutex<Option<Link>>,
}

/// The way to an encoder over SRT. Counts are since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// Round trip, in milliseconds.
    #[serde(rename = "rttMs", serialize_with = "as_millis")]
    pub rtt: Duration,
    /// How long packets are held back for those that are sent again.
    #[serde(rename = "latencyMs", serialize_with = "as_millis")]
    pub latency: Duration,
    /// Media waiting for its play time.
    #[serde(rename = "bufferMs", serialize_with = "as_millis")]
    pub buffer: Duration,
    pub packets: u64,
    /// Noticed as missing, whether they came after all or not.
    pub packets_missing: u64,
    /// Of those, never came in time.
    pub packets_lost: u64,
    pub packets_retransmitted: u64,
    /// Locked with a key that is not known.
    pub packets_undecrypted: u64,
    /// The encoder should have answered these, and says nothing of the round trip.
    pub acknowledgements_unanswered: u64,
}

fn as_millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 10_000.0).round() / 10.0)
}

/// Why a publish was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the application is neither app nor key")]
    UnknownApp,
    #[error("the publish name is no stream key")]
    BadName,
    #[error("no stream of this key")]
    UnknownStream,
    #[error("user name, password or token are wrong")]
    WrongCredentials,
    #[error("the stream asks for a password or a token and none was sent")]
    NoCredentials,
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    #[error("the stream asks for a passphrase and none was used")]
    NoPassphrase,
    #[error("the stream has no passphrase and one was used")]
    UnexpectedPassphrase,
    #[error("the port belongs to another stream")]
    WrongPort,
    #[error("the stream is disabled")]
    Disabled,
    #[error("the stream has a publisher already")]
    Busy,
    #[error("the stream takes no more tracks or renditions")]
    TooManyTracks,
    #[error("the admission webhook said no")]
    WebhookDenied,
    #[error("the admission webhook did not answer as it should")]
    WebhookFailed,
    /// Trying again later may help.
    #[error("this origin takes no more streams")]
    Overloaded,
    #[error("this origin is shutting down")]
    ShuttingDown,
}

impl Refusal {
    /// Label value and log word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownApp => "unknown_app",
            Self::BadName => "bad_key",
            Self::UnknownStream => "unknown_stream",
            Self::WrongCredentials => "wrong_credentials",
            Self::NoCredentials => "no_credentials",
            Self::WrongPassphrase => "wrong_passphrase",
            Self::NoPassphrase => "no_passphrase",
            Self::UnexpectedPassphrase => "unexpected_passphrase",
            Self::WrongPort => "wrong_port",
            Self::Disabled => "disabled",
            Self::Busy => "busy",
            Self::TooManyTracks => "too_many_tracks",
            Self::WebhookDenied => "webhook_denied",
            Self::WebhookFailed => "webhook_failed",
            Self::Overloaded => "overloaded",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// What the encoder is told. Who has not proved anything yet does not learn whether a stream exists.
    pub const fn told(self) -> &'static str {
        match self {
            Self::UnknownApp => "push to rtmp://host/app",
            Self::BadName => "the stream key is malformed",
            Self::UnknownStream | Self::WrongCredentials | Self::NoCredentials => {
                "not authorized: check stream key, user name, password and token"
            }
            Self::WrongPassphrase => "the passphrase is wrong",
            Self::NoPassphrase => "this stream is pushed with a passphrase",
            Self::UnexpectedPassphrase => "this stream is pushed without a passphrase",
            Self::WrongPort => "this stream is not pushed to this port",
            Self::Disabled => "this stream is disabled",
            Self::Busy => "this stream has a publisher already",
            Self::TooManyTracks => "this stream takes no more tracks or renditions",
            Self::WebhookDenied => "not admitted",
            Self::WebhookFailed => "not admitted now, try again later",
            Self::Overloaded => "no capacity for more streams, try again later",
            Self::ShuttingDown => "shutting down, try again",
        }
    }

    /// Whether it may be somebody's guess: the answer then comes slowly.
    pub const fn is_guess(self) -> bool {
        matches!(
            self,
            Self::UnknownStream
                | Self::WrongCredentials
                | Self::NoCredentials
                | Self::WrongPassphrase
                | Self::WrongPort
                | Self::WebhookDenied
        )
    }
}

/// Connects those who were let in to a pipeline.
pub trait Door: Send + Sync + 'static {
    fn publish(&self, admitted: Admitted) -> Result<Publication, Refusal>;
}

/// A key as logs may show it: whoever knows the whole key could publish with it.
pub fn redacted(key: &StreamKey) -> String {
    let key = key.as_str();
    let shown = key.get(..4.min(key.len() / 2)).unwrap_or_default();
    format!("{shown}…")
}
