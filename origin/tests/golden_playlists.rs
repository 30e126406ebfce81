//! What the origin's playlists look like, byte for byte, for a small fixed stream: window → snapshot → text.
//! `BLESS=1 cargo test -p weir-origin --test golden_playlists` rewrites the files; read the diff.

use std::{
    io::Read as _,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use weir_origin::{
    codec::{CodecConfig, aac::AacConfig, avc::AvcConfig},
    live::{
        master::{self, Facts},
        snapshot::{RenditionSettings, Snapshot},
        text::SharedRuns,
    },
    package::{
        frame::TrackKind,
        window::{Part, SegmentStart, Window, WindowSettings},
    },
};
use weir_shared::{
    hls::{
        delta, multivariant,
        parse::parse,
        playlist::{RenditionReport, ServerControl},
        position::{LiveEdge, MediaSequence, PartNumber},
        reload::Skip,
        write,
    },
    id::Epoch,
};

fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.m3u8"));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, expected, "{name}");
}

/// 15 frames at 29.97 frames per second.
const PART: Duration = Duration::from_micros(500_500);
const PARTS_PER_SEGMENT: u64 = 4;
const FIRST_MSN: u64 = 897_625_200;
/// 2026-01-31T23:59:40.500Z: the stream runs into the next month.
const BEGIN: Duration = Duration::from_millis(1_769_903_980_500);

/// A rendition as its track would fill it: four parts of 500.5 ms in each segment; the fifth segment has a new codec
/// configuration.
struct Stream {
    name: &'static str,
    window: Window,
    part: u64,
    dependent_segment: Option<u64>,
    ended: bool,
    dvr: bool,
    runs: SharedRuns,
}

impl Stream {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            window: Window::new(WindowSettings {
                duration: Duration::from_secs(16),
                target_duration: Duration::from_secs(2),
            }),
            part: 0,
            dependent_segment: None,
            ended: false,
            dvr: false,
            runs: SharedRuns::default(),
        }
    }

    fn parts(mut self, count: u64) -> Self {
        for _ in 0..count {
            let (segment, index) = (self.part / PARTS_PER_SEGMENT, self.part % PARTS_PER_SEGMENT);
            let independent = index == 0 && self.dependent_segment != Some(segment);
            if index == 0 {
                let init_index = u32::from(segment >= 4);
                if segment == 0 || segment == 4 {
                    self.window.push_init(init_index, Bytes::from_static(b"init"));
                }
                self.window.open_segment(SegmentStart {
                    msn: MediaSequence(FIRST_MSN + segment),
                    pdt: SystemTime::UNIX_EPOCH + BEGIN + PART * self.part as u32,
                    discontinuity: segment == 4,
                    new_publisher: false,
                    init_index,
                    independent,
                    first_part: PartNumber(self.part),
                });
            }
            self.window.push_part(Part {
                number: PartNumber(self.part),
                bytes: Bytes::from_static(b"part"),
                shared: false,
                duration: PART,
                independent,
            });
            self.part += 1;
            if self.part.is_multiple_of(PARTS_PER_SEGMENT) {
                self.window.close_segment(PART * PARTS_PER_SEGMENT as u32);
            }
        }
        self
    }

    fn ended(mut self) -> Self {
        self.ended = true;
        self
    }

    fn snapshot(&self, reports: Vec<RenditionReport>) -> Snapshot {
        let settings = RenditionSettings {
            name: self.name.parse().unwrap(),
            track: TrackKind::Video,
            epoch: Epoch(1_769_903_980_500),
            target_duration_seconds: 2,
            part_target: PART,
            server_control: ServerControl {
                can_block_reload: true,
                can_skip_until: Some(Duration::from_secs(12)),
                hold_back: None,
                part_hold_back: Some(Duration::from_millis(1502)),
            },
            dvr: self.dvr,
        };
        let edge = LiveEdge {
            ended: self.ended,
            advance_parts: 6,
            ..self.window.live_edge()
        };
        Snapshot::new(
            Arc::new(settings),
            self.runs.clone(),
            edge,
            self.window.clone(),
            reports,
        )
    }

    fn text(&self, skip: Skip) -> String {
        let audio = Self::new("audio").parts(self.part).snapshot(vec![]).report();
        let bytes = self.snapshot(vec![audio]).playlist(skip, false);
        String::from_utf8(bytes.concat()).unwrap()
    }
}

