//! What readers see of one rendition: an immutable value, replaced after every part.
//!
//! Before this: `live/pipeline.rs`, its only writer. After this: `deliver/playlist.rs`.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use weir_shared::{
    hls::{
        delta,
        name::{MediaObject, ObjectName},
        playlist::{MediaPlaylist, Part, PlaylistType, PreloadHint, RenditionReport, Segment, ServerControl},
        position::{LiveEdge, MediaSequence},
        reload::Skip,
        write,
    },
    id::{Epoch, RenditionName},
    serve::gzip::Piece,
};

use super::text::{self, SharedRuns};
use crate::package::{
    frame::TrackKind,
    window::{self, Window},
};

/// The duration a part is said to have: its own, rounded up to the next whole microsecond above it.
///
/// Shaka 5 places each part at the sum of the durations before it and compares that with the part's `tfdt`. An error of
/// floating point to the wrong side makes it reset its decoder in the middle of a group of pictures, and a second of
/// picture is missing. A sum that runs ahead of `tfdt` by a hair can't err to that side; EXTINF, which is exact, puts
/// it right at each segment.
pub(super) fn declared(duration: Duration) -> Duration {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(micros.saturating_add(1))
}

/// What never changes in a rendition's life.
#[derive(Debug, Clone, PartialEq)]
pub struct RenditionSettings {
    pub name: RenditionName,
    pub track: TrackKind,
    pub epoch: Epoch,
    /// EXT-X-TARGETDURATION.
    pub target_duration_seconds: u32,
    /// EXT-X-PART-INF PART-TARGET.
    pub part_target: Duration,
    /// Equal in all renditions of a stream (section 6.2.4).
    pub server_control: ServerControl,
    /// The past is meant to be watched: EXT-X-PLAYLIST-TYPE says EVENT as long as nothing of it has been removed.
    pub dvr: bool,
}

/// One rendition at one moment. Never changes after publication.
#[derive(Debug)]
pub struct Snapshot {
    pub settings: Arc<RenditionSettings>,
    pub edge: LiveEdge,
    pub window: Window,
    /// Where the other renditions stood at this moment.
    pub reports: Vec<RenditionReport>,
    runs: SharedRuns,
    texts: [OnceLock<Text>; 2],
}

/// A playlist as it goes over the wire, plain and compressed; made once, by the first reader that asks.
#[derive(Debug)]
struct Text {
    pieces: Vec<Piece>,
    gzip: OnceLock<Vec<Bytes>>,
}

impl Snapshot {
    /// `runs`: the same for all snapshots of a rendition.
    pub fn new(
        settings: Arc<RenditionSettings>,
        runs: SharedRuns,
        edge: LiveEdge,
        window: Window,
        reports: Vec<RenditionReport>,
    ) -> Self {
        Self {
            settings,
            edge,
            window,
            reports,
            runs,
            texts: Default::default(),
        }
    }

    /// The playlist's bytes, full or delta, gzip-encoded or not, in chunks that follow one another.
    pub fn playlist(&self, skip: Skip, compressed: bool) -> Vec<Bytes> {
        let text = self.texts[usize::from(skip == Skip::Yes)].get_or_init(|| Text {
            pieces: text::text(self, &self.runs, skip),
            gzip: OnceLock::new(),
        });
        if compressed {
            text.gzip.get_or_init(|| text::chunks(&text.pieces, true)).clone()
        } else {
            text::chunks(&text.pieces, false)
        }
    }

    /// The full playlist as data: what [`playlist`](Self::playlist) writes in a cheaper way.
    pub fn to_playlist(&self) -> MediaPlaylist {
        let mut playlist = self.playlist_from(0);
        delta::strip_old_parts(&mut playlist);
        playlist
    }

    /// The full playlist as data, without its first `base` segments and with all parts.
    pub(super) fn playlist_from(&self, base: usize) -> MediaPlaylist {
        let settings = &self.settings;
        let mut segments: Vec<Segment> = (base..).map_while(|at| self.segment_at(at)).collect();
        let preload_hint = if self.edge.ended {
            None
        } else {
            segments.push(self.open());
            Some(PreloadHint {
                uri: self.name(MediaObject::Part(self.edge.next_part)),
            })
        };
        let mut playlist = MediaPlaylist {
            version: 9,
            target_duration_seconds: settings.target_duration_seconds,
            server_control: Some(settings.server_control),
            part_target: Some(declared(settings.part_target)),
            media_sequence: self.edge.first,
            discontinuity_sequence: self.window.discontinuity_sequence(),
            independent_segments: self.window.all_independent(),
            // Nothing has been removed so far, and players may count on that.
            playlist_type: (settings.dvr && !self.window.slides()).then_some(PlaylistType::Event),
            skipped_segments: None,
            segments,
            preload_hint,
            rendition_reports: self.reports.clone(),
            ended: self.edge.ended,
        };
        playlist.version = write::required_version(&playlist);
        playlist
    }

