//! Playlists that nobody should send: typed errors with the right line, bounded memory, no panic.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use weir_shared::hls::delta::{delta, merge, strip_old_parts};
use weir_shared::hls::multivariant;
use weir_shared::hls::parse::{
    MAX_PARTS_PER_SEGMENT, MAX_PLAYLIST_BYTES, MAX_SEGMENTS, MAX_URI_BYTES, ParseError, Problem, parse,
};
use weir_shared::hls::write::write;

const HEAD: &str = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n";

fn fault(text: &str) -> (usize, Problem) {
    let ParseError { line, problem } = parse(text).expect_err(text);
    (line, problem)
}

/// The fault of a body after [`HEAD`]; its first line is line 3.
fn fault_after_head(body: &str) -> (usize, Problem) {
    fault(&format!("{HEAD}{body}"))
}

#[test]
fn it_must_be_a_playlist_at_all() {
    assert_eq!(fault(""), (1, Problem::NotAPlaylist));
    assert_eq!(fault("<html>404</html>"), (1, Problem::NotAPlaylist));
    assert_eq!(fault("\n#EXTM3U\n"), (1, Problem::NotAPlaylist));
    assert_eq!(fault("#EXTM3U8\n"), (1, Problem::NotAPlaylist));
    assert_eq!(fault("\u{feff}#EXTM3U\n"), (1, Problem::ByteOrderMark));
    assert_eq!(fault("#EXTM3U\n"), (1, Problem::Missing("#EXT-X-TARGETDURATION")));
    assert_eq!(
        fault_after_head("#EXT-X-STREAM-INF:BANDWIDTH=1\n"),
        (3, Problem::Multivariant("#EXT-X-STREAM-INF"))
    );
}

#[test]
fn control_characters_are_refused_wherever_they_hide() {
    for body in [
        "#EXTINF:1,\na\0b\n",
        "#EXTINF:1,\ta\nb\n",
        "#EXTINF:1,\na\rb\n",
        "# \u{7f}\n",
        "# \u{85}\n",
    ] {
        assert_eq!(fault_after_head(body).1, Problem::ControlCharacter, "{body:?}");
    }
    assert_eq!(fault_after_head("#EXTINF:1,\na\u{1b}[31m\n").0, 4);
}

#[test]
fn numbers_are_decimal_and_in_range() {
    for bad in [
        "1e309",
        "NaN",
        "inf",
        "-1",
        "+1",
        "",
        " 1",
        "0x1",
        "99999999999999999999",
        "1.2.3",
        "١",
    ] {
        let (line, problem) = fault_after_head(&format!("#EXTINF:{bad},\na\n"));
        assert_eq!((line, problem), (3, Problem::BadValue("#EXTINF")), "{bad}");
    }
    for (text, tag) in [
        ("#EXTM3U\n#EXT-X-TARGETDURATION:4294967296\n", "#EXT-X-TARGETDURATION"),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:2.5\n", "#EXT-X-TARGETDURATION"),
        ("#EXTM3U\n#EXT-X-VERSION:256\n", "#EXT-X-VERSION"),
        (
            "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:18446744073709551616\n",
            "#EXT-X-MEDIA-SEQUENCE",
        ),
        (
            "#EXTM3U\n#EXT-X-DISCONTINUITY-SEQUENCE:-1\n",
            "#EXT-X-DISCONTINUITY-SEQUENCE",
        ),
        ("#EXTM3U\n#EXT-X-PLAYLIST-TYPE:LIVE\n", "#EXT-X-PLAYLIST-TYPE"),
        (
            "#EXTM3U\n#EXT-X-PROGRAM-DATE-TIME:yesterday\n",
            "#EXT-X-PROGRAM-DATE-TIME",
        ),
    ] {
        assert_eq!(fault(text), (2, Problem::BadValue(tag)), "{text}");
    }
}

#[test]
fn attributes_are_checked_one_by_one() {
    let part = |name| Problem::BadAttribute {
        tag: "#EXT-X-PART",
        name,
    };
    for (list, problem) in [
        ("DURATION=1", part("URI")),
        ("DURATION=1,URI=a", part("URI")),
        ("DURATION=1,URI=\"\"", part("URI")),
        ("URI=\"a\"", part("DURATION")),
        ("URI=\"a\",DURATION=-1", part("DURATION")),
        ("URI=\"a\",DURATION=\"1\"", part("DURATION")),
        ("URI=\"a", Problem::BadValue("#EXT-X-PART")),
        ("URI=\"a\"DURATION=1", Problem::BadValue("#EXT-X-PART")),
        ("DURATION", Problem::BadValue("#EXT-X-PART")),
    ] {
        assert_eq!(
            fault_after_head(&format!("#EXT-X-PART:{list}\n")),
            (3, problem),
            "{list}"
        );
    }
    let report = Problem::BadAttribute {
        tag: "#EXT-X-RENDITION-REPORT",
        name: "LAST-PART",
    };
    let list = "URI=\"a\",LAST-MSN=1,LAST-PART=4294967296";
    assert_eq!(
        fault_after_head(&format!("#EXT-X-RENDITION-REPORT:{list}\n")),
        (3, report)
    );
}

