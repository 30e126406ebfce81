//! One access unit on the normalised media timeline: what ingest hands to packaging.
//!
//! Before this: `ingest/timeline.rs`. After this: `package/segmenter.rs`.

use bytes::Bytes;
use weir_shared::media::time::MediaTime;

/// What an elementary stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TrackKind {
    Video,
    Audio,
}

impl TrackKind {
    /// Label value and log word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio => "audio",
        }
    }
}

/// Which elementary stream of a publish a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackId {
    pub kind: TrackKind,
    /// The encoder's number among the tracks of this kind: 0 is the one meant for most viewers, others (further
    /// languages, other cameras) say nothing by their order (Enhanced RTMP v2, "Track Ordering").
    pub number: u8,
}

impl TrackId {
    /// The only video track of most publishes.
    pub const VIDEO: Self = Self {
        kind: TrackKind::Video,
        number: 0,
    };
    /// The only audio track of most publishes.
    pub const AUDIO: Self = Self {
        kind: TrackKind::Audio,
        number: 0,
    };
}

impl std::fmt::Display for TrackId {
    /// `video`, `audio`, `audio-2`: the track's name as a rendition.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.number {
            0 => f.write_str(self.kind.as_str()),
            number => write!(f, "{}-{}", self.kind.as_str(), u16::from(number) + 1),
        }
    }
}

/// One access unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub track: TrackId,
    /// Decode time on the stream's continuous timeline; never decreases within a track.
    pub dts: MediaTime,
    /// Presentation time minus decode time; may be negative.
    pub composition_offset: MediaTime,
    /// Decoding can begin here (IDR, random access picture, shown key frame). Always true for audio.
    pub key: bool,
    /// H.264, HEVC: NAL units with the length prefixes that the decoder configuration declares. AV1: one temporal unit.
    /// Audio: one raw AAC frame or one Opus packet.
    pub data: Bytes,
}

impl Frame {
    /// Presentation time.
    pub fn pts(&self) -> MediaTime {
        self.dts + self.composition_offset
    }
}
