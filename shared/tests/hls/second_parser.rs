//! A second opinion on what we write: every line is read by quick-m3u8, whose authors never saw our code.

use std::time::Duration;

use quick_m3u8::config::ParsingOptionsBuilder;
use quick_m3u8::tag::KnownTag;
use quick_m3u8::tag::hls::Tag;
use quick_m3u8::{HlsLine, Reader};
use weir_shared::hls::delta::delta;
use weir_shared::hls::multivariant::{self, Media, Multivariant, REQUIRED_VERSION, Variant};
use weir_shared::hls::playlist::{MediaPlaylist, Part, Segment};
use weir_shared::hls::write::write;

use crate::broadcast::Broadcast;

/// The tags and URIs of a text; anything the other parser does not know is a fault.
fn lines(text: &str) -> Vec<HlsLine<'_>> {
    let options = ParsingOptionsBuilder::new().with_parsing_for_all_tags().build();
    let mut reader = Reader::from_str(text, options);
    let mut lines = Vec::new();
    while let Some(line) = reader.read_line().unwrap() {
        assert!(
            matches!(line, HlsLine::KnownTag(_) | HlsLine::Uri(_)),
            "not understood: {line:?}"
        );
        lines.push(line);
    }
    lines
}

fn same(ours: Duration, theirs: f64) -> bool {
    (ours.as_secs_f64() - theirs).abs() < 1e-9
}

fn assert_part(ours: &Part, theirs: &quick_m3u8::tag::hls::Part<'_>) {
    assert_eq!(ours.uri, theirs.uri());
    assert!(same(ours.duration, theirs.duration()));
    assert_eq!(ours.independent, theirs.independent());
    assert_eq!(ours.gap, theirs.gap());
}

