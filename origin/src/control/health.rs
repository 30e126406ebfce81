//! How a push is doing, in the words of the public API: figures of each publisher, track by track, and of the way to it.
//!
//! Plain data. Before this: `app/health.rs`, which fills it from what the media side measured. After this:
//! `api/commands.rs`.

use serde::Serialize;
use utoipa::ToSchema;

use super::lifecycle::Slot;

/// How a live stream is doing. Rates are those of the last five seconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Bits per second that arrive from the publishers that viewers see.
    pub bitrate: Option<u64>,
    /// Frames per second of their first video track.
    pub frame_rate: Option<f64>,
    /// Seconds between its key frames.
    pub key_frame_interval: Option<f64>,
    /// How unevenly frames arrive (RFC 3550 section 6.4.1), in milliseconds: of all their tracks the worst.
    pub jitter_ms: Option<u64>,
    /// Bytes held in memory for playback.
    pub window_bytes: u64,
    /// Frames that could not be used.
    pub frames_dropped: u64,
    /// Primary and backup, and each variant of them.
    pub publishers: Vec<PublisherHealth>,
    /// What the broadcaster could do better.
    pub warnings: Vec<String>,
}

/// One publisher.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublisherHealth {
    pub slot: Slot,
    /// 1, or more for further renditions of the same broadcast (`<key>/2`).
    pub variant: u8,
    /// Viewers see this one.
    pub shown: bool,
    /// Media comes.
    pub sending: bool,
    pub connected_seconds: u64,
    /// Steps of more than a second from one frame to the next.
    pub gaps: u64,
    pub frames_dropped: u64,
    /// Frames whose timestamps were put right.
    pub frames_repaired: u64,
    pub tracks: Vec<TrackHealth>,
    /// The way to the encoder. Null over RTMP, which does not say.
    pub link: Option<LinkHealth>,
}

/// One track.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrackHealth {
    /// `video`, `audio`, and a number if there are more.
    pub track: String,
    /// RFC 6381.
    pub codec: String,
    pub width: Option<u16>,
    pub height: Option<u16>,
    pub frame_rate: f64,
    /// Bits per second.
    pub bitrate: u64,
    /// Seconds between key frames; video only.
    pub key_frame_interval: Option<f64>,
    /// As of the whole stream.
    pub jitter_ms: u64,
    pub frames: u64,
}

/// The way to an encoder over SRT. Counts are since it connected.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkHealth {
    /// Round trip, in milliseconds.
    pub rtt_ms: f64,
    /// How long packets are held back for those that are sent again, in milliseconds.
    pub latency_ms: f64,
    pub packets: u64,
    /// Noticed as missing, whether they came after all or not.
    pub packets_missing: u64,
    /// Of those, never came in time.
    pub packets_lost: u64,
    pub packets_retransmitted: u64,
    /// Packets missing at first, in a hundred that were sent: how lossy the network is.
    pub loss_percent: f64,
}
