//! Ingest: sockets of broadcasters in, [`Event`]s out. Whatever the protocol, it ends here.
//!
//! After this: `live/pipeline.rs`.

pub mod flv;
pub mod rtmp;
pub mod timeline;

use std::sync::Arc;

use crate::{codec::CodecConfig, package::frame::Frame};

/// What a publish session tells its pipeline, in order.
#[derive(Debug, Clone)]
pub enum Event {
    /// What the encoder says it will send (RTMP `onMetaData`). Hints only; may come several times or never.
    Announced(Announced),
    /// A track's decoder configuration, first or changed. Precedes the track's first frame.
    Config(Arc<CodecConfig>),
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
