//! Hours of random hiccups on a simulated clock, held against the rules that players rely on.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use bytes::Bytes;
use proptest::{prelude::*, strategy::ValueTree as _};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use weir_shared::{
    hls::{playlist::MediaPlaylist, position::MediaSequence},
    id::Epoch,
    media::time::MediaTime,
};

use super::*;
use crate::{
    codec::{aac::AacConfig, avc, opus::OpusConfig},
    ingest::{Slot, catalog::Takeover},
    live::{
        lane::Settings,
        master::{Flavour, Master},
        seats::{Claim, Seats},
        snapshot::Snapshot,
    },
    package::{frame::Frame, segmenter::Targets},
};

const TARGETS: Targets = Targets {
    part: Duration::from_millis(200),
    segment: Duration::from_secs(2),
    target_duration_seconds: 4,
};
const TICK_MS: u64 = 10;
/// First bytes of slices as x264 writes them with the parameter sets of these tests.
const IDR_SLICE: [u8; 8] = [0x65, 0x88, 0x84, 0x00, 0x33, 0xff, 0xfe, 0xf6];
const P_SLICE: [u8; 8] = [0x41, 0x9a, 0x21, 0x6c, 0x44, 0xff, 0xfe, 0xf6];

/// What goes wrong, and for how long in ms.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// The line holds all bytes, and lets them go at once.
    Held(u64),
    /// The encoder's connection ends; a new session comes back so much later, with another clock.
    Away(u64),
    /// The same, and it comes back with its sound in the other codec.
    Another(u64),
    /// The encoder stands still with its clock.
    Still(u64),
    /// For so long, every third part of a second is held.
    Lossy(u64),
}

fn trouble() -> impl Strategy<Value = (u64, Trouble)> {
    let what = prop_oneof![
        3 => (50u64..8000).prop_map(Trouble::Held),
        2 => (500u64..9000).prop_map(Trouble::Away),
        1 => (500u64..9000).prop_map(Trouble::Another),
        1 => (300u64..5000).prop_map(Trouble::Still),
        1 => (2000u64..10_000).prop_map(Trouble::Lossy),
    ];
    (1000u64..15_000, what)
}

/// An encoder's session and the line from it.
struct Session {
    began_ms: u64,
    /// Its own first timestamp.
    zero: MediaTime,
    /// Its clock stood still for so long so far.
    stood_ms: u64,
    video: u64,
    audio: u64,
    key_every: u64,
    /// Sound is Opus, not AAC.
    opus: bool,
}

struct World {
    start: Instant,
    now_ms: u64,
    cushion: Cushion,
    master: watch::Receiver<Arc<Master>>,
    seats: Seats,
    feed: Feed,
    session: Session,
    line: VecDeque<Held>,
    watched: Vec<Watched>,
    sessions: u64,
}

/// What a viewer saw last of a rendition.
struct Watched {
    seen: Arc<Snapshot>,
    playlist: Option<MediaPlaylist>,
    /// Where the last part ended, in ticks, and when it came.
    end: Option<u64>,
    next_part: u64,
    came_ms: u64,
}

fn configs(opus: bool) -> [(TrackId, Arc<CodecConfig>); 2] {
    let avc = avc::AvcConfig::parse(Bytes::from_static(avc::tests::X264_720P30)).unwrap();
    let sound = match opus {
        true => CodecConfig::Opus(OpusConfig::of_channels(2).unwrap()),
        false => CodecConfig::Aac(AacConfig::parse(Bytes::from_static(&[0x11, 0x90])).unwrap()),
    };
    [
        (TrackId::VIDEO, Arc::new(CodecConfig::Avc(avc))),
        (TrackId::AUDIO, Arc::new(sound)),
    ]
}

fn feed(seats: &Seats, opus: bool, now: Instant) -> Feed {
    let claim = Claim {
        variant: 1,
        slot: Slot::Primary,
        rank: 0,
        takeover: Takeover::Takeover,
    };
    let seat = seats.take(claim, CancellationToken::new()).unwrap();
    let mut feed = Feed::new(seat, mpsc::channel(1).1, Arc::default(), now);
    feed.configs.extend(configs(opus));
    feed
}

