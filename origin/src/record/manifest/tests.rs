use std::time::Duration;

use weir_shared::hls::{parse, playlist::MediaPlaylist};

use super::*;
use crate::record::ledger::{
    Line,
    tests::{begin, init, rendition, segment, stored},
};

const MASTER: &str = "#EXTM3U\n#EXT-X-VERSION:1\n#EXT-X-INDEPENDENT-SEGMENTS\n\
    #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"Audio\",URI=\"audio.m3u8\",DEFAULT=YES,AUTOSELECT=YES\n\
    #EXT-X-STREAM-INF:BANDWIDTH=9,AVERAGE-BANDWIDTH=9,CODECS=\"avc1.64001f,mp4a.40.2\",RESOLUTION=1280x720,\
    AUDIO=\"audio\",CLOSED-CAPTIONS=NONE\nvideo.m3u8\n";

fn ledger(lines: Vec<Line>) -> Ledger {
    let mut all = vec![
        begin(),
        Line::Master {
            text: MASTER.to_owned(),
        },
    ];
    all.extend(lines);
    let (ledger, good) = Ledger::replay(&all).unwrap();
    assert_eq!(good, all.len(), "{:?}", all[good]);
    ledger
}

/// Both renditions, stored, of segments of one life: (number, whether another publisher begins there).
fn life(epoch: u64, segments: &[(u64, bool)]) -> Vec<Line> {
    let mut lines = vec![init("video", epoch), init("audio", epoch)];
    for (msn, new_publisher) in segments {
        for of in ["video", "audio"] {
            lines.extend(segment(of, epoch, *msn, *new_publisher));
            lines.push(stored(of, epoch, *msn));
        }
    }
    lines
}

fn read(ledger: &Ledger, of: &str, growth: Growth) -> MediaPlaylist {
    parse::parse(&media_playlist(ledger, &rendition(of), growth).unwrap()).unwrap()
}

fn names(playlist: &MediaPlaylist) -> Vec<&str> {
    playlist.segments.iter().filter_map(|s| s.uri.as_deref()).collect()
}

#[test]
fn each_publisher_after_the_first_begins_with_a_discontinuity() {
    // A publisher that came back within a life, a backup that took over, an origin that was restarted.
    let mut lines = life(9, &[(100, true), (101, false), (102, true), (103, true)]);
    lines.extend(life(12, &[(200, false)]));
    let ledger = ledger(lines);
    for of in ["video", "audio"] {
        let playlist = read(&ledger, of, Growth::Finished);
        let marks: Vec<bool> = playlist.segments.iter().map(|s| s.discontinuity).collect();
        assert_eq!(marks, [false, false, true, true, true], "n publishers, n - 1 marks");
        assert!(playlist.ended);
        assert_eq!(playlist.playlist_type, Some(PlaylistType::Vod));
    }
    let video = read(&ledger, "video", Growth::Finished);
    assert_eq!(video.segments[3].map_uri.as_deref(), Some("9/video/init0.mp4"));
    assert_eq!(video.segments[4].map_uri.as_deref(), Some("c/video/init0.mp4"));
}

#[test]
fn what_grows_is_only_appended_to() {
    let whole = life(9, &[(100, false), (101, false), (102, true), (103, false)]);
    // Stored in whatever order the store took them: the second before the first, and so on.
    let (mut kept, mut landed): (Vec<Line>, Vec<Line>) =
        whole.into_iter().partition(|line| !matches!(line, Line::Stored { .. }));
    landed.swap(0, 2);
    landed.swap(4, 7);
    let mut before: Vec<Vec<Segment>> = vec![Vec::new(); 2];
    while !landed.is_empty() {
        kept.push(landed.remove(0));
        let ledger = ledger(kept.clone());
        for (of, before) in ["video", "audio"].into_iter().zip(&mut before) {
            let Some(text) = media_playlist(&ledger, &rendition(of), Growth::Running) else {
                continue;
            };
            let now = parse::parse(&text).unwrap();
            assert!(!now.ended && now.playlist_type == Some(PlaylistType::Event));
            assert!(now.segments.starts_with(before), "{of}: {text}");
            before.clone_from(&now.segments);
        }
    }
    assert_eq!(before[0].len(), 4);
    let finished = read(&ledger(kept), "video", Growth::Finished);
    assert_eq!(finished.segments, before[0]);
}

#[test]
fn a_hole_is_a_gap_in_its_rendition_and_nothing_in_the_others() {
    let mut lines = life(9, &[(100, false), (101, false), (102, false)]);
    lines.push(Line::Lost {
        rendition: rendition("audio"),
        epoch: 9,
        msn: 101,
    });
    // Another rendition joins late.
    lines.push(init("audio-2", 9));
    lines.extend(segment("audio-2", 9, 102, false));
    lines.push(stored("audio-2", 9, 102));
    let ledger = ledger(lines);
    let gaps = |of: &str| -> Vec<bool> {
        let playlist = read(&ledger, of, Growth::Finished);
        playlist.segments.iter().map(|s| s.gap).collect()
    };
    assert_eq!(gaps("video"), [false, false, false]);
    assert_eq!(gaps("audio"), [false, true, false]);
    assert_eq!(gaps("audio-2"), [true, true, false]);
    assert_eq!(names(&read(&ledger, "audio", Growth::Finished)).len(), 3);
    assert_eq!(ledger.media_bytes(), 6000, "a lost segment has no bytes");
    assert_eq!(ledger.duration(), Duration::from_secs(6));
}