#[test]
fn order_and_number_of_tags_matter() {
    for tag in ["#EXT-X-MEDIA-SEQUENCE", "#EXT-X-DISCONTINUITY-SEQUENCE"] {
        assert_eq!(
            fault_after_head(&format!("{tag}:1\n{tag}:1\n")),
            (4, Problem::Repeated(tag))
        );
        assert_eq!(
            fault_after_head(&format!("#EXTINF:1,\na\n{tag}:1\n")),
            (5, Problem::Misplaced(tag))
        );
    }
    assert_eq!(
        fault_after_head("#EXT-X-TARGETDURATION:2\n"),
        (3, Problem::Repeated("#EXT-X-TARGETDURATION"))
    );
    let late_skip = "#EXTINF:1,\na\n#EXT-X-SKIP:SKIPPED-SEGMENTS=1\n";
    assert_eq!(fault_after_head(late_skip), (5, Problem::Misplaced("#EXT-X-SKIP")));
    assert_eq!(fault_after_head("a.m4s\n"), (3, Problem::StrayUri));
    assert_eq!(
        fault_after_head("#EXTINF:1,\n#EXTINF:1,\na\n"),
        (4, Problem::Repeated("#EXTINF"))
    );
    assert!(
        matches!(fault_after_head("#EXTINF:1,\n"), (3, Problem::Missing(_))),
        "cut off before the URI"
    );
}

#[test]
fn what_cannot_be_carried_faithfully_is_refused() {
    for body in [
        "#EXT-X-KEY:METHOD=AES-128,URI=\"k\"\n",
        "#EXT-X-BYTERANGE:10@0\n",
        "#EXT-X-MAP:URI=\"i\",BYTERANGE=\"10@0\"\n",
        "#EXT-X-PART:DURATION=1,URI=\"p\",BYTERANGE=\"10@0\"\n",
        "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"p\",BYTERANGE-START=10\n",
        "#EXT-X-DEFINE:NAME=\"a\",VALUE=\"b\"\n",
        "#EXT-X-I-FRAMES-ONLY\n",
    ] {
        assert!(matches!(fault_after_head(body), (3, Problem::Unsupported(_))), "{body}");
    }
    let harmless = "#EXT-X-KEY:METHOD=NONE\n#EXT-X-PRELOAD-HINT:TYPE=MAP,URI=\"i\",BYTERANGE-LENGTH=9\n";
    assert!(parse(&format!("{HEAD}{harmless}")).is_ok());
}

#[test]
fn a_playlist_has_bounds() {
    let mut text = String::from(HEAD);
    for _ in 0..MAX_SEGMENTS {
        text.push_str("#EXTINF:2,\na\n");
    }
    assert_eq!(parse(&text).unwrap().segments.len(), MAX_SEGMENTS);
    text.push_str("#EXTINF:2,\na\n");
    assert_eq!(fault(&text), (2 * MAX_SEGMENTS + 4, Problem::TooMany("segments")));

    let mut text = String::from(HEAD);
    for _ in 0..=MAX_PARTS_PER_SEGMENT {
        text.push_str("#EXT-X-PART:DURATION=1,URI=\"p\"\n");
    }
    assert_eq!(
        fault(&text),
        (MAX_PARTS_PER_SEGMENT + 3, Problem::TooMany("parts in one segment"))
    );

    let long = "u".repeat(MAX_URI_BYTES + 1);
    assert_eq!(
        fault_after_head(&format!("#EXTINF:1,\n{long}\n")),
        (4, Problem::LongUri)
    );
    assert_eq!(
        fault_after_head(&format!("#EXT-X-MAP:URI=\"{long}\"\n")),
        (3, Problem::LongUri)
    );

    let vast = format!("{HEAD}{}", "#\n".repeat(MAX_PLAYLIST_BYTES / 2));
    assert_eq!(fault(&vast), (1, Problem::TooLong));
}

#[test]
fn a_long_map_uri_is_not_multiplied_without_end() {
    let mut text = String::from(HEAD);
    let _ = writeln!(text, "#EXT-X-MAP:URI=\"{}\"", "m".repeat(MAX_URI_BYTES));
    for _ in 0..100_000 {
        text.push_str("#EXTINF:2,\na\n");
    }
    assert!(matches!(fault(&text).1, Problem::TooMany(_)));
}

/// What must hold for every text whatsoever; the fuzz target `playlist` checks the same.
fn exercise(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(playlist) = multivariant::parse(text) {
        assert_eq!(multivariant::parse(&multivariant::write(&playlist)), Ok(playlist));
    }
    let Ok(mut playlist) = parse(text) else { return };
    let written = write(&playlist);
    assert_eq!(parse(&written).as_ref(), Ok(&playlist), "{written}");
    strip_old_parts(&mut playlist);
    let update = delta(&playlist);
    if playlist.skipped_segments.is_none() {
        assert_eq!(merge(&playlist, update), Ok(playlist));
    } else {
        assert!(merge(&playlist, update).is_err());
    }
}

fn files(directory: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let entries = std::fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names.into_iter().map(|name| std::fs::read(name).unwrap()).collect()
}

#[test]
fn the_fuzz_seeds_hold() {
    let seeds = files("../fuzz/seeds/playlist");
    assert!(seeds.len() >= 10, "{} seeds", seeds.len());
    seeds.iter().for_each(|seed| exercise(seed));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_playlists_hold(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0..5u8, any::<u8>()), 1..6),
    ) {
        static GOLDEN: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| files("src/hls/golden"));
        let mut text = which.get(&GOLDEN).clone();
        for (at, kind, byte) in damage {
            let at = at.index(text.len().max(1)).min(text.len().saturating_sub(1));
            match kind {
                _ if text.is_empty() => {}
                0 => text[at] = byte,
                1 => { text.remove(at); }
                2 => text.insert(at, b"\n\",=:#.09"[usize::from(byte) % 9]),
                3 => text.truncate(at),
                _ => text.extend_from_within(at..),
            }
        }
        exercise(&text);
    }

    #[test]
    fn any_text_holds(text in "#EXTM3U\n(#EXT(INF|-X-(PART|MAP|SKIP|PRELOAD-HINT|GAP)):[A-Z0-9=\",.-]{0,30}\n|.{0,20}\n){0,12}") {
        exercise(text.as_bytes());
    }
}