impl World {
    fn new(cushion_ms: u64) -> Self {
        let start = Instant::now();
        let settings = Settings {
            targets: TARGETS,
            window: Duration::from_secs(12),
            dvr: false,
            cushion: Duration::from_millis(cushion_ms),
        };
        let (master, readers) = watch::channel(Arc::new(Master::default()));
        let health = Arc::<Health>::default();
        let metrics = Arc::new(Metrics::new(&prometheus::Registry::new()).unwrap());
        let packager = Packager::new(
            Flavour::Resilient,
            settings,
            Epoch(1),
            Arc::new(AtomicU64::new(1000)),
            master,
            health.clone(),
            metrics.clone(),
        );
        let resilience = Resilience::new(Duration::from_millis(cushion_ms), start);
        let mut cushion = Cushion::new(resilience, packager, health, metrics, start);
        let seats = Seats::default();
        let feed = feed(&seats, false, start);
        cushion.show(&feed, []);
        Self {
            start,
            now_ms: 0,
            cushion,
            master: readers,
            seats,
            feed,
            session: Session {
                began_ms: 0,
                zero: MediaTime::from_millis(1000),
                stood_ms: 0,
                video: 0,
                audio: 0,
                key_every: 30,
                opus: false,
            },
            line: VecDeque::new(),
            watched: Vec::new(),
            sessions: 1,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.now_ms)
    }

    /// The encoder makes what it has to by now.
    fn make(&mut self) {
        let now = self.now();
        let session = &mut self.session;
        let made = MediaTime::from_millis((self.now_ms - session.began_ms - session.stood_ms) as i64);
        loop {
            let video = MediaTime::from_nanos((session.video * 1_000_000_000 / 30) as i64);
            let samples = session.audio * if session.opus { 960 } else { 1024 };
            let audio = MediaTime::from_nanos((samples * 1_000_000_000 / 48_000) as i64);
            let is_video = video <= audio;
            let at = if is_video { video } else { audio };
            if at > made {
                return;
            }
            let key = is_video && session.video.is_multiple_of(session.key_every);
            let slice = if key { IDR_SLICE } else { P_SLICE };
            let data = if is_video {
                [&[0, 0, 0, 8][..], &slice].concat()
            } else if session.opus {
                // A packet of 20 ms.
                vec![0xfc; 9]
            } else {
                vec![7; 9]
            };
            let frame = Frame {
                track: if is_video { TrackId::VIDEO } else { TrackId::AUDIO },
                // Rounded as encoders do.
                dts: MediaTime::from_millis((at + session.zero).as_millis()),
                composition_offset: MediaTime::ZERO,
                key: key || !is_video,
                data: data.into(),
            };
            self.line.push_back(self.feed.held(frame, now));
            if is_video {
                session.video += 1;
            } else {
                session.audio += 1;
            }
        }
    }

    /// Lets time pass; `flows`: whether the line lets bytes through at a time.
    fn pass(&mut self, ms: u64, makes: bool, flows: impl Fn(u64) -> bool) -> Result<(), TestCaseError> {
        let until = self.now_ms + ms;
        while self.now_ms < until {
            self.now_ms += TICK_MS;
            let now = self.now();
            if makes {
                self.make();
            }
            while let Some(mut held) = flows(self.now_ms).then(|| self.line.pop_front()).flatten() {
                held.arrived = now;
                self.cushion.heard(1, self.feed.seat.id, &held);
            }
            if self.cushion.next_timeout().is_some_and(|at| at <= now) {
                self.cushion.timeout(now);
                self.watch()?;
            }
        }
        Ok(())
    }

    fn suffer(&mut self, trouble: Trouble) -> Result<(), TestCaseError> {
        match trouble {
            Trouble::Held(ms) => self.pass(ms, true, |_| false),
            Trouble::Lossy(ms) => self.pass(ms, true, |now| now / 333 % 3 != 0),
            Trouble::Still(ms) => {
                self.session.stood_ms += ms.next_multiple_of(TICK_MS);
                self.pass(ms.next_multiple_of(TICK_MS), false, |_| true)
            }
            Trouble::Away(ms) | Trouble::Another(ms) => {
                let opus = self.session.opus != matches!(trouble, Trouble::Another(_));
                self.line.clear();
                self.cushion.gone(self.feed.seat.id);
                self.pass(ms, false, |_| true)?;
                self.feed = feed(&self.seats, opus, self.now());
                self.sessions += 1;
                self.session = Session {
                    began_ms: self.now_ms,
                    zero: MediaTime::from_millis(1000 + (self.sessions as i64 % 5) * 123_457),
                    stood_ms: 0,
                    video: 0,
                    audio: 0,
                    key_every: 20 + self.sessions % 5 * 11,
                    opus,
                };
                self.cushion.show(&self.feed, []);
                Ok(())
            }
        }
    }

