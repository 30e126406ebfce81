//! What playlists look like, byte for byte. `BLESS=1 cargo test -p weir-shared golden` rewrites the files; read the diff.

use std::path::Path;
use std::time::Duration;

use weir_shared::hls::delta::{delta, merge, skippable};
use weir_shared::hls::parse::parse;
use weir_shared::hls::playlist::{MediaPlaylist, Segment};
use weir_shared::hls::write::write;

use crate::broadcast::Broadcast;

/// Compares with `src/hls/golden/<name>.m3u8`, and reads the text back.
fn golden(name: &str, playlist: &MediaPlaylist) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/hls/golden/{name}.m3u8"));
    let text = write(playlist);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, expected, "{name}");
    assert_eq!(parse(&expected).as_ref(), Ok(playlist), "{name} read back");
}

const FIFTH: Duration = Duration::from_millis(200);
/// 16 AAC frames at 48 kHz.
const AUDIO_PART: Duration = Duration::from_nanos(341_333_333);

fn live() -> Broadcast {
    let mut origin = Broadcast::new("video", 4, FIFTH);
    origin.run(15, 10, FIFTH);
    for index in 0..3 {
        origin.part(FIFTH, index == 0, false);
    }
    origin.report("audio.m3u8", 897_625_215, 1);
    origin
}

#[test]
fn a_live_playlist_lists_parts_near_the_end_and_hints_the_next() {
    let playlist = live().published();
    golden("live", &playlist);
    let listed: Vec<usize> = playlist.segments.iter().map(|segment| segment.parts.len()).collect();
    assert_eq!(
        listed,
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 10, 10, 10, 10, 3],
        "PL-24: 12 s from the end"
    );
}

#[test]
fn its_delta_update_skips_what_lies_beyond_the_boundary() {
    let full = live().published();
    // 15 segments of 2 s; the third ends exactly 24 s before the last complete one does, which is not beyond.
    assert_eq!(skippable(&full), 2);
    let update = delta(&full);
    golden("live_delta", &update);
    assert_eq!(merge(&full, update), Ok(full));
}

#[test]
fn an_ended_playlist_has_no_hint() {
    let mut origin = Broadcast::new("video", 4, FIFTH);
    origin.run(2, 10, FIFTH);
    origin.part(FIFTH, true, false);
    origin.end();
    golden("ended", &origin.published());
}

#[test]
fn an_audio_playlist_keeps_microseconds() {
    let micros = Duration::from_micros(u64::try_from(AUDIO_PART.as_nanos().div_ceil(1000)).unwrap());
    let mut origin = Broadcast::new("audio", 4, micros);
    origin.make_event();
    origin.run(2, 6, micros);
    origin.part(micros, true, false);
    golden("audio", &origin.published());
}

#[test]
fn a_new_configuration_shows_as_discontinuity_and_map_before_the_first_part() {
    let mut origin = Broadcast::new("video", 4, FIFTH);
    origin.run(1, 3, FIFTH);
    origin.change_configuration();
    origin.run(1, 3, FIFTH);
    origin.part(FIFTH, true, true);
    origin.close(Duration::ZERO);
    origin.change_configuration();
    origin.part(FIFTH, true, false);
    golden("discontinuity", &origin.published());
}

#[test]
fn the_part_that_is_hinted_after_a_change_has_the_new_map() {
    let mut origin = Broadcast::new("video", 4, FIFTH);
    origin.run(1, 3, FIFTH);
    let mut playlist = origin.published();
    let old = write(&playlist);
    assert_eq!(old.matches("#EXT-X-MAP").count(), 1);
    // The segment is open, and nothing of it has come yet.
    let last = playlist.segments.last().unwrap().clone();
    let open = Segment {
        uri: None,
        duration: Duration::ZERO,
        parts: Vec::new(),
        program_date_time: None,
        ..last
    };
    playlist.segments.push(open.clone());
    assert_eq!(write(&playlist), old, "of the same map there is nothing to say");
    playlist.segments.pop();
    playlist.segments.push(Segment {
        map_uri: Some("1z/video/init1.mp4".to_owned()),
        ..open
    });
    let text = write(&playlist);
    let map = text.find("#EXT-X-MAP:URI=\"1z/video/init1.mp4\"").expect("it is told");
    assert!(text.rfind("#EXTINF").unwrap() < map && map < text.find("#EXT-X-PRELOAD-HINT").unwrap());
    assert!(!text.contains("#EXT-X-DISCONTINUITY\n"));
    assert_eq!(parse(&text).unwrap(), playlist);
}

#[test]
fn a_delta_update_names_its_map_again() {
    let update = delta(&live().published());
    let text = write(&update);
    let (map, first) = (text.find("#EXT-X-MAP:").unwrap(), text.find("#EXTINF:").unwrap());
    assert!(map < first);
    assert!(
        parse(&text)
            .unwrap()
            .segments
            .iter()
            .all(|segment| segment.map_uri.is_some())
    );
}
