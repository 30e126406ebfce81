//! The steps of a recording as its journal writes them down, and what becomes of a segment and an init section by them.
//! Pure.
//!
//! Before this: `collect.rs`, which makes them. After this: `ledger.rs`, their sum; `journal.rs`, their file.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_shared::{
    hls::position::MediaSequence,
    id::{Epoch, RecordingName, RenditionName, StreamKey},
};

/// Where a segment stands in a recording: first by the life of the stream it comes from, then by its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub epoch: Epoch,
    pub msn: MediaSequence,
}

/// SHA-256 of a segment's or init section's bytes, hexadecimal.
pub type Digest = String;

/// One step of a recording, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Line {
    Begin {
        key: StreamKey,
        recording: RecordingName,
        /// Milliseconds since 1970.
        started_ms: u64,
    },
    /// The newest multivariant playlist of the live stream.
    Master { text: String },
    Init {
        rendition: RenditionName,
        epoch: u64,
        index: u32,
        bytes: u64,
        sha256: Digest,
        /// EXT-X-TARGETDURATION of the rendition.
        target_duration_seconds: u32,
    },
    /// A segment begins.
    Open {
        rendition: RenditionName,
        epoch: u64,
        msn: u64,
        /// Wall-clock time of the first sample, milliseconds since 1970.
        pdt_ms: u64,
        discontinuity: bool,
        /// Another publisher's media begins here.
        new_publisher: bool,
        init: u32,
        independent: bool,
    },
    /// One part of the segment that is open in this rendition.
    Part {
        rendition: RenditionName,
        bytes: u64,
        duration_us: u64,
        /// First 16 hexadecimal digits of the part's SHA-256.
        sum: String,
        /// Where its first frame ends, if that is a key frame: what trick play fetches.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key_frame_bytes: Option<u64>,
    },
    /// The open segment is complete.
    Close {
        rendition: RenditionName,
        /// Of all its parts; fewer than they said if a crash tore the last.
        bytes: u64,
        duration_us: u64,
        sha256: Digest,
    },
    /// It is in the object store, whole.
    Stored {
        rendition: RenditionName,
        epoch: u64,
        msn: u64,
    },
    InitStored {
        rendition: RenditionName,
        epoch: u64,
        index: u32,
    },
    /// It will never be there: its bytes are gone.
    Lost {
        rendition: RenditionName,
        epoch: u64,
        msn: u64,
    },
    /// A thumbnail of the segment's first picture is in the object store.
    Picture {
        rendition: RenditionName,
        epoch: u64,
        msn: u64,
    },
    /// Nothing more will be recorded. With `failure`: because that went wrong.
    Finish { failure: Option<String> },
    /// Playlists and index are in the store: nothing is left to do there.
    Finalised,
}

/// How far a segment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Parts still come.
    Open,
    /// Complete, in the journal.
    Kept,
    Stored,
    Lost,
}

/// A segment of one rendition.
#[derive(Debug, Clone, PartialEq)]
pub struct Take {
    pub stage: Stage,
    pub duration: Duration,
    pub pdt_ms: u64,
    pub discontinuity: bool,
    pub new_publisher: bool,
    pub init: u32,
    pub independent: bool,
    pub bytes: u64,
    pub sha256: Digest,
    pub key_frame_bytes: Option<u64>,
    /// Lengths and checksums of its parts; only while it is open.
    pub parts: Vec<PartCheck>,
}

/// How a part in the journal is told from a torn one.
#[derive(Debug, Clone, PartialEq)]
pub struct PartCheck {
    pub bytes: u64,
    pub duration: Duration,
    pub sum: String,
}

/// An init section.
#[derive(Debug, Clone, PartialEq)]
pub struct Init {
    pub bytes: u64,
    pub sha256: Digest,
    pub stored: bool,
}
