//! A made-up LL-HLS stream by arithmetic: which parts exist at a given moment, what playlists list, what objects hold.
//! Pure.
//!
//! After this: [`crate::origin`] (with rules and seeded defects) and [`crate::floor`] (with as little work as possible).
//! Parts are complete on a fixed grid of time; nothing but that grid and a filler shared by all parts is stored.

use std::{fmt::Write as _, time::Duration};

use bytes::Bytes;
use weir_shared::{
    hls::{
        delta,
        multivariant::{self, Multivariant, Variant},
        name::{MediaObject, ObjectName},
        playlist::{MediaPlaylist, Part, PreloadHint, RenditionReport, Segment, ServerControl},
        position::{LiveEdge, MediaSequence, PartNumber, advance_part_limit},
        write,
    },
    id::{Epoch, RenditionName},
};

use crate::{
    moment::Moment,
    stamp::{self, Identity, STAMP_BYTES},
};

/// Streams are spread over at most so many phases of the part grid: real broadcasts do not tick in step.
const MAX_PHASES: u32 = 50;

/// What to make up.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    pub streams: u32,
    /// Bits per second of each rendition, the best first.
    pub renditions: Vec<u32>,
    pub part_target: Duration,
    pub parts_per_segment: u32,
    /// Complete segments listed.
    pub window_segments: u32,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            streams: 1,
            renditions: vec![2_500_000],
            part_target: Duration::from_millis(200),
            parts_per_segment: 5,
            window_segments: 20,
        }
    }
}

/// A shape that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadShape(&'static str);

impl Shape {
    pub fn check(&self) -> Result<(), BadShape> {
        let part_ms = self.part_target.as_millis();
        let segment_ms = part_ms * u128::from(self.parts_per_segment);
        let segments = 3 * u128::from(self.target_duration_seconds()) * 1000 / segment_ms.max(1);
        match () {
            () if !(1..=10_000).contains(&self.streams) => Err(BadShape("--streams: 1 to 10000")),
            () if !(1..=16).contains(&self.renditions.len()) => Err(BadShape("--bitrate: 1 to 16 renditions")),
            () if self.renditions.iter().any(|b| !(8_000..=400_000_000).contains(b)) => {
                Err(BadShape("--bitrate: 8k to 400M bits per second"))
            }
            () if !(10..=5_000).contains(&part_ms) => Err(BadShape("--part: 10ms to 5s")),
            () if segment_ms == 0 || segment_ms > 30_000 => Err(BadShape("--segment: one part to 30s")),
            () if u128::from(self.window_segments) < segments || self.window_segments > 50_000 => Err(BadShape(
                "--window: at least three target durations, at most 50000 segments",
            )),
            () => Ok(()),
        }
    }

    pub fn segment_target(&self) -> Duration {
        self.part_target * self.parts_per_segment
    }

    fn phases(&self) -> u32 {
        self.streams.clamp(1, MAX_PHASES)
    }

    pub fn target_duration_seconds(&self) -> u32 {
        (self.segment_target().as_millis().div_ceil(1000)).clamp(1, 60) as u32
    }
}

/// A running made-up broadcast.
#[derive(Debug, Clone)]
pub struct Content {
    pub shape: Shape,
    pub epoch: Epoch,
    /// When part 0 began; segments are numbered from here.
    begin: Moment,
    first_sequence: u64,
    filler: Bytes,
    names: Vec<RenditionName>,
}

impl Content {
    /// A broadcast that already has a whole window of history at `now`.
    pub fn new(shape: Shape, now: Moment) -> Self {
        let history = shape.segment_target() * (shape.window_segments + 1);
        let begin = now.minus(history);
        let largest = shape
            .renditions
            .iter()
            .map(|b| payload_bytes(*b, shape.part_target))
            .max();
        let filler: Vec<u8> = (0..largest.unwrap_or(0)).map(|n| (n % 251) as u8 | 1).collect();
        let names = (0..shape.renditions.len())
            .filter_map(|n| if n == 0 { "video".into() } else { format!("video{n}") }.parse().ok())
            .collect();
        let segment_seconds = shape.segment_target().as_secs().max(1);
        Self {
            epoch: Epoch(now.0 / 1000),
            begin,
            first_sequence: begin.0 / 1_000_000 / segment_seconds,
            filler: filler.into(),
            names,
            shape,
        }
    }