#[test]
fn a_live_playlist_lists_hints_and_reports() {
    let text = Stream::new("video").parts(42).text(Skip::No);
    golden("live", &text);
    let playlist = parse(&text).unwrap();
    // PL-24: parts only within three target durations of the end.
    let parts: Vec<usize> = playlist.segments.iter().map(|s| s.parts.len()).collect();
    assert_eq!(parts, [0, 0, 0, 0, 0, 0, 4, 4, 2]);
}

#[test]
fn its_delta_update_gives_the_full_playlist_back() {
    let before = Stream::new("video").parts(41);
    let stream = Stream::new("video").parts(42);
    let update = stream.text(Skip::Yes);
    golden("live_delta", &update);
    let known = parse(&before.text(Skip::No)).unwrap();
    let full = parse(&stream.text(Skip::No)).unwrap();
    assert_eq!(delta::merge(&known, parse(&update).unwrap()), Ok(full));
}

#[test]
fn a_dvr_playlist_is_an_event_until_something_leaves_it() {
    let mut stream = Stream::new("video");
    stream.dvr = true;
    let full = stream.parts(32);
    assert!(full.text(Skip::No).contains("#EXT-X-PLAYLIST-TYPE:EVENT\n"));
    assert_eq!(full.window.listed_len(), 8);
    let slid = full.parts(4);
    assert_eq!(slid.window.listed_len(), 8);
    assert!(!slid.text(Skip::No).contains("PLAYLIST-TYPE"));
}

#[test]
fn the_text_of_a_long_playlist_is_what_its_data_says_at_every_part() {
    let mut stream = Stream::new("video");
    stream.window = Window::new(WindowSettings {
        duration: Duration::from_secs(600),
        target_duration: Duration::from_secs(2),
    });
    stream.dependent_segment = Some(70);
    for _ in 0..500 {
        stream = stream.parts(3);
        let snapshot = stream.snapshot(vec![]);
        let full = snapshot.to_playlist();
        let plain = snapshot.playlist(Skip::No, false).concat();
        assert_eq!(String::from_utf8(plain.clone()).unwrap(), write::write(&full));
        let update = snapshot.playlist(Skip::Yes, false).concat();
        assert_eq!(String::from_utf8(update).unwrap(), write::write(&delta::delta(&full)));
        if stream.part.is_multiple_of(11) {
            let packed = snapshot.playlist(Skip::No, true).concat();
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(&packed[..])
                .read_to_end(&mut text)
                .unwrap();
            assert_eq!(text, plain);
        }
    }
    // An older snapshot may still be asked for.
    let before = stream.snapshot(vec![]);
    let after = stream.parts(40).snapshot(vec![]);
    let newest = after.playlist(Skip::No, false).concat();
    assert_eq!(
        before.playlist(Skip::No, false).concat(),
        write::write(&before.to_playlist()).into_bytes()
    );
    assert_eq!(newest, write::write(&after.to_playlist()).into_bytes());
}

/// More than an hour: the list grows past whole long runs, then slides into and out of them.
#[test]
fn an_hour_and_more_is_few_chunks_and_says_the_same() {
    let mut stream = Stream::new("video");
    stream.window = Window::new(WindowSettings {
        duration: Duration::from_secs(4000),
        target_duration: Duration::from_secs(2),
    });
    let mut most = 0;
    for _ in 0..160 {
        // Twenty-nine segments and one part: every place of a segment, sooner or later.
        stream = stream.parts(29 * PARTS_PER_SEGMENT + 1);
        let snapshot = stream.snapshot(vec![]);
        let plain = snapshot.playlist(Skip::No, false).concat();
        assert!(
            plain == write::write(&snapshot.to_playlist()).into_bytes(),
            "{} listed",
            snapshot.window.listed_len()
        );
        let packed = snapshot.playlist(Skip::No, true);
        most = most.max(packed.len());
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&packed.concat()[..])
            .read_to_end(&mut text)
            .unwrap();
        assert!(text == plain);
    }
    assert!(most <= 42, "{most} chunks");
}

