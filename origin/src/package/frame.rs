//! One access unit on the normalised media timeline: what ingest hands to packaging.
//!
//! Before this: `ingest/timeline.rs`. After this: `package/segmenter.rs`.

use bytes::Bytes;
use weir_shared::media::time::MediaTime;

/// Which elementary stream of a publish a frame belongs to.
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

/// One access unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub track: TrackKind,
    /// Decode time on the stream's continuous timeline; never decreases within a track.
    pub dts: MediaTime,
    /// Presentation time minus decode time; may be negative.
    pub composition_offset: MediaTime,
    /// An independent frame (IDR). Always true for audio.
    pub key: bool,
    /// Video: NAL units with the length prefixes that the decoder configuration declares. Audio: one raw AAC frame.
    pub data: Bytes,
}

impl Frame {
    /// Presentation time.
    pub fn pts(&self) -> MediaTime {
        self.dts + self.composition_offset
    }
}