    /// One content per phase, evenly spread over a part's time; a stream's is number [`Content::phase_of`].
    pub fn in_phases(self) -> Vec<Self> {
        let phases = self.shape.phases();
        let ahead = |n: u32| self.shape.part_target * n / phases;
        (0..phases)
            .map(|n| Self {
                begin: self.begin.minus(ahead(n)),
                ..self.clone()
            })
            .collect()
    }

    /// Which of [`Content::in_phases`] stream number `stream` belongs to.
    pub fn phase_of(&self, stream: u32) -> usize {
        (stream % self.shape.phases()) as usize
    }

    pub fn renditions(&self) -> &[RenditionName] {
        &self.names
    }

    pub fn rendition(&self, name: &RenditionName) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// Key of stream number `stream`.
    pub fn key(stream: u32) -> String {
        format!("s{stream}")
    }

    /// Inverse of [`Content::key`].
    pub fn stream(&self, key: &str) -> Option<u32> {
        let number = key.strip_prefix('s')?.parse().ok()?;
        (number < self.shape.streams && Self::key(number) == key).then_some(number)
    }

    /// How many parts are complete at `now`.
    pub fn parts_at(&self, now: Moment) -> u64 {
        (now.since(self.begin).as_micros() / self.shape.part_target.as_micros().max(1)) as u64
    }

    /// When part `number` is complete.
    pub fn completes(&self, number: u64) -> Moment {
        let micros = u64::try_from(self.shape.part_target.as_micros()).unwrap_or(u64::MAX);
        Moment(
            self.begin
                .0
                .saturating_add(micros.saturating_mul(number.saturating_add(1))),
        )
    }

    /// Where the playlists stand once `parts` parts are complete.
    pub fn edge(&self, parts: u64) -> LiveEdge {
        let per_segment = u64::from(self.shape.parts_per_segment);
        let complete = parts / per_segment;
        let first = complete.saturating_sub(u64::from(self.shape.window_segments));
        LiveEdge {
            first: MediaSequence(self.first_sequence + first),
            open: MediaSequence(self.first_sequence + complete),
            open_parts: (parts % per_segment) as u32,
            last_complete_parts: if complete == 0 { 0 } else { self.shape.parts_per_segment },
            next_part: PartNumber(parts),
            ended: false,
            advance_parts: advance_part_limit(self.shape.part_target.as_millis() as u64),
        }
    }

    fn name(&self, rendition: &RenditionName, object: MediaObject) -> String {
        let (epoch, rendition) = (self.epoch, rendition.clone());
        ObjectName::Media {
            epoch,
            rendition,
            object,
        }
        .to_string()
    }