    /// The listed segment at this place, 0 being the oldest.
    pub(super) fn segment_at(&self, place: usize) -> Option<Segment> {
        self.window.listed_at(place).map(|segment| self.complete(segment))
    }

    /// What other renditions' playlists say of this one.
    pub fn report(&self) -> RenditionReport {
        report(&self.settings.name, &self.edge)
    }

    /// How far from the end parts are listed (section 6.2.2).
    pub(super) fn parts_limit(&self) -> Duration {
        Duration::from_secs(3 * u64::from(self.settings.target_duration_seconds))
    }

    fn complete(&self, segment: &window::Segment) -> Segment {
        Segment {
            uri: Some(self.name(MediaObject::Segment(segment.msn))),
            duration: segment.duration,
            discontinuity: segment.discontinuity,
            map_uri: Some(self.name(MediaObject::Init(segment.init_index))),
            program_date_time: Some(segment.pdt),
            gap: false,
            parts: self.parts(segment.first_part.0, &segment.parts),
        }
    }

    fn open(&self) -> Segment {
        match self.window.open() {
            Some(open) => Segment {
                uri: None,
                duration: Duration::ZERO,
                discontinuity: open.discontinuity,
                map_uri: Some(self.name(MediaObject::Init(open.init_index))),
                program_date_time: Some(open.pdt),
                gap: false,
                parts: self.parts(open.first_part.0, &open.parts),
            },
            None => Segment {
                uri: None,
                duration: Duration::ZERO,
                discontinuity: false,
                map_uri: None,
                program_date_time: None,
                gap: false,
                parts: Vec::new(),
            },
        }
    }

    fn parts(&self, first: u64, parts: &[window::PartEntry]) -> Vec<Part> {
        (first..)
            .zip(parts)
            .map(|(number, part)| Part {
                uri: self.name(MediaObject::Part(weir_shared::hls::position::PartNumber(number))),
                duration: declared(part.duration),
                independent: part.independent,
                gap: false,
            })
            .collect()
    }

    /// Object names relative to the media playlist.
    fn name(&self, object: MediaObject) -> String {
        ObjectName::Media {
            epoch: self.settings.epoch,
            rendition: self.settings.name.clone(),
            object,
        }
        .to_string()
    }
}

/// What other renditions' playlists say of one that stands there (section 4.4.5.4).
pub(super) fn report(name: &RenditionName, edge: &LiveEdge) -> RenditionReport {
    // The last part listed: of the open segment, or of the last complete one while the open one has none.
    let (last_msn, last_part) = if edge.open_parts > 0 {
        (edge.open, edge.open_parts - 1)
    } else {
        (
            MediaSequence(edge.open.0.saturating_sub(1)),
            edge.last_complete_parts.saturating_sub(1),
        )
    };
    RenditionReport {
        uri: ObjectName::MediaPlaylist(name.clone()).to_string(),
        last_msn,
        last_part: Some(last_part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Shaka does with the parts of a segment, in its own arithmetic.
    #[test]
    fn the_sum_of_declared_durations_never_falls_behind_decode_time() {
        for (ticks, scale) in [
            (18_000_u64, 90_000_u64),
            (18_018, 90_000),
            (18_750, 90_000),
            (9 * 1024, 48_000),
            (9 * 1024, 44_100),
        ] {
            let exact = Duration::from_nanos(ticks * 1_000_000_000 / scale);
            let said = declared(exact).as_secs_f64();
            for segment_start in [0.0, 8.0, 3600.1, 90_000.3] {
                let tfdt = 91_890.0;
                let mut start = segment_start;
                for n in 0..40_u64 {
                    let decode_time = (tfdt + (n * ticks) as f64) / scale as f64;
                    let offset = start - decode_time;
                    let first_offset = segment_start - tfdt / scale as f64;
                    assert!(
                        n == 0 || offset > first_offset,
                        "part {n} of {ticks}/{scale} at {segment_start}"
                    );
                    start += said;
                }
            }
        }
    }
}
