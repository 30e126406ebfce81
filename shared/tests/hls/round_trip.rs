//! Data → text → data and text → data → text lose nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use weir_shared::hls::delta::delta;
use weir_shared::hls::parse::parse;
use weir_shared::hls::playlist::{
    MediaPlaylist, Part, PlaylistType, PreloadHint, RenditionReport, Segment, ServerControl,
};
use weir_shared::hls::position::MediaSequence;
use weir_shared::hls::write::{required_version, write, write_head, write_segment, write_tail};

use crate::broadcast::evolution;

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![0..100_000_000u64, Just(0), Just(1), Just(1_000_000_000_000_000)].prop_map(Duration::from_micros)
}

/// From year 0 to year 9999, in milliseconds.
fn time() -> impl Strategy<Value = SystemTime> {
    (-62_167_219_200_000..=253_402_300_799_999i64).prop_map(|ms| {
        let distance = Duration::from_millis(ms.unsigned_abs());
        if ms < 0 {
            UNIX_EPOCH - distance
        } else {
            UNIX_EPOCH + distance
        }
    })
}

/// Anything that can stand between quotes.
fn uri() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9/_.,=#?&%: ~éß漢-]{1,40}"
}

/// Anything that can stand on a line of its own.
fn uri_line() -> impl Strategy<Value = String> {
    r#"[a-zA-Z0-9/_.,=?é"-]([a-zA-Z0-9/_.,=#?é" -]{0,30}[a-z0-9])?"#
}

fn part() -> impl Strategy<Value = Part> {
    (uri(), duration(), any::<bool>(), any::<bool>()).prop_map(|(uri, duration, independent, gap)| Part {
        uri,
        duration,
        independent,
        gap,
    })
}

prop_compose! {
    fn segment()(
        uri in uri_line(),
        duration in duration(),
        discontinuity in any::<bool>(),
        map_uri in prop::option::weighted(0.3, uri()),
        program_date_time in prop::option::of(time()),
        gap in any::<bool>(),
        parts in prop::collection::vec(part(), 0..4),
    ) -> Segment {
        Segment { uri: Some(uri), duration, discontinuity, map_uri, program_date_time, gap, parts }
    }
}

prop_compose! {
    fn server_control()(
        can_skip_until in prop::option::of(duration()),
        hold_back in prop::option::of(duration()),
        part_hold_back in prop::option::of(duration()),
    ) -> ServerControl {
        ServerControl { can_block_reload: true, can_skip_until, hold_back, part_hold_back }
    }
}

prop_compose! {
    fn report()(
        uri in uri(),
        last_msn in any::<u64>(),
        last_part in prop::option::of(any::<u32>()),
    ) -> RenditionReport {
        RenditionReport { uri, last_msn: MediaSequence(last_msn), last_part }
    }
}

prop_compose! {
    fn playlist()(
        numbers in (any::<u8>(), any::<u32>(), any::<u64>(), any::<u64>(), prop::option::of(any::<u64>())),
        server_control in prop::option::of(server_control()),
        part_target in prop::option::of(duration()),
        independent_segments in any::<bool>(),
        kind in prop::option::of(prop_oneof![Just(PlaylistType::Event), Just(PlaylistType::Vod)]),
        mut segments in prop::collection::vec(segment(), 0..8),
        is_open in any::<bool>(),
        hint in prop::option::of(uri()),
        rendition_reports in prop::collection::vec(report(), 0..3),
        ended in any::<bool>(),
    ) -> MediaPlaylist {
        // A map stays in force until the next one.
        let mut map = None;
        for segment in &mut segments {
            map = segment.map_uri.take().or(map);
            segment.map_uri = map.clone();
        }
        if let Some(last) = segments.last_mut().filter(|last| is_open && !last.parts.is_empty()) {
            (last.uri, last.duration) = (None, Duration::ZERO);
        }
        let (version, target_duration_seconds, media_sequence, discontinuity_sequence, skipped_segments) = numbers;
        MediaPlaylist {
            version,
            target_duration_seconds,
            server_control,
            part_target,
            media_sequence: MediaSequence(media_sequence),
            discontinuity_sequence,
            independent_segments,
            playlist_type: kind,
            skipped_segments,
            segments,
            preload_hint: hint.map(|uri| PreloadHint { uri }),
            rendition_reports,
            ended,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_written_is_read_back(playlist in playlist()) {
        let text = write(&playlist);
        let read = parse(&text);
        prop_assert_eq!(read.as_ref(), Ok(&playlist), "{}", text);
        prop_assert_eq!(write(&playlist), text);
    }

    #[test]
    fn windows_line_ends_blank_lines_and_comments_change_nothing(playlist in playlist()) {
        let text = write(&playlist);
        let noisy = text.replace('\n', "\r\n# a comment\r\n\r\n#EXT-X-UNKNOWN:A=1,\"\r\n");
        prop_assert_eq!(parse(&noisy), Ok(playlist));
    }

    /// A caller that keeps the text of old segments gets the same bytes as one that writes everything anew.
    #[test]
    fn frozen_text_fits_between_a_new_head_and_tail(playlist in playlist(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(playlist.segments.len() + 1);
        let (old, recent) = playlist.segments.split_at(cut);
        let mut map = None;
        let mut text_of = |segments: &[Segment]| {
            let mut text = String::new();
            for segment in segments {
                write_segment(&mut text, segment, map.as_deref());
                map = segment.map_uri.clone();
            }
            text
        };
        let (frozen, fresh) = (text_of(old), text_of(recent));
        let mut text = String::new();
        write_head(&mut text, &playlist);
        text.push_str(&frozen);
        text.push_str(&fresh);
        write_tail(&mut text, &playlist);
        prop_assert_eq!(text, write(&playlist));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn live_playlists_and_their_deltas_survive(published in evolution()) {
        for playlist in published.iter().rev().take(5) {
            for text in [write(playlist), write(&delta(playlist))] {
                prop_assert_eq!(write(&parse(&text).unwrap()), text);
            }
        }
    }
}

#[test]
fn an_open_segment_without_parts_waits_with_its_tags() {
    let mut playlist = parse("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na.m4s\n").unwrap();
    let text = write(&playlist);
    playlist.segments.push(Segment {
        uri: None,
        duration: Duration::ZERO,
        discontinuity: true,
        map_uri: Some("init1.mp4".into()),
        program_date_time: Some(UNIX_EPOCH),
        gap: false,
        parts: Vec::new(),
    });
    assert_eq!(write(&playlist), text);
}

#[test]
fn the_version_is_what_the_tags_need() {
    let base = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n";
    for (body, version) in [
        ("#EXTINF:2,\na\n", 3),
        ("#EXT-X-PART-INF:PART-TARGET=1\n#EXT-X-PART:DURATION=1,URI=\"p\"\n", 3),
        (
            "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES\n#EXT-X-MAP:URI=\"i\"\n#EXTINF:2,\na\n",
            6,
        ),
        (
            "#EXT-X-SERVER-CONTROL:CAN-SKIP-UNTIL=12\n#EXT-X-MAP:URI=\"i\"\n#EXTINF:2,\na\n",
            9,
        ),
        ("#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n#EXTINF:2,\na\n", 9),
    ] {
        let playlist = parse(&format!("{base}{body}")).unwrap();
        assert_eq!(required_version(&playlist), version, "{body}");
    }
}