    /// The full playlist of a rendition once `parts` parts are complete.
    pub fn playlist(&self, rendition: &RenditionName, parts: u64) -> MediaPlaylist {
        let shape = &self.shape;
        let edge = self.edge(parts);
        let map = self.name(rendition, MediaObject::Init(0));
        let part = |number: u64| Part {
            uri: self.name(rendition, MediaObject::Part(PartNumber(number))),
            duration: shape.part_target,
            independent: number.is_multiple_of(u64::from(shape.parts_per_segment)),
            gap: false,
        };
        let per_segment = u64::from(shape.parts_per_segment);
        let segment = |sequence: u64, listed: u64| {
            let from = (sequence - self.first_sequence) * per_segment;
            let complete = listed == per_segment;
            Segment {
                uri: complete.then(|| self.name(rendition, MediaObject::Segment(MediaSequence(sequence)))),
                duration: if complete {
                    shape.segment_target()
                } else {
                    Duration::ZERO
                },
                discontinuity: false,
                map_uri: Some(map.clone()),
                program_date_time: Some(self.completes(from).minus(shape.part_target).to_system()),
                gap: false,
                parts: (from..from + listed).map(part).collect(),
            }
        };
        let mut segments: Vec<_> = (edge.first.0..edge.open.0).map(|n| segment(n, per_segment)).collect();
        if edge.open_parts > 0 {
            segments.push(segment(edge.open.0, u64::from(edge.open_parts)));
        }
        let target = Duration::from_secs(u64::from(shape.target_duration_seconds()));
        let last = parts.saturating_sub(1);
        let report = |other: &RenditionName| RenditionReport {
            uri: ObjectName::MediaPlaylist(other.clone()).to_string(),
            last_msn: MediaSequence(self.first_sequence + last / per_segment),
            last_part: Some((last % per_segment) as u32),
        };
        let mut playlist = MediaPlaylist {
            version: 1,
            target_duration_seconds: shape.target_duration_seconds(),
            server_control: Some(ServerControl {
                can_block_reload: true,
                can_skip_until: Some(target * 6),
                hold_back: Some(target * 3),
                part_hold_back: Some(shape.part_target * 3),
            }),
            part_target: Some(shape.part_target),
            media_sequence: edge.first,
            discontinuity_sequence: 0,
            independent_segments: true,
            playlist_type: None,
            skipped_segments: None,
            segments,
            preload_hint: Some(PreloadHint {
                uri: self.name(rendition, MediaObject::Part(edge.next_part)),
            }),
            rendition_reports: self.names.iter().filter(|n| *n != rendition).map(report).collect(),
            ended: false,
        };
        delta::strip_old_parts(&mut playlist);
        playlist.version = write::required_version(&playlist);
        playlist
    }

    /// The multivariant playlist; `below` is what stands before each media playlist's name (`d/`, say).
    pub fn multivariant(&self, below: &str) -> String {
        let variants = self
            .names
            .iter()
            .zip(&self.shape.renditions)
            .map(|(name, bitrate)| Variant {
                video_range: None,
                uri: format!("{below}{}", ObjectName::MediaPlaylist(name.clone())),
                bandwidth: u64::from(*bitrate) * 11 / 10,
                average_bandwidth: Some(u64::from(*bitrate)),
                codecs: Some("avc1.64001f".into()),
                resolution: Some((1280, 720)),
                frame_rate_milli: Some(30_000),
                audio_group: None,
            });
        multivariant::write(&Multivariant {
            independent_segments: true,
            version: multivariant::REQUIRED_VERSION,
            variants: variants.collect(),
            media: vec![],
        })
    }

    /// The bytes of part `number`, in pieces; `completed` goes into its head.
    pub fn part(&self, stream: u32, rendition: usize, number: u64, completed: Moment) -> Vec<Bytes> {
        let bitrate = self.shape.renditions.get(rendition).copied().unwrap_or(0);
        let payload = payload_bytes(bitrate, self.shape.part_target);
        let name = self.names.get(rendition).map_or("", RenditionName::as_str);
        let identity = Identity {
            stream: stamp::stream_tag(&Self::key(stream)),
            rendition: stamp::stream_tag(name) as u32,
            part: number,
        };
        let head = stamp::write(completed, identity, payload as u32);
        vec![
            Bytes::copy_from_slice(&head),
            self.filler.slice(..payload.min(self.filler.len())),
        ]
    }

    /// The parts of segment `sequence` that are complete once `parts` are, by number.
    pub fn segment_parts(&self, sequence: MediaSequence, parts: u64) -> Option<std::ops::Range<u64>> {
        let per_segment = u64::from(self.shape.parts_per_segment);
        let from = sequence.0.checked_sub(self.first_sequence)?.checked_mul(per_segment)?;
        let to = from.checked_add(per_segment)?;
        (to <= parts && self.held(from, parts)).then_some(from..to)
    }

