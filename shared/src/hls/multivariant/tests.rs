use super::*;

const TEXT: &str = include_str!("../golden/multivariant.m3u8");

fn stream() -> Multivariant {
    let variant = Variant {
        uri: "d/video.m3u8".into(),
        bandwidth: 3_400_000,
        average_bandwidth: Some(2_650_000),
        codecs: Some("avc1.64001f,mp4a.40.2".into()),
        resolution: Some((1280, 720)),
        frame_rate_milli: Some(29_970),
        video_range: None,
        audio_group: Some("audio".into()),
    };
    let audio_only = Variant {
        uri: "d/audio.m3u8".into(),
        bandwidth: 130_000,
        average_bandwidth: None,
        codecs: Some("mp4a.40.2".into()),
        resolution: None,
        frame_rate_milli: None,
        video_range: None,
        audio_group: Some("audio".into()),
    };
    let media = Media {
        group_id: "audio".into(),
        name: "English".into(),
        uri: Some("d/audio.m3u8".into()),
        language: Some("en".into()),
        default: true,
        autoselect: true,
        channels: Some("2".into()),
    };
    Multivariant {
        independent_segments: true,
        version: REQUIRED_VERSION,
        variants: vec![variant, audio_only],
        media: vec![media],
    }
}

#[test]
fn the_text_is_the_golden_one_and_reads_back() {
    assert_eq!(write(&stream()), TEXT);
    assert_eq!(parse(TEXT), Ok(stream()));
}

#[test]
fn a_wide_range_is_named() {
    for range in VideoRange::ALL {
        let mut playlist = stream();
        playlist.variants[0].video_range = Some(range);
        let text = write(&playlist);
        assert!(text.contains(&format!(",VIDEO-RANGE={},", range.as_str())), "{text}");
        assert_eq!(parse(&text), Ok(playlist));
    }
    let other = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,VIDEO-RANGE=XYZ\nv\n";
    assert_eq!(parse(other).unwrap().variants[0].video_range, None);
}

#[test]
fn a_name_cannot_break_out_of_its_quotes() {
    let mut playlist = stream();
    playlist.media[0].name = "a\",URI=\"x\n#EXT-X-EVIL".into();
    let read = parse(&write(&playlist)).unwrap();
    assert_eq!(read.media[0].name, "a,URI=x#EXT-X-EVIL");
    assert_eq!(read.media[0].uri, playlist.media[0].uri);
}

#[test]
fn others_playlists_are_read_for_what_we_serve() {
    let read = parse(concat!(
        "#EXTM3U\r\n#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID=\"s\",NAME=\"x\",URI=\"s.m3u8\"\r\n\r\n",
        "#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI=\"i.m3u8\"\r\n",
        "#EXT-X-STREAM-INF:BANDWIDTH=9,FRAME-RATE=59.94006,X=\"a,b\"\r\n# comment\r\nv.m3u8\r\n",
    ))
    .unwrap();
    assert_eq!(read.media, []);
    assert_eq!(read.variants.len(), 1);
    assert_eq!(read.variants[0].uri, "v.m3u8");
    assert_eq!(read.variants[0].frame_rate_milli, Some(59_940));
    assert_eq!(read.version, 1);
}

#[test]
fn faults_are_named_with_their_line() {
    for (body, line, problem) in [
        ("v.m3u8\n", 2, Problem::StrayUri),
        ("#EXTINF:2,\n", 2, Problem::Media(tag::INF)),
        (
            "\n#EXT-X-STREAM-INF:CODECS=\"a\nv\n",
            3,
            Problem::BadValue(tag::STREAM_INF),
        ),
        (
            "#EXT-X-STREAM-INF:BANDWIDTH=-1\nv\n",
            2,
            Problem::BadAttribute {
                tag: tag::STREAM_INF,
                name: "BANDWIDTH",
            },
        ),
        (
            "#EXT-X-STREAM-INF:BANDWIDTH=1\n",
            2,
            Problem::Missing("the URI that belongs to the last #EXT-X-STREAM-INF"),
        ),
    ] {
        assert_eq!(
            parse(&format!("#EXTM3U\n{body}")),
            Err(ParseError { line, problem }),
            "{body}"
        );
    }
}
