use super::*;

/// A playlist of an origin that is not ours: absolute and relative URIs, a key, a session in the query, tags of its own.
const LIVE: &str = "#EXTM3U\r\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:2\n#EXT-X-VENDOR:URI=\"v.json\"\n\
    #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.5,CAN-SKIP-UNTIL=4.0\n#EXT-X-PART-INF:PART-TARGET=0.5\n\
    #EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-MAP:URI=\"init.mp4\",BYTERANGE=\"700@0\"\n\
    #EXT-X-KEY:METHOD=AES-128,URI=\"https://keys.example/1\"\n\
    #EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00Z\n#EXTINF:2.0,one\nseg7.mp4?s=1\n\
    #EXTINF:2.0,\nseg8.mp4?s=1\n#EXT-X-DISCONTINUITY\n#EXTINF:2.0,\nseg9.mp4?s=1\n\
    #EXT-X-PART:DURATION=0.5,URI=\"seg10.mp4\",BYTERANGE=\"1000@0\",INDEPENDENT=YES\n\
    #EXT-X-PART:DURATION=0.5,URI=\"seg10.mp4\",BYTERANGE=\"900\"\n#EXTINF:1.0,\nseg10.mp4\n\
    #EXT-X-DATERANGE:ID=\"ad\",START-DATE=\"2026-01-01T00:00:06Z\"\n\
    #EXT-X-PART:DURATION=0.5,URI=\"http://origin/live/seg11.mp4\"\n\
    #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"seg10.mp4\",BYTERANGE-START=1900\n\
    #EXT-X-RENDITION-REPORT:URI=\"../b/live.m3u8\",LAST-MSN=11,LAST-PART=0\n";

/// Names below `/edge/`; what the origin calls absolutely is written anew.
fn map(uri: &str) -> Mapped {
    if let Some(rest) = uri.strip_prefix("http://origin/live/") {
        let name = format!("/edge/{rest}");
        return Mapped {
            name: Some(name.as_str().into()),
            written: Some(name),
        };
    }
    Mapped {
        name: (!uri.contains("//")).then(|| format!("/edge/{uri}").into()),
        written: None,
    }
}

