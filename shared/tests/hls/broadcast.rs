//! A pretend origin: a sliding window that grows part by part, and what it would publish at each moment.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use weir_shared::hls::delta::strip_old_parts;
use weir_shared::hls::playlist::{
    MediaPlaylist, Part, PlaylistType, PreloadHint, RenditionReport, Segment, ServerControl,
};
use weir_shared::hls::position::MediaSequence;
use weir_shared::hls::write::required_version;

/// 2026-11-21T08:40:00.123Z
const BEGIN_MS: u64 = 1_795_250_400_123;

pub(crate) struct Broadcast {
    /// Every segment keeps its parts here; [`Broadcast::published`] strips them.
    window: MediaPlaylist,
    rendition: &'static str,
    map: u32,
    next_part: u64,
    /// Media time so far.
    elapsed: Duration,
    /// The next segment starts with EXT-X-DISCONTINUITY.
    discontinuity: bool,
}

impl Broadcast {
    pub(crate) fn new(rendition: &'static str, target_duration_seconds: u32, part_target: Duration) -> Self {
        let target = Duration::from_secs(target_duration_seconds.into());
        let window = MediaPlaylist {
            version: 9,
            target_duration_seconds,
            server_control: Some(ServerControl {
                can_block_reload: true,
                can_skip_until: Some(target * 6),
                hold_back: None,
                part_hold_back: Some(part_target * 3),
            }),
            part_target: Some(part_target),
            media_sequence: MediaSequence(897_625_200),
            discontinuity_sequence: 0,
            independent_segments: true,
            playlist_type: None,
            skipped_segments: None,
            segments: Vec::new(),
            preload_hint: None,
            rendition_reports: Vec::new(),
            ended: false,
        };
        Self {
            window,
            rendition,
            map: 0,
            next_part: 0,
            elapsed: Duration::ZERO,
            discontinuity: false,
        }
    }

    pub(crate) fn set_skip_boundary(&mut self, boundary: Duration) {
        if let Some(control) = &mut self.window.server_control {
            control.can_skip_until = Some(boundary);
        }
    }

    /// Adds a part, opening a segment if none is open.
    pub(crate) fn part(&mut self, duration: Duration, independent: bool, gap: bool) {
        if self.window.segments.last().is_none_or(|last| last.uri.is_some()) {
            self.window.segments.push(Segment {
                uri: None,
                duration: Duration::ZERO,
                discontinuity: std::mem::take(&mut self.discontinuity),
                map_uri: Some(format!("1z/{}/init{}.mp4", self.rendition, self.map)),
                program_date_time: Some(self.wall_clock()),
                gap: false,
                parts: Vec::new(),
            });
        }
        let uri = self.part_uri(self.next_part);
        self.next_part += 1;
        self.elapsed += duration;
        self.window.segments.last_mut().unwrap().parts.push(Part {
            uri,
            duration,
            independent,
            gap,
        });
    }

    /// Completes the open segment, if there is one. Its EXTINF may be off from the sum of its parts by rounding.
    pub(crate) fn close(&mut self, rounding: Duration) {
        let number = self.window.open_sequence();
        let uri = format!("1z/{}/{number}.m4s", self.rendition);
        if let Some(open) = self.window.segments.last_mut().filter(|last| last.uri.is_none()) {
            let sum: Duration = open.parts.iter().map(|part| part.duration).sum();
            open.duration = sum.saturating_sub(rounding);
            open.gap = open.parts.iter().all(|part| part.gap);
            open.uri = Some(uri);
        }
    }

    /// `segments` segments of `parts` equal parts each.
    pub(crate) fn run(&mut self, segments: usize, parts: usize, duration: Duration) {
        for _ in 0..segments {
            for index in 0..parts {
                self.part(duration, index == 0, false);
            }
            self.close(Duration::ZERO);
        }
    }

    /// The encoder changed its configuration: the next segment has another init section.
    pub(crate) fn change_configuration(&mut self) {
        self.close(Duration::ZERO);
        self.map += 1;
        self.discontinuity = true;
    }

    /// Drops the oldest complete segments.
    pub(crate) fn evict(&mut self, count: usize) {
        for _ in 0..count {
            if self.window.segments.first().is_none_or(|first| first.uri.is_none()) {
                return;
            }
            let gone = self.window.segments.remove(0);
            self.window.media_sequence = self.window.media_sequence.next();
            self.window.discontinuity_sequence += u64::from(gone.discontinuity);
        }
    }

    pub(crate) fn end(&mut self) {
        self.close(Duration::ZERO);
        self.window.ended = true;
    }

    pub(crate) fn make_event(&mut self) {
        self.window.playlist_type = Some(PlaylistType::Event);
    }

    pub(crate) fn report(&mut self, uri: &str, last_msn: u64, last_part: u32) {
        self.window.rendition_reports = vec![RenditionReport {
            uri: uri.to_owned(),
            last_msn: MediaSequence(last_msn),
            last_part: Some(last_part),
        }];
    }

    /// The full playlist of this moment.
    pub(crate) fn published(&self) -> MediaPlaylist {
        let mut playlist = self.window.clone();
        if !playlist.ended {
            let uri = self.part_uri(self.next_part);
            playlist.preload_hint = Some(PreloadHint { uri });
        }
        playlist.version = required_version(&playlist);
        strip_old_parts(&mut playlist);
        playlist
    }

    fn part_uri(&self, number: u64) -> String {
        format!("1z/{}/p{number}.m4s", self.rendition)
    }

    fn wall_clock(&self) -> SystemTime {
        let ms = u64::try_from(self.elapsed.as_millis()).unwrap();
        UNIX_EPOCH + Duration::from_millis(BEGIN_MS + ms)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Part { micros: u64, independent: bool, gap: bool },
    Close { rounding_micros: u64 },
    ChangeConfiguration,
    Evict(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (100_000..=333_333u64, any::<bool>(), prop::bool::weighted(0.05))
            .prop_map(|(micros, independent, gap)| Step::Part { micros, independent, gap }),
        3 => (0..=5_000u64).prop_map(|rounding_micros| Step::Close { rounding_micros }),
        1 => Just(Step::ChangeConfiguration),
        1 => (1..4usize).prop_map(Step::Evict),
    ]
}

/// Everything a live stream publishes, moment by moment, from its first part on. The Skip Boundary is also drawn below
/// what the rules allow, where segments are skipped that still list parts.
pub(crate) fn evolution() -> impl Strategy<Value = Vec<MediaPlaylist>> {
    let steps = prop::collection::vec(step(), 1..200);
    (steps, 1..9u64, any::<bool>()).prop_map(|(steps, boundary_seconds, ends)| {
        let mut origin = Broadcast::new("video", 1, Duration::from_micros(333_333));
        origin.set_skip_boundary(Duration::from_secs(boundary_seconds));
        let mut published = vec![origin.published()];
        for step in steps {
            match step {
                Step::Part {
                    micros,
                    independent,
                    gap,
                } => origin.part(Duration::from_micros(micros), independent, gap),
                Step::Close { rounding_micros } => origin.close(Duration::from_micros(rounding_micros)),
                Step::ChangeConfiguration => origin.change_configuration(),
                Step::Evict(count) => origin.evict(count),
            }
            published.push(origin.published());
        }
        if ends {
            origin.end();
            published.push(origin.published());
        }
        published
    })
}
