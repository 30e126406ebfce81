//! Ingest: sockets of broadcasters in, [`Event`]s out. Whatever the protocol, it ends here.
//!
//! After this: `live/pipeline.rs`.

pub mod flv;
pub mod rtmp;
pub mod timeline;

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use weir_shared::id::StreamKey;

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
}

/// Somebody wants to publish.
#[derive(Debug, Clone)]
pub struct PublishRequest {
    pub key: StreamKey,
    /// What followed `?` in the key or, failing that, in the application name; as sent.
    pub query: Option<String>,
    pub peer: SocketAddr,
    /// The address it came to: ports may belong to streams.
    pub local: SocketAddr,
}

/// A publish that was let in. Dropping it tells the pipeline that the publisher is gone.
#[derive(Debug)]
pub struct Publication {
    /// Bounded: when it is full the session stops reading and the encoder feels it.
    pub events: mpsc::Sender<Event>,
    /// Cancelled when the publish is wanted no more (takeover, shutdown): the session says so and closes.
    pub stop: CancellationToken,
}

/// Why a publish was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no stream of this key")]
    UnknownStream,
    #[error("the stream has a publisher already")]
    Busy,
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
            Self::UnknownStream => "unknown_stream",
            Self::Busy => "busy",
            Self::Overloaded => "overloaded",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

/// Decides who may publish, and connects those to a pipeline.
pub trait Door: Send + Sync + 'static {
    fn publish(&self, request: PublishRequest) -> Result<Publication, Refusal>;
}

/// A key as logs may show it: whoever knows the whole key could publish with it.
pub fn redacted(key: &StreamKey) -> String {
    let key = key.as_str();
    let shown = key.get(..4.min(key.len() / 2)).unwrap_or_default();
    format!("{shown}…")
}