#[test]
fn the_first_part_makes_a_playlist() {
    golden("first_part", &Stream::new("video").parts(1).text(Skip::No));
}

#[test]
fn between_segments_the_hint_is_the_next_ones_first_part() {
    let text = Stream::new("video").parts(8).text(Skip::No);
    golden("between_segments", &text);
    assert_eq!(
        text,
        Stream::new("video").parts(8).text(Skip::Yes),
        "nothing to skip yet"
    );
}

#[test]
fn an_ended_playlist_hints_nothing() {
    golden("ended", &Stream::new("video").parts(12).ended().text(Skip::No));
}

#[test]
fn one_dependent_segment_takes_the_promise_back() {
    let promise = "#EXT-X-INDEPENDENT-SEGMENTS\n";
    let mut stream = Stream::new("video").parts(4);
    assert!(stream.text(Skip::No).contains(promise));
    stream.dependent_segment = Some(1);
    // From its first part on.
    let mut stream = stream.parts(1);
    assert!(!stream.text(Skip::No).contains(promise));
    stream = stream.parts(3);
    // It is given again once that segment has left the list.
    while stream.text(Skip::No).contains(&format!("/{}.m4s", FIRST_MSN + 1)) {
        assert!(!stream.text(Skip::No).contains(promise));
        stream = stream.parts(4);
    }
    assert!(stream.text(Skip::No).contains(promise));
}

#[test]
fn a_report_names_the_last_part_that_is_listed() {
    for (parts, segment, part) in [(1, 0, 0), (3, 0, 2), (4, 0, 3), (5, 1, 0), (42, 10, 1)] {
        let report = Stream::new("audio").parts(parts).snapshot(vec![]).report();
        let expected = RenditionReport {
            uri: "audio.m3u8".to_owned(),
            last_msn: MediaSequence(FIRST_MSN + segment),
            last_part: Some(part),
        };
        assert_eq!(report, expected, "{parts} parts");
    }
}

fn video() -> Facts {
    let config = AvcConfig {
        record: Bytes::new(),
        nal_length_size: 4,
        profile: [0x64, 0x00, 0x1f],
        width: 1280,
        height: 720,
        sample_aspect: (1, 1),
        frame_duration: None,
    };
    Facts {
        name: "video".parse().unwrap(),
        config: Arc::new(CodecConfig::Avc(config)),
        peak_bitrate: 2_915_000,
        average_bitrate: 2_521_000,
        milli_frame_rate: Some(29_970),
        language: None,
    }
}

fn audio() -> Facts {
    let config = AacConfig {
        asc: Bytes::from_static(&[0x11, 0x90]),
        object_type: 2,
        sample_rate: 48_000,
        channels: 2,
        frame_samples: 1024,
    };
    Facts {
        name: "audio".parse().unwrap(),
        config: Arc::new(CodecConfig::Aac(config)),
        peak_bitrate: 145_000,
        average_bitrate: 129_000,
        milli_frame_rate: None,
        language: None,
    }
}

fn multivariant_text(facts: &[Facts], prefix: &str, independent: bool) -> String {
    multivariant::write(&master::multivariant(facts, prefix, independent))
}

#[test]
fn a_multivariant_playlist_names_both_tracks() {
    golden("multivariant", &multivariant_text(&[video(), audio()], "d/", true));
    // The order in which tracks appeared does not matter, and the direct form is a folder nearer.
    let direct = multivariant_text(&[audio(), video()], "", true);
    let expected = multivariant_text(&[video(), audio()], "d/", true).replace("d/", "");
    assert_eq!(direct, expected);
}

#[test]
fn a_track_alone_is_a_variant_of_its_own() {
    golden("multivariant_audio_only", &multivariant_text(&[audio()], "d/", true));
    let silent = Facts {
        milli_frame_rate: None,
        ..video()
    };
    golden("multivariant_video_only", &multivariant_text(&[silent], "d/", false));
}
