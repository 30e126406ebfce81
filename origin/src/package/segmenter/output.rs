//! What a track's segmenter is told and what it gives.
//!
//! Before this: `package/segmenter.rs`, which fills these in. After this: `live/track.rs`, `package/fmp4`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use weir_shared::media::time::{MediaTime, Ticks, Timescale};

use crate::codec::CodecConfig;

/// What the operator wants of a stream's cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Targets {
    /// Length a part should have.
    pub part: Duration,
    /// A segment ends at the first key frame at or after this.
    pub segment: Duration,
    /// EXT-X-TARGETDURATION: no segment is longer.
    pub target_duration_seconds: u32,
}

/// Who decides where segments end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// This track's own key frames.
    Lead,
    /// Another track, through [`TrackSegmenter::cut_at`](super::TrackSegmenter::cut_at).
    Follow,
}

/// What a push brought about, in order.
#[derive(Debug, Clone)]
pub enum Output {
    /// A segment begins; the parts that follow are its.
    SegmentStart {
        /// Presentation time of its first sample.
        at: MediaTime,
        tfdt: Ticks,
        /// It begins with an independent frame.
        independent: bool,
        /// The decoder configuration changed.
        discontinuity: bool,
        config: Arc<CodecConfig>,
        init_index: u32,
        /// Of all ticks from here to the next segment's start.
        timescale: Timescale,
    },
    Part(Draft),
    /// The segment is complete: the sum of its parts.
    SegmentEnd {
        duration: Ticks,
        /// It ended because no key frame came within the target duration.
        forced: bool,
    },
    /// The input left out more than a part's worth of media: `tfdt` leaps.
    Gap {
        missing: MediaTime,
    },
    Dropped {
        reason: Dropped,
    },
}

/// Why a frame is in no part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// Nothing can be decoded before the first key frame.
    BeforeFirstKeyFrame,
}

/// A part before its bytes are laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Decode time of the first sample.
    pub tfdt: Ticks,
    pub duration: Ticks,
    /// An independent frame is among the samples.
    pub independent: bool,
    pub samples: Vec<Sample>,
}

/// One sample of a [`Draft`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// At least 1.
    pub duration: Ticks,
    /// May be negative.
    pub composition_offset: Ticks,
    pub sync: bool,
    pub data: Bytes,
}
