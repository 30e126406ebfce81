//! A media playlist as plain data. [`write`](super::write) makes text of it, [`parse`](super::parse) reads text into it,
//! [`delta`](super::delta) makes and merges delta updates.

use std::time::{Duration, SystemTime};

use super::position::MediaSequence;

/// One media playlist (section 4.4.3), full or delta.
#[derive(Debug, Clone, PartialEq)]
pub struct MediaPlaylist {
    /// EXT-X-VERSION.
    pub version: u8,
    /// EXT-X-TARGETDURATION, whole seconds.
    pub target_duration_seconds: u32,
    /// EXT-X-SERVER-CONTROL.
    pub server_control: Option<ServerControl>,
    /// EXT-X-PART-INF PART-TARGET, microsecond resolution.
    pub part_target: Option<Duration>,
    /// EXT-X-MEDIA-SEQUENCE. In a delta update: of the full playlist.
    pub media_sequence: MediaSequence,
    /// EXT-X-DISCONTINUITY-SEQUENCE; always written.
    pub discontinuity_sequence: u64,
    /// EXT-X-INDEPENDENT-SEGMENTS.
    pub independent_segments: bool,
    /// EXT-X-PLAYLIST-TYPE.
    pub playlist_type: Option<PlaylistType>,
    /// EXT-X-SKIP SKIPPED-SEGMENTS: how many segments at the front a delta update leaves out. `None` in a full playlist.
    pub skipped_segments: Option<u64>,
    /// Segments in order, the open one (no `uri`) last if there is one.
    pub segments: Vec<Segment>,
    /// EXT-X-PRELOAD-HINT TYPE=PART.
    pub preload_hint: Option<PreloadHint>,
    /// EXT-X-RENDITION-REPORT, one per other rendition.
    pub rendition_reports: Vec<RenditionReport>,
    /// EXT-X-ENDLIST.
    pub ended: bool,
}

/// EXT-X-PLAYLIST-TYPE (section 4.4.3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaylistType {
    Event,
    Vod,
}

/// EXT-X-SERVER-CONTROL (section 4.4.3.8). Durations have microsecond resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerControl {
    pub can_block_reload: bool,
    pub can_skip_until: Option<Duration>,
    pub hold_back: Option<Duration>,
    pub part_hold_back: Option<Duration>,
}

/// A media segment: complete (`uri` is some), or the open one at the live end, of which only parts are listed.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// `None` for the open segment.
    pub uri: Option<String>,
    /// EXTINF, microsecond resolution; zero for the open segment.
    pub duration: Duration,
    /// EXT-X-DISCONTINUITY before this segment.
    pub discontinuity: bool,
    /// EXT-X-MAP URI that applies to this segment. The writer prints the tag where it changes; every parsed segment
    /// carries it. In a delta update the first listed segment always has it printed again.
    pub map_uri: Option<String>,
    /// EXT-X-PROGRAM-DATE-TIME of the first sample, millisecond resolution.
    pub program_date_time: Option<SystemTime>,
    /// EXT-X-GAP.
    pub gap: bool,
    /// EXT-X-PART in order; empty once the segment is far from the live end.
    pub parts: Vec<Part>,
}

/// EXT-X-PART (section 4.4.4.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub uri: String,
    /// Microsecond resolution.
    pub duration: Duration,
    pub independent: bool,
    pub gap: bool,
}

/// EXT-X-PRELOAD-HINT TYPE=PART (section 4.4.5.3), whole resources only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreloadHint {
    pub uri: String,
}

/// EXT-X-RENDITION-REPORT (section 4.4.5.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenditionReport {
    pub uri: String,
    pub last_msn: MediaSequence,
    /// Zero-based; always written.
    pub last_part: Option<u32>,
}

impl MediaPlaylist {
    /// Sequence number of the first listed segment: `media_sequence` plus what a delta update skipped.
    pub fn first_listed(&self) -> MediaSequence {
        MediaSequence(self.media_sequence.0.saturating_add(self.skipped_segments.unwrap_or(0)))
    }

    /// Sequence number of the segment that is open or comes next.
    pub fn open_sequence(&self) -> MediaSequence {
        let complete = self.segments.iter().filter(|s| s.uri.is_some()).count() as u64;
        MediaSequence(self.first_listed().0.saturating_add(complete))
    }

    /// Parts of the open segment listed so far.
    pub fn open_parts(&self) -> &[Part] {
        match self.segments.last() {
            Some(segment) if segment.uri.is_none() => &segment.parts,
            _ => &[],
        }
    }
}
