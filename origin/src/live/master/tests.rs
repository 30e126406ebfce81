use bytes::Bytes;
use weir_shared::hls::multivariant::write;

use super::*;
use crate::codec::{aac::AacConfig, av1::Av1Config, hevc::HevcConfig, opus::OpusConfig};

fn facts(name: &str, config: CodecConfig, rate: u64) -> Facts {
    Facts {
        name: name.parse().unwrap(),
        milli_frame_rate: (config.track() == TrackKind::Video).then_some(25_000),
        config: Arc::new(config),
        peak_bitrate: rate,
        average_bitrate: rate / 2,
        language: None,
    }
}

fn hevc(name: &str, rate: u64) -> Facts {
    let record = Bytes::from_static(include_bytes!("../../../tests/records/hevc"));
    facts(name, CodecConfig::Hevc(HevcConfig::parse(record).unwrap()), rate)
}

fn aac(name: &str, rate: u64) -> Facts {
    let config = AacConfig::parse(Bytes::from_static(&[0x11, 0x90])).unwrap();
    facts(name, CodecConfig::Aac(config), rate)
}

fn opus(name: &str, rate: u64) -> Facts {
    let record = Bytes::from_static(include_bytes!("../../../tests/records/opus"));
    facts(name, CodecConfig::Opus(OpusConfig::parse(record).unwrap()), rate)
}

/// (uri, codecs, audio group, bandwidth) of each variant.
fn variants(playlist: &Multivariant) -> Vec<(&str, &str, &str, u64)> {
    let text = |text: &'static str| text;
    playlist
        .variants
        .iter()
        .map(|v| {
            let group = v.audio_group.as_deref().unwrap_or(text("none"));
            (v.uri.as_str(), v.codecs.as_deref().unwrap(), group, v.bandwidth)
        })
        .collect()
}

/// (group, name, uri, default) of each rendition.
fn media(playlist: &Multivariant) -> Vec<(&str, &str, &str, bool)> {
    playlist
        .media
        .iter()
        .map(|m| {
            (
                m.group_id.as_str(),
                m.name.as_str(),
                m.uri.as_deref().unwrap(),
                m.default,
            )
        })
        .collect()
}

const HEVC: &str = "hvc1.1.6.L63.90";

#[test]
fn one_video_and_one_audio_track() {
    let playlist = multivariant(&[hevc("video", 1000), aac("audio", 100)], "d/", true);
    let codecs = format!("{HEVC},mp4a.40.2");
    assert_eq!(variants(&playlist), [("d/video.m3u8", codecs.as_str(), "audio", 1100)]);
    assert_eq!(media(&playlist), [("audio", "Audio", "d/audio.m3u8", true)]);
    assert!(!write(&playlist).contains("VIDEO-RANGE"));
}

#[test]
fn tracks_alone_need_no_group() {
    let sound = multivariant(&[opus("audio", 100)], "", true);
    assert_eq!(variants(&sound), [("audio.m3u8", "opus", "none", 100)]);
    assert_eq!(media(&sound), []);
    let picture = multivariant(&[hevc("video", 1000)], "", true);
    assert_eq!(variants(&picture), [("video.m3u8", HEVC, "none", 1000)]);
    assert_eq!(multivariant(&[], "", true).variants, []);
}

#[test]
fn languages_of_one_codec_are_one_group() {
    let tracks = [hevc("video", 1000), aac("audio", 100), aac("audio-2", 300)];
    let playlist = multivariant(&tracks, "", true);
    let codecs = format!("{HEVC},mp4a.40.2");
    // The louder of the two counts.
    assert_eq!(variants(&playlist), [("video.m3u8", codecs.as_str(), "audio", 1300)]);
    let expected = [
        ("audio", "Audio 1", "audio.m3u8", true),
        ("audio", "Audio 2", "audio-2.m3u8", false),
    ];
    assert_eq!(media(&playlist), expected);
}

#[test]
fn the_same_sound_in_two_codecs_is_a_choice_of_variants() {
    let tracks = [hevc("video", 1000), opus("audio", 60), aac("audio-2", 100)];
    let playlist = multivariant(&tracks, "", true);
    let (with_opus, with_aac) = (format!("{HEVC},opus"), format!("{HEVC},mp4a.40.2"));
    let expected = [
        ("video.m3u8", with_opus.as_str(), "audio", 1060),
        ("video.m3u8", with_aac.as_str(), "audio-2", 1100),
    ];
    assert_eq!(variants(&playlist), expected);
    // Corresponding members of groups are alike but for their address.
    let expected = [
        ("audio", "Audio", "audio.m3u8", true),
        ("audio-2", "Audio", "audio-2.m3u8", true),
    ];
    assert_eq!(media(&playlist), expected);
}

#[test]
fn groups_that_would_not_match_are_one_group_of_all() {
    let tracks = [
        hevc("video", 1000),
        aac("audio", 100),
        aac("audio-2", 100),
        opus("audio-3", 60),
    ];
    let playlist = multivariant(&tracks, "", true);
    let codecs = format!("{HEVC},mp4a.40.2,opus");
    assert_eq!(variants(&playlist), [("video.m3u8", codecs.as_str(), "audio", 1100)]);
    assert_eq!(playlist.media.len(), 3);
}

#[test]
fn every_video_goes_with_every_group() {
    let tracks = [
        hevc("video", 2000),
        hevc("video-2", 1000),
        opus("audio", 60),
        aac("audio-2", 100),
    ];
    let playlist = multivariant(&tracks, "", true);
    let found: Vec<_> = variants(&playlist)
        .into_iter()
        .map(|(uri, _, group, _)| (uri, group))
        .collect();
    let expected = [
        ("video.m3u8", "audio"),
        ("video.m3u8", "audio-2"),
        ("video-2.m3u8", "audio"),
        ("video-2.m3u8", "audio-2"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn radio_in_two_languages_has_a_choice() {
    let playlist = multivariant(&[aac("audio", 100), aac("audio-2", 100)], "", true);
    assert_eq!(variants(&playlist), [("audio.m3u8", "mp4a.40.2", "audio", 100)]);
    assert_eq!(media(&playlist).len(), 2);
}

#[test]
fn languages_are_named_and_never_taken_for_the_same_sound() {
    let spoken = |facts: Facts, tag| Facts {
        language: Language::parse(tag),
        ..facts
    };
    let (english, german) = (spoken(opus("audio", 60), "en"), spoken(aac("audio-2", 100), "de"));
    let playlist = multivariant(&[hevc("video", 1000), english, german], "", true);
    let languages: Vec<_> = playlist
        .media
        .iter()
        .map(|m| (m.group_id.as_str(), m.language.as_deref()))
        .collect();
    assert_eq!(languages, [("audio", Some("en")), ("audio", Some("de"))]);
    assert_eq!(playlist.variants.len(), 1);
}

#[test]
fn high_dynamic_range_is_named() {
    let record = Bytes::from_static(include_bytes!("../../../tests/records/av1"));
    let mut config = Av1Config::parse(record).unwrap();
    config.color.transfer = 16;
    let playlist = multivariant(&[facts("video", CodecConfig::Av1(config), 1000)], "", true);
    assert_eq!(playlist.variants[0].video_range, Some(VideoRange::Pq));
}