#[test]
fn a_frame_that_is_left_over_at_the_end_is_left_out() {
    let mut lines = life(9, &[(100, false), (101, false)]);
    let mut scrap = segment("video", 9, 102, false);
    for line in &mut scrap {
        if let Line::Part { duration_us, .. } | Line::Close { duration_us, .. } = line {
            *duration_us = 16_000;
        }
    }
    lines.extend(scrap);
    lines.push(stored("video", 9, 102));
    let scrap_only = ledger(lines.clone());
    for growth in [Growth::Running, Growth::Finished] {
        for of in ["video", "audio"] {
            let playlist = read(&scrap_only, of, growth);
            assert_eq!(playlist.segments.len(), 2, "{of}, {growth:?}");
            assert!(playlist.segments.iter().all(|s| !s.gap));
        }
    }
    // Once the other has it, too, it counts.
    lines.extend(segment("audio", 9, 102, false));
    lines.push(stored("audio", 9, 102));
    let both = ledger(lines);
    assert_eq!(read(&both, "video", Growth::Finished).segments.len(), 3);
}

#[test]
fn bit_rates_are_those_of_what_was_stored() {
    // 1000 bytes in 2 s are 4 kbit/s.
    let ledger = ledger(life(9, &[(100, false), (101, false)]));
    let text = media_playlist(&ledger, &rendition("video"), Growth::Finished).unwrap();
    assert_eq!(
        text.matches("#EXT-X-BITRATE:4\n").count(),
        1,
        "said once while it holds: {text}"
    );
    let index = index(&ledger, "vod/r1/", Growth::Finished).unwrap();
    let parsed = multivariant::parse(&index).unwrap();
    let variant = &parsed.variants[0];
    assert_eq!(
        (variant.bandwidth, variant.average_bandwidth),
        (8000, Some(8000)),
        "audio included"
    );
    assert_eq!(variant.uri, "vod/r1/video.m3u8");
    assert_eq!(parsed.media[0].uri.as_deref(), Some("vod/r1/audio.m3u8"));
    assert!(index.contains("URI=\"vod/r1/video-iframes.m3u8\""), "{index}");
    assert!(index.ends_with(INDEX_END));
}

#[test]
fn trick_play_fetches_the_first_picture_of_each_segment() {
    let ledger = ledger(life(9, &[(100, false), (101, true)]));
    let text = iframe_playlist(&ledger, &rendition("video"), Growth::Finished).unwrap();
    assert!(text.contains("#EXT-X-I-FRAMES-ONLY\n"));
    assert_eq!(text.matches("#EXT-X-BYTERANGE:120@0\n").count(), 2);
    assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n").count(), 1);
    assert!(text.ends_with("9/video/101.m4s\n#EXT-X-ENDLIST\n"), "{text}");
}

#[test]
fn nothing_stored_is_nothing_to_play() {
    let mut lines = vec![init("video", 9)];
    lines.extend(segment("video", 9, 100, false));
    let ledger = ledger(lines);
    for growth in [Growth::Running, Growth::Finished] {
        assert_eq!(index(&ledger, "", growth), None);
        assert_eq!(media_playlist(&ledger, &rendition("video"), growth), None);
        assert_eq!(media_playlist(&ledger, &rendition("other"), growth), None);
    }
}

#[test]
fn renditions_that_came_and_went_stay_in_the_index() {
    let both = MASTER.replace("video.m3u8", "video-2.m3u8");
    let merged = merged_master(&both, MASTER);
    assert!(
        merged.contains("\nvideo.m3u8\n") && merged.contains("\nvideo-2.m3u8\n"),
        "{merged}"
    );
    assert_eq!(merged_master(&merged, MASTER), merged);
}

#[test]
fn thumbnails_stand_at_the_moments_of_their_segments() {
    let picture = |msn| Line::Picture {
        rendition: rendition("video"),
        epoch: 9,
        msn,
    };
    let mut lines = life(9, &[(100, false), (101, false), (102, false), (103, false)]);
    lines.extend([picture(101), picture(103)]);
    let mut ledger = ledger(lines);
    let growing = thumbnails(&ledger, Growth::Running).unwrap();
    assert_eq!(
        growing,
        "WEBVTT\n\n00:00:00.000 --> 00:00:06.000\n9/video/101.jpg\n\n\
         00:00:06.000 --> 00:00:08.000\n9/video/103.jpg\n"
    );
    // It only ever grows at its end, but for the end of its last cue.
    for line in segment("video", 9, 104, false) {
        ledger.apply(&line).unwrap();
    }
    ledger.apply(&stored("video", 9, 104)).unwrap();
    let finished = thumbnails(&ledger, Growth::Finished).unwrap();
    assert!(finished.contains("\n00:00:06.000 --> 00:00:10.000\n"), "{finished}");
    assert!(finished.ends_with("9/video/103.jpg\n\nNOTE finished\n"), "{finished}");
}

#[test]
fn a_thumbnail_of_nothing_is_not_believed() {
    let mut ledger = ledger(life(9, &[(100, false)]));
    let before = ledger.clone();
    for (of, msn) in [("video", 101), ("other", 100)] {
        let line = Line::Picture {
            rendition: rendition(of),
            epoch: 9,
            msn,
        };
        assert!(ledger.apply(&line).is_err());
    }
    assert_eq!(ledger, before);
    assert_eq!(thumbnails(&ledger, Growth::Finished), None);
}
