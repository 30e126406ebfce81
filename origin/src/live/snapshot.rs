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
        playlist::{MediaPlaylist, Part, PreloadHint, RenditionReport, Segment, ServerControl},
        position::{LiveEdge, MediaSequence},
        reload::Skip,
        write,
    },
    id::{Epoch, RenditionName},
    serve::gzip::gzip,
};

use crate::package::{
    frame::TrackKind,
    window::{self, Window},
};

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
}

/// One rendition at one moment. Never changes after publication.
#[derive(Debug)]
pub struct Snapshot {
    pub settings: Arc<RenditionSettings>,
    pub edge: LiveEdge,
    pub window: Window,
    /// Where the other renditions stood at this moment.
    pub reports: Vec<RenditionReport>,
    texts: [OnceLock<Text>; 2],
}

/// A playlist as it goes over the wire, plain and compressed; made once, by the first reader that asks.
#[derive(Debug)]
struct Text {
    plain: Bytes,
    gzip: OnceLock<Bytes>,
}

impl Snapshot {
    pub fn new(
        settings: Arc<RenditionSettings>,
        edge: LiveEdge,
        window: Window,
        reports: Vec<RenditionReport>,
    ) -> Self {
        Self {
            settings,
            edge,
            window,
            reports,
            texts: Default::default(),
        }
    }

    /// The playlist's bytes: full or delta, gzip-encoded or not.
    pub fn playlist(&self, skip: Skip, compressed: bool) -> Bytes {
        let text = self.texts[usize::from(skip == Skip::Yes)].get_or_init(|| {
            let full = self.to_playlist();
            let written = match skip {
                Skip::No => write::write(&full),
                Skip::Yes => write::write(&delta::delta(&full)),
            };
            Text {
                plain: written.into(),
                gzip: OnceLock::new(),
            }
        });
        if compressed {
            text.gzip.get_or_init(|| gzip(&text.plain)).clone()
        } else {
            text.plain.clone()
        }
    }

    /// The full playlist as data.
    pub fn to_playlist(&self) -> MediaPlaylist {
        let settings = &self.settings;
        let mut segments: Vec<Segment> = self.window.listed().map(|s| self.complete(s)).collect();
        let preload_hint = if self.edge.ended {
            None
        } else {
            segments.push(self.open());
            Some(PreloadHint {
                uri: self.name(MediaObject::Part(self.edge.next_part)),
            })
        };
        let independent_segments = self.window.all_independent();
        let mut playlist = MediaPlaylist {
            version: 9,
            target_duration_seconds: settings.target_duration_seconds,
            server_control: Some(settings.server_control),
            part_target: Some(settings.part_target),
            media_sequence: self.edge.first,
            discontinuity_sequence: self.window.discontinuity_sequence(),
            independent_segments,
            playlist_type: None,
            skipped_segments: None,
            segments,
            preload_hint,
            rendition_reports: self.reports.clone(),
            ended: self.edge.ended,
        };
        playlist.version = write::required_version(&playlist);
        delta::strip_old_parts(&mut playlist);
        playlist
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
                duration: part.duration,
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

    /// What other renditions' playlists say of this one (section 4.4.5.4).
    pub fn report(&self) -> RenditionReport {
        let edge = &self.edge;
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
            uri: ObjectName::MediaPlaylist(self.settings.name.clone()).to_string(),
            last_msn,
            last_part: Some(last_part),
        }
    }
}