    /// Whether a part can still be had: the window and as much again.
    pub fn held(&self, number: u64, parts: u64) -> bool {
        let kept = u64::from(self.shape.parts_per_segment) * u64::from(self.shape.window_segments) * 2;
        number < parts && number >= parts.saturating_sub(kept)
    }

    /// A stand-in for an init section: boxes that say nothing.
    pub fn init(&self) -> Bytes {
        let mut text = String::from("\0\0\0\u{10}ftypiso6\0\0\0\0");
        let _ = write!(text, "\0\0\0\u{8}free");
        Bytes::from(text.into_bytes())
    }
}

fn payload_bytes(bitrate: u32, part: Duration) -> usize {
    let bytes = u128::from(bitrate) * part.as_micros() / 8_000_000;
    usize::try_from(bytes).unwrap_or(0).saturating_sub(STAMP_BYTES)
}

#[cfg(test)]
mod tests {
    use weir_shared::hls::{
        parse,
        position::{PartIndex, Verdict, Want, answer},
    };

    use super::*;

    const NOW: Moment = Moment(1_795_000_000_000_000);

    #[test]
    fn playlists_read_back_and_deltas_merge_on_the_way() {
        let content = Content::new(Shape::default(), NOW);
        let video = content.renditions()[0].clone();
        let start = content.parts_at(NOW);
        let mut known = content.playlist(&video, start);
        for parts in start..start + 40 {
            let full = content.playlist(&video, parts);
            assert_eq!(parse::parse(&write::write(&full)), Ok(full.clone()));
            known = delta::merge(&known, delta::delta(&full)).unwrap();
            assert_eq!(known, full);
            let edge = content.edge(parts);
            assert_eq!(full.open_sequence(), edge.open);
            assert_eq!(full.open_parts().len(), edge.open_parts as usize);
            let next = Want::Part(edge.open, PartIndex(edge.open_parts));
            assert_eq!(answer(&edge, next), Verdict::Wait);
        }
    }

    #[test]
    fn a_part_has_the_size_of_its_bitrate_and_a_segment_is_its_parts() {
        let content = Content::new(Shape::default(), NOW);
        let bytes: usize = content.part(0, 0, 7, NOW).iter().map(Bytes::len).sum();
        assert_eq!(bytes, 62_500);
        let parts = content.parts_at(NOW);
        let edge = content.edge(parts);
        let last = MediaSequence(edge.open.0 - 1);
        let range = content.segment_parts(last, parts).unwrap();
        assert_eq!(range.end - range.start, 5);
        assert_eq!(content.segment_parts(edge.open, parts - 1), None);
        assert_eq!(content.segment_parts(MediaSequence(u64::MAX), parts), None);
    }

    #[test]
    fn streams_do_not_tick_in_step() {
        let shape = Shape {
            streams: 200,
            ..Shape::default()
        };
        let phases = Content::new(shape, NOW).in_phases();
        assert_eq!(phases.len(), 50);
        let mut ticks: Vec<_> = phases.iter().map(|c| c.completes(c.parts_at(NOW)).since(NOW)).collect();
        ticks.sort();
        let gaps = ticks.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.into_iter().all(|gap| gap == Duration::from_millis(4)), "{ticks:?}");
        assert_eq!(phases[0].phase_of(0), 0);
        assert_eq!(phases[0].phase_of(53), 3);
        let alone = Content::new(Shape::default(), NOW);
        assert_eq!(alone.clone().in_phases()[0].parts_at(NOW), alone.parts_at(NOW));
    }

    #[test]
    fn keys_name_streams_and_nothing_else() {
        let content = Content::new(
            Shape {
                streams: 3,
                ..Shape::default()
            },
            NOW,
        );
        assert_eq!(content.stream("s2"), Some(2));
        for not in ["s3", "s02", "s", "2", "s-1", ""] {
            assert_eq!(content.stream(not), None, "{not}");
        }
    }
}