fn media(text: &str) -> MediaOutline {
    match outline(text, map) {
        Ok(Outline::Media(media)) => media,
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_goes_through_but_what_has_to_change() {
    let expected = LIVE
        .replace('\r', "")
        .replace("http://origin/live/seg11", "/edge/seg11");
    assert_eq!(media(LIVE).text(), expected);
}

#[test]
fn it_is_known_where_the_playlist_stands_and_what_it_names() {
    let live = media(LIVE);
    let edge = live.live_edge();
    assert_eq!((edge.first.0, edge.open.0, edge.open_parts), (7, 11, 1));
    assert_eq!(
        (edge.last_complete_parts, edge.advance_parts, edge.ended),
        (2, 6, false)
    );
    let span = |first, length| Some(Span { first, length });
    let hint = live.hint.clone().unwrap();
    assert_eq!((&*hint.name, hint.span), ("/edge/seg10.mp4", span(1900, None)));
    let names: Vec<_> = live.names_from(MediaSequence(9)).map(|n| (&*n.name, n.span)).collect();
    assert_eq!(
        names,
        [
            ("/edge/seg9.mp4?s=1", None),
            ("/edge/seg10.mp4", span(0, Some(1000))),
            ("/edge/seg10.mp4", span(1000, Some(900))),
            ("/edge/seg10.mp4", None),
            ("/edge/seg11.mp4", None),
        ]
    );
    let init = live.names_from(MediaSequence(0)).next().unwrap();
    assert_eq!((&*init.name, init.span), ("/edge/init.mp4", span(0, Some(700))));
}

#[test]
fn a_playlist_is_told_by_its_content() {
    let text = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"URI=\",URI=\"a.m3u8?s=1\"\n\
        #EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI=\"i.m3u8\"\n#EXT-X-SESSION-DATA:DATA-ID=\"x\",URI=\"x.json\"\n\
        #EXT-X-STREAM-INF:BANDWIDTH=5,AUDIO=\"a\"\nhttp://origin/live/v.m3u8\n";
    let Ok(Outline::Multivariant(multivariant)) = outline(text, map) else {
        panic!("a multivariant playlist")
    };
    assert_eq!(multivariant.text, text.replace("http://origin/live/", "/edge/"));
    let playlists: Vec<_> = multivariant.playlists.iter().map(|name| &**name).collect();
    assert_eq!(playlists, ["/edge/a.m3u8?s=1", "/edge/v.m3u8"]);
    for not_one in ["", "<html>", "\u{feff}#EXTM3U\n", "#EXTM3U\n#EXTINF:2,\na.ts\n"] {
        assert!(outline(not_one, map).is_err(), "{not_one}");
    }
}

#[test]
fn variables_are_the_players_to_resolve() {
    let text = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-DEFINE:NAME=\"a\",VALUE=\"b\"\n#EXTINF:2,\n{$a}.ts\n";
    let live = media(text);
    assert_eq!(
        (live.text().as_str(), live.names_from(MediaSequence(0)).count()),
        (text, 0)
    );
}

#[test]
fn a_delta_update_says_again_what_is_in_force() {
    let live = media(LIVE);
    let update = delta::text(&live).unwrap();
    let (head, rest) = update.split_once("#EXT-X-SKIP:SKIPPED-SEGMENTS=1\n").unwrap();
    assert!(head.contains("#EXT-X-MEDIA-SEQUENCE:7\n"));
    assert!(rest.starts_with(
        "#EXT-X-KEY:METHOD=AES-128,URI=\"https://keys.example/1\"\n\
         #EXT-X-MAP:URI=\"init.mp4\",BYTERANGE=\"700@0\"\n#EXTINF:2.0,\nseg8.mp4?s=1\n"
    ));
    let without = media(&LIVE.replace(",CAN-SKIP-UNTIL=4.0", ""));
    assert_eq!(delta::text(&without), None);
}

#[test]
fn an_update_is_put_onto_what_is_known() {
    let known = media(LIVE);
    let newer = LIVE.replace(
        "#EXT-X-PRELOAD-HINT",
        "#EXT-X-PART:DURATION=0.5,URI=\"seg11b.mp4\"\n#EXTINF:1.0,\nseg11.mp4\n#EXT-X-PRELOAD-HINT",
    );
    let full = media(&newer);
    let update = media(&delta::text(&full).unwrap());
    let merged = delta::merge(&known, update.clone()).unwrap();
    assert_eq!(merged.live_edge(), full.live_edge());
    assert_eq!(
        merged.names_from(MediaSequence(8)).collect::<Vec<_>>().len(),
        full.names_from(MediaSequence(8)).count() + 1,
        "the init section is named again"
    );
    assert!(merged.text().contains("#EXTINF:2.0,one\nseg7.mp4?s=1\n"));

    let back = delta::merge(&full, media(&delta::text(&known).unwrap()));
    assert!(matches!(back, Err(crate::hls::delta::MergeError::Older { .. })));
    let other_life = media(&LIVE.replace("seg9", "other9"));
    assert!(delta::merge(&known, other_life).is_err());
    let gap = media(&LIVE.replace("SEQUENCE:7", "SEQUENCE:70\n#EXT-X-SKIP:SKIPPED-SEGMENTS=3"));
    assert!(delta::merge(&known, gap).is_err());
}

#[test]
fn parts_that_are_old_are_listed_no_longer() {
    let known = media(LIVE);
    let more: String = (11..20).map(|n| format!("#EXTINF:2.0,\nseg{n}.mp4\n")).collect();
    let text =
        format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:8\n#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n{more}");
    let merged = delta::merge(&known, media(&text)).unwrap();
    assert!(!merged.text().contains("EXT-X-PART:"));
    assert!(
        merged
            .text()
            .contains("#EXT-X-DISCONTINUITY\n#EXTINF:2.0,\nseg9.mp4?s=1\n#EXTINF:1.0,\nseg10.mp4\n")
    );
}