/// Walks the other parser's lines along our data.
fn assert_understood(playlist: &MediaPlaylist) {
    let text = write(playlist);
    let mut parts = playlist.segments.iter().flat_map(|segment| &segment.parts);
    let mut segments = playlist.segments.iter().filter(|segment| segment.uri.is_some());
    let mut current: Option<&Segment> = None;
    let (mut dates, mut discontinuities) = (0, 0);
    for line in lines(&text) {
        let tag = match line {
            HlsLine::Uri(uri) => {
                assert_eq!(
                    current.take().and_then(|segment| segment.uri.as_deref()),
                    Some(uri.as_ref())
                );
                continue;
            }
            HlsLine::KnownTag(KnownTag::Hls(tag)) => tag,
            other => panic!("{other:?}"),
        };
        match tag {
            Tag::Version(tag) => assert_eq!(tag.version(), u64::from(playlist.version)),
            Tag::Targetduration(tag) => {
                assert_eq!(tag.target_duration(), u64::from(playlist.target_duration_seconds));
            }
            Tag::MediaSequence(tag) => assert_eq!(tag.media_sequence(), playlist.media_sequence.0),
            Tag::DiscontinuitySequence(tag) => {
                assert_eq!(tag.discontinuity_sequence(), playlist.discontinuity_sequence);
            }
            Tag::ServerControl(tag) => {
                let control = playlist.server_control.unwrap();
                assert_eq!(tag.can_block_reload(), control.can_block_reload);
                assert!(same(control.can_skip_until.unwrap(), tag.can_skip_until().unwrap()));
                assert!(same(control.part_hold_back.unwrap(), tag.part_hold_back().unwrap()));
            }
            Tag::PartInf(tag) => assert!(same(playlist.part_target.unwrap(), tag.part_target())),
            Tag::Skip(tag) => assert_eq!(Some(tag.skipped_segments()), playlist.skipped_segments),
            Tag::Part(tag) => assert_part(parts.next().unwrap(), &tag),
            Tag::Inf(tag) => {
                let segment = segments.next().unwrap();
                assert!(same(segment.duration, tag.duration()));
                current = Some(segment);
            }
            Tag::Map(tag) => assert!(tag.uri().starts_with("1z/video/init")),
            Tag::ProgramDateTime(tag) => {
                assert_eq!(tag.program_date_time().date_fullyear, 2026);
                dates += 1;
            }
            Tag::Discontinuity(_) => discontinuities += 1,
            Tag::PreloadHint(tag) => assert_eq!(tag.uri(), playlist.preload_hint.as_ref().unwrap().uri),
            Tag::RenditionReport(tag) => {
                let report = &playlist.rendition_reports[0];
                assert_eq!((tag.uri(), tag.last_msn()), (report.uri.as_str(), report.last_msn.0));
                assert_eq!(tag.last_part(), report.last_part.map(u64::from));
            }
            Tag::M3u(_) | Tag::IndependentSegments(_) | Tag::PlaylistType(_) | Tag::Gap(_) | Tag::Endlist(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!(
        parts.next().is_none() && segments.next().is_none(),
        "all of it was seen"
    );
    assert_eq!(dates, playlist.segments.len());
    let ours = playlist.segments.iter().filter(|segment| segment.discontinuity).count();
    assert_eq!(discontinuities, ours);
}

#[test]
fn another_parser_reads_the_same_from_full_delta_and_ended_playlists() {
    let part = Duration::from_micros(333_333);
    let mut origin = Broadcast::new("video", 2, part);
    origin.run(6, 6, part);
    origin.change_configuration();
    origin.run(6, 6, part);
    origin.part(part, true, false);
    origin.part(part, false, true);
    origin.report("audio.m3u8", 897_625_212, 1);
    let live = origin.published();
    assert_understood(&live);
    let update = delta(&live);
    assert!(update.skipped_segments.is_some());
    assert_understood(&update);
    origin.end();
    assert_understood(&origin.published());
}

#[test]
fn another_parser_reads_the_same_from_a_multivariant_playlist() {
    let playlist = Multivariant {
        independent_segments: true,
        version: REQUIRED_VERSION,
        variants: vec![Variant {
            uri: "d/video.m3u8".into(),
            bandwidth: 3_000_000,
            average_bandwidth: Some(2_000_000),
            codecs: Some("avc1.64001f,mp4a.40.2".into()),
            resolution: Some((1280, 720)),
            frame_rate_milli: Some(23_976),
            video_range: None,
            audio_group: Some("a".into()),
        }],
        media: vec![Media {
            group_id: "a".into(),
            name: "Deutsch".into(),
            uri: Some("d/audio.m3u8".into()),
            language: Some("de".into()),
            default: true,
            autoselect: true,
            channels: Some("2".into()),
        }],
    };
    let text = multivariant::write(&playlist);
    // The other parser tells a group of captions from none, but not NONE from nothing.
    assert!(text.contains(",CLOSED-CAPTIONS=NONE\n"));
    let mut seen = 0;
    for line in lines(&text) {
        match line {
            HlsLine::KnownTag(KnownTag::Hls(Tag::StreamInf(tag))) => {
                seen += 1;
                assert_eq!((tag.bandwidth(), tag.average_bandwidth()), (3_000_000, Some(2_000_000)));
                assert_eq!(tag.codecs(), Some("avc1.64001f,mp4a.40.2"));
                let size = tag.resolution().unwrap();
                assert_eq!((size.width, size.height), (1280, 720));
                assert_eq!(tag.frame_rate(), Some(23.976));
                assert_eq!(tag.audio(), Some("a"));
            }
            HlsLine::KnownTag(KnownTag::Hls(Tag::Media(tag))) => {
                seen += 1;
                assert_eq!((tag.group_id(), tag.name()), ("a", "Deutsch"));
                assert_eq!((tag.uri(), tag.language()), (Some("d/audio.m3u8"), Some("de")));
                assert!(tag.default() && tag.autoselect());
            }
            HlsLine::Uri(uri) => assert_eq!(uri, "d/video.m3u8"),
            _ => {}
        }
    }
    assert_eq!(seen, 2);
}
