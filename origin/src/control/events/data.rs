//! What there is to know about each event: the `data` of its JSON.
//!
//! Pure. Before this: `events.rs`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `stream.created`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamCreated {
    /// The stream's name, for people.
    pub name: String,
}

/// `stream.live`: an encoder is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamLive {
    /// Whether it is the backup push.
    pub backup: bool,
}

/// `stream.interrupted`: the encoder is gone and may come back within the grace time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamInterrupted {
    /// Milliseconds that the stream stays open for it.
    pub grace_ms: u64,
}

/// `stream.resumed`: the encoder came back in time, the playlist goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamResumed {
    /// Whether it is the backup push.
    pub backup: bool,
}

/// `stream.ended`: the broadcast is over, its playlist has its end mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamEnded {
    /// Whether the stream takes another push without being activated first.
    pub restartable: bool,
}

/// `stream.disabled`: it takes no push until it is activated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamDisabled {
    /// False when the stream was switched off for good.
    pub active: bool,
}

/// What is wrong with an ingest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthWarning {
    /// Key frames are further apart than the target duration.
    KeyFramesTooRare,
    /// Frames were dropped.
    FramesDropped,
    /// Frames come late, in bursts or with gaps.
    Unsteady,
    /// Audio was announced and does not come.
    NoAudio,
}

impl HealthWarning {
    /// What the broadcaster can do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::KeyFramesTooRare => {
                "key frames are too far apart: set the encoder's key-frame interval to 1 or 2 seconds"
            }
            Self::FramesDropped => "frames can't be used: look at the stream's health",
            Self::Unsteady => "the push comes late, in bursts or with gaps: lower its bit rate, or look at its line",
            Self::NoAudio => "no audio comes: look at the encoder's audio source",
        }
    }
}

/// `stream.health_warning`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamHealthWarning {
    pub code: HealthWarning,
    /// What the broadcaster can do about it.
    pub message: String,
}

/// `broadcasting.started`: viewers are let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BroadcastingStarted {}

/// `broadcasting.stopped`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BroadcastingStopped {}

/// `broadcasting.failed`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BroadcastingFailed {
    /// For people.
    pub message: String,
}

/// `recording.started`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordingStarted {
    /// The `<recording>` of `/vod/<key>/<recording>/index.m3u8`.
    pub recording: String,
}

/// `recording.completed`: all of it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordingCompleted {
    pub recording: String,
    pub duration_ms: u64,
    pub bytes: u64,
    /// Where it is watched.
    pub url: String,
}

/// `recording.failed`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordingFailed {
    pub recording: String,
    /// What there is of it; it stays playable.
    pub duration_ms: u64,
    pub bytes: u64,
    /// For people.
    pub message: String,
}