    /// A viewer looks at every rendition.
    fn watch(&mut self) -> Result<(), TestCaseError> {
        let master = self.master.borrow().clone();
        for (place, rendition) in master.resilient.iter().enumerate() {
            let snapshot = rendition.feed.borrow().clone();
            if self.watched.len() == place {
                self.watched.push(Watched {
                    seen: snapshot.clone(),
                    playlist: None,
                    end: None,
                    next_part: 0,
                    came_ms: self.now_ms,
                });
            }
            let Some(watched) = self.watched.get_mut(place) else {
                continue;
            };
            watched.look(snapshot, self.now_ms)?;
        }
        let edges: Vec<MediaSequence> = self.watched.iter().map(|watched| watched.seen.edge.open).collect();
        if let (Some(least), Some(most)) = (edges.iter().min(), edges.iter().max()) {
            prop_assert!(most.0 - least.0 <= 1, "renditions part: {edges:?}");
        }
        Ok(())
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..at + N).unwrap_or_default();
    field.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

impl Watched {
    fn look(&mut self, snapshot: Arc<Snapshot>, now_ms: u64) -> Result<(), TestCaseError> {
        let next = snapshot.edge.next_part.0;
        if self.playlist.is_some() && next == self.next_part {
            self.seen = snapshot;
            return Ok(());
        }
        let part_target = snapshot.settings.part_target;
        let name = snapshot.settings.name.clone();
        if self.playlist.is_some() {
            // UP-04, with what it allows for jitter.
            let allowed = part_target.as_millis() as u64 * 105 / 100 + 150;
            prop_assert!(
                now_ms - self.came_ms <= allowed,
                "{name}: {} ms without a part at {now_ms}",
                now_ms - self.came_ms
            );
        }
        self.came_ms = now_ms;
        // MD-08: decode time goes on exactly from part to part.
        for part in
            (self.next_part..next).filter_map(|n| snapshot.window.part(weir_shared::hls::position::PartNumber(n)))
        {
            let (tfdt, samples) = (number::<8>(&part.bytes, 60), number::<4>(&part.bytes, 80));
            let length: u64 = (0..samples as usize)
                .map(|n| number::<4>(&part.bytes, 88 + 16 * n))
                .sum();
            prop_assert!(
                self.end.is_none_or(|end| end == tfdt),
                "{name}: {:?} then {tfdt}",
                self.end
            );
            self.end = Some(tfdt + length);
        }
        self.next_part = next;
        let playlist = snapshot.to_playlist();
        check(&playlist, self.playlist.as_ref())?;
        self.playlist = Some(playlist);
        self.seen = snapshot;
        Ok(())
    }
}

/// Rules of the playlist as a document, and of its updates.
fn check(playlist: &MediaPlaylist, before: Option<&MediaPlaylist>) -> Result<(), TestCaseError> {
    let target = Duration::from_secs(u64::from(playlist.target_duration_seconds));
    let part_target = playlist.part_target.unwrap_or_default();
    prop_assert!(
        playlist.independent_segments,
        "PL, MD-23: every segment begins with a key frame"
    );
    prop_assert_eq!(playlist.discontinuity_sequence, 0);
    let complete = playlist.segments.iter().filter(|segment| segment.uri.is_some());
    for (segment, next) in complete.clone().zip(playlist.segments.iter().skip(1)) {
        prop_assert!(!segment.discontinuity);
        // Between two segments nothing is told of the next.
        prop_assert!(next.map_uri.is_none() || segment.map_uri == next.map_uri);
        // PL-04
        prop_assert!(
            segment.duration < target + Duration::from_millis(500),
            "EXTINF {:?}",
            segment.duration
        );
        // PL-30. Dates are told in milliseconds. Shaka places segments by them and parts by durations, and drops pictures where the
        // two say something else.
        if let Some((this, next)) = segment.program_date_time.zip(next.program_date_time) {
            let passed = next.duration_since(this).unwrap_or_default();
            let off = passed.abs_diff(segment.duration);
            prop_assert!(
                off < Duration::from_millis(2),
                "programme dates {passed:?} apart, EXTINF {:?}",
                segment.duration
            );
        }
        // PL-23
        if !segment.parts.is_empty() {
            let sum: Duration = segment.parts.iter().map(|part| part.duration).sum();
            prop_assert!(sum.abs_diff(segment.duration) < Duration::from_millis(10));
        }
    }
    for segment in &playlist.segments {
        for (place, part) in segment.parts.iter().enumerate() {
            // PL-21, PL-22
            prop_assert!(part.duration <= part_target, "{:?} of {part_target:?}", part.duration);
            let last = segment.uri.is_none() || place + 1 == segment.parts.len();
            let long_enough = part.duration * 100 >= part_target * 85;
            prop_assert!(long_enough || part.independent || last, "a part of {:?}", part.duration);
        }
    }
    if let Some(before) = before {
        // UP-01, UP-05
        prop_assert!(playlist.media_sequence >= before.media_sequence);
        let gone = (playlist.media_sequence.0 - before.media_sequence.0) as usize;
        for (old, new) in before.segments.iter().skip(gone).zip(&playlist.segments) {
            prop_assert!(old.uri.is_none() || (&old.uri, old.duration) == (&new.uri, new.duration));
            prop_assert!(
                new.parts.is_empty() || new.parts.starts_with(&old.parts),
                "parts change"
            );
        }
        prop_assert_eq!(
            (&playlist.server_control, playlist.part_target),
            (&before.server_control, before.part_target)
        );
    }
    Ok(())
}

fn live_through(cushion_ms: u64, troubles: impl IntoIterator<Item = (u64, Trouble)>) -> Result<World, TestCaseError> {
    let mut world = World::new(cushion_ms);
    world.pass(3000, true, |_| true)?;
    let mut renditions = 2;
    for (pause, trouble) in troubles {
        if matches!(trouble, Trouble::Another(_)) {
            renditions = 3;
        }
        world.pass(pause, true, |_| true)?;
        world.suffer(trouble)?;
    }
    world.pass(12_000, true, |_| true)?;
    prop_assert_eq!(world.watched.len(), renditions);
    let index = String::from_utf8(world.master.borrow().index.to_vec()).unwrap();
    let offered = [index.contains("mp4a.40.2"), index.contains("opus")];
    prop_assert_eq!(
        offered,
        [!world.session.opus, world.session.opus],
        "the sound that is heard"
    );
    // The picture goes on at no more than the cushion's distance. (At less where an encoder's clock stood still for less
    // than the cushion holds: it is used up then, rather than seen.)
    let level = world.cushion.resilience.cushion(1, world.now()).unwrap_or_default();
    prop_assert!(
        level < Duration::from_millis(cushion_ms + 300),
        "cushion of {level:?} at the end"
    );
    prop_assert!(!world.cushion.resilience.is_filling(1));
    Ok(world)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn no_rule_breaks_whatever_the_line_does(
        cushion_ms in prop_oneof![Just(0u64), Just(1000), 100u64..5000],
        troubles in prop::collection::vec(trouble(), 1..12),
    ) {
        live_through(cushion_ms, troubles)?;
    }
}

/// What filled was a picture ahead of what is due, and without a cushion every picture was late for that: for good.
#[test]
fn without_a_cushion_the_picture_comes_back_too() {
    let troubles = [
        (8711, Trouble::Still(3201)),
        (4741, Trouble::Away(6647)),
        (5536, Trouble::Still(2319)),
    ];
    live_through(0, troubles).unwrap();
}

/// The third encoder's first key frame came when the second one's was due, but its second did not.
#[test]
fn an_encoder_with_another_rhythm_of_key_frames_is_not_foretold_by_the_last_ones() {
    let troubles = [
        (3171, Trouble::Away(2401)),
        (13641, Trouble::Held(171)),
        (10631, Trouble::Away(711)),
    ];
    live_through(0, troubles).unwrap();
}

/// The open segment ends where a key frame was foretold, while the picture is held and the next one is about to come.
#[test]
fn a_segment_begins_with_a_key_frame_even_just_before_the_next_encoders() {
    // It dies 0.2 s after a key frame; the next, of each second, would have begun a segment.
    for away_ms in (700..1000).step_by(10) {
        live_through(1000, [(6200, Trouble::Away(away_ms))]).unwrap();
    }
}

/// Players that listen to the sound before hear silence, and go on.
#[test]
fn sound_in_another_codec_is_another_rendition_and_the_one_before_goes_on() {
    let mut world = live_through(1000, [(5000, Trouble::Another(3000))]).unwrap();
    let names: Vec<String> = world
        .master
        .borrow()
        .resilient
        .iter()
        .map(|r| r.name.to_string())
        .collect();
    assert_eq!(names, ["r-video", "r-audio", "r-audio-2"]);
    world.suffer(Trouble::Another(2000)).unwrap();
    world.pass(12_000, true, |_| true).unwrap();
    let index = String::from_utf8(world.master.borrow().index.to_vec()).unwrap();
    assert!(
        index.contains("r-audio.m3u8") && !index.contains("r-audio-2.m3u8"),
        "{index}"
    );
}

#[test]
fn an_hour_of_hiccups() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut hour = Vec::new();
    let mut ms = 0;
    while ms < 3_600_000 {
        let (pause, what) = trouble().new_tree(&mut runner).unwrap().current();
        let (Trouble::Held(long)
        | Trouble::Away(long)
        | Trouble::Another(long)
        | Trouble::Still(long)
        | Trouble::Lossy(long)) = what;
        ms += pause + long;
        hour.push((pause, what));
    }
    let count = hour.len();
    let world = live_through(1000, hour).unwrap();
    println!(
        "{count} hiccups: {:?}, filled {:?}",
        world.cushion.resilience.counts(),
        world.cushion.filled
    );
}
