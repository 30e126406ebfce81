use proptest::prelude::*;

use super::*;
use crate::codec::{
    av1::tests::SVT_360P, avc::tests::X264_720P30, hevc::tests::X265_360P30, opus::tests::LIBOPUS_MONO,
};

fn video_config() -> Bytes {
    [&[0x17, 0, 0, 0, 0], X264_720P30].concat().into()
}

/// One NAL unit of the given header byte.
fn access_unit(first: u8, composition: [u8; 3], nal: u8) -> Bytes {
    let [a, b, c] = composition;
    vec![first, 1, a, b, c, 0, 0, 0, 2, nal, 0xaa].into()
}

/// What becomes of a message that holds one track at most.
fn video(demuxer: &mut Demuxer, message: impl Into<Bytes>) -> Result<Option<Unit>, FlvError> {
    demuxer.video(message.into())?;
    let unit = demuxer.poll();
    assert_eq!(demuxer.poll(), None);
    Ok(unit)
}

fn audio(demuxer: &mut Demuxer, message: impl Into<Bytes>) -> Result<Option<Unit>, FlvError> {
    demuxer.audio(message.into())?;
    let unit = demuxer.poll();
    assert_eq!(demuxer.poll(), None);
    Ok(unit)
}

fn ready() -> Demuxer {
    let mut demuxer = Demuxer::new();
    video(&mut demuxer, video_config()).unwrap();
    audio(&mut demuxer, vec![0xaf, 0, 0x12, 0x10]).unwrap();
    demuxer
}

#[test]
fn a_configuration_is_told_once() {
    let mut demuxer = Demuxer::new();
    let told = video(&mut demuxer, video_config());
    assert!(matches!(told, Ok(Some(Unit::Config(TrackId::VIDEO, _)))));
    assert_eq!(video(&mut demuxer, video_config()), Ok(None));
    let asc = Bytes::from_static(&[0xaf, 0, 0x12, 0x10]);
    let told = audio(&mut demuxer, asc.clone());
    assert!(matches!(told, Ok(Some(Unit::Config(TrackId::AUDIO, _)))));
    assert_eq!(audio(&mut demuxer, asc), Ok(None));
}

#[test]
fn only_an_idr_is_a_key_frame_whatever_the_header_says() {
    let frame = |unit| match video(&mut ready(), unit) {
        Ok(Some(Unit::Frame(frame))) => frame,
        other => panic!("{other:?}"),
    };
    let idr = frame(access_unit(0x17, [0, 0, 80], 0x65));
    assert!(idr.key);
    assert_eq!((idr.composition_ms, idr.data.len()), (80, 6));
    assert!(!frame(access_unit(0x17, [0; 3], 0x41)).key);
    let early = frame(access_unit(0x27, [0xff, 0xff, 0xd8], 0x01));
    assert_eq!(early.composition_ms, -40);
}

#[test]
fn frames_before_their_configuration_are_dropped_but_not_for_ever() {
    let mut demuxer = Demuxer::new();
    let dropped = |track| Ok(Some(Unit::Dropped(track, DropReason::BeforeConfig)));
    assert_eq!(audio(&mut demuxer, vec![0xaf, 1, 9]), dropped(TrackKind::Audio));
    for _ in 0..FRAMES_BEFORE_CONFIG_MAX {
        let unit = access_unit(0x17, [0; 3], 0x65);
        assert_eq!(video(&mut demuxer, unit), dropped(TrackKind::Video));
    }
    let last = demuxer.video(access_unit(0x17, [0; 3], 0x65));
    assert_eq!(last, Err(FlvError::NoParameterSets));
}

#[test]
fn h264_without_parameter_sets_is_named() {
    let empty = Demuxer::new().video(vec![0x17, 0, 0, 0, 0].into());
    assert_eq!(empty, Err(FlvError::NoParameterSets));
    let none = Demuxer::new().video(vec![0x17, 0, 0, 0, 0, 1, 0x64, 0, 0x1f, 0xff, 0xe0, 0].into());
    assert_eq!(none, Err(FlvError::NoParameterSets));
}

#[test]
fn lengths_that_do_not_add_up_cost_one_frame() {
    let mut demuxer = ready();
    let lying = vec![0x27, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x41];
    let malformed = Unit::Dropped(TrackKind::Video, DropReason::Malformed);
    assert_eq!(video(&mut demuxer, lying), Ok(Some(malformed)));
    let honest = video(&mut demuxer, access_unit(0x27, [0; 3], 0x41));
    assert!(matches!(honest, Ok(Some(Unit::Frame(_)))));
}

#[test]
fn other_codecs_are_refused_by_name() {
    let video = |bytes: &'static [u8]| Demuxer::new().video(Bytes::from_static(bytes)).unwrap_err().to_string();
    assert!(video(b"\x90vp09").contains("vp09"));
    assert!(video(b"\x91vvc1").contains("vvc1"));
    assert!(video(&[0x12, 0, 0]).contains("H.263"));
    let audio = |bytes: &'static [u8]| Demuxer::new().audio(Bytes::from_static(bytes)).unwrap_err().to_string();
    assert!(audio(b"\x90ac-3").contains("ac-3"));
    assert!(audio(b"\x90Opus\0").contains("OpusHead"));
    assert!(audio(&[0x2f, 0xff]).contains("MP3"));
    // A codec of the other kind is no codec of this one.
    assert!(audio(b"\x90avc1").contains("avc1"));
}

#[test]
fn nothing_comes_of_empty_messages_ends_and_metadata() {
    let mut demuxer = ready();
    for message in [
        &[][..],
        &[0x17, 2, 0, 0, 0],
        &[0x17, 1, 0, 0, 0],
        &[0x57, 0],
        &[0xd4, b'a'],
        b"\x93avc1",
    ] {
        assert_eq!(video(&mut demuxer, message.to_vec()), Ok(None));
    }
    for message in [&[][..], &[0xaf, 1], b"\x94mp4a\x01\x02\0\0\0\x03", b"\x92mp4a"] {
        assert_eq!(audio(&mut demuxer, message.to_vec()), Ok(None));
    }
    assert_eq!(demuxer.video(vec![0x17, 1].into()), Err(FlvError::Truncated));
    assert_eq!(
        demuxer.video(Bytes::from_static(b"\x91avc1\0")),
        Err(FlvError::Truncated)
    );
}

/// An Enhanced RTMP message of one codec.
fn enhanced(first: u8, codec: &[u8; 4], body: &[u8]) -> Bytes {
    [&[first], &codec[..], body].concat().into()
}

#[test]
fn every_codec_comes_by_its_four_characters() {
    let mut demuxer = Demuxer::new();
    for (first, codec, record, name) in [
        (0x90, b"avc1", X264_720P30, "avc1.64001f"),
        (0x90, b"hvc1", X265_360P30, "hvc1.1.6.L63.90"),
        (0x90, b"av01", SVT_360P, "av01.0.01M.08"),
    ] {
        match video(&mut demuxer, enhanced(first, codec, record)) {
            Ok(Some(Unit::Config(TrackId::VIDEO, config))) => assert_eq!(config.codec_string(), name),
            other => panic!("{other:?}"),
        }
        assert_eq!(video(&mut demuxer, enhanced(first, codec, record)), Ok(None));
    }
    for (codec, record, name) in [
        (b"mp4a", &[0x12, 0x10][..], "mp4a.40.2"),
        (b"Opus", LIBOPUS_MONO, "opus"),
    ] {
        match audio(&mut demuxer, enhanced(0x90, codec, record)) {
            Ok(Some(Unit::Config(TrackId::AUDIO, config))) => assert_eq!(config.codec_string(), name),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn key_frames_are_known_by_their_bytes_in_every_codec() {
    let mut demuxer = Demuxer::new();
    let frame = |demuxer: &mut Demuxer, message: Bytes| match video(demuxer, message) {
        Ok(Some(Unit::Frame(frame))) => (frame.key, frame.composition_ms, frame.data),
        other => panic!("{other:?}"),
    };
    video(&mut demuxer, enhanced(0x90, b"hvc1", X265_360P30)).unwrap();
    let idr = frame(
        &mut demuxer,
        enhanced(0x91, b"hvc1", &[0, 0, 67, 0, 0, 0, 3, 0x28, 1, 9]),
    );
    assert_eq!(idr, (true, 67, Bytes::from_static(&[0, 0, 0, 3, 0x28, 1, 9])));
    let trail = frame(&mut demuxer, enhanced(0x93, b"hvc1", &[0, 0, 0, 3, 0x02, 1, 9]));
    assert_eq!((trail.0, trail.1), (false, 0), "whatever the header says");
    video(&mut demuxer, enhanced(0x90, b"av01", SVT_360P)).unwrap();
    assert!(frame(&mut demuxer, enhanced(0xa1, b"av01", &[0x12, 0, 0x32, 1, 0x10])).0);
    assert!(!frame(&mut demuxer, enhanced(0x91, b"av01", &[0x32, 1, 0x30])).0);
    // A frame of the codec that is no longer configured.
    let late = video(&mut demuxer, enhanced(0x93, b"hvc1", &[0, 0, 0, 1, 0x28]));
    assert_eq!(
        late,
        Ok(Some(Unit::Dropped(TrackKind::Video, DropReason::BeforeConfig)))
    );
    let broken = video(&mut demuxer, enhanced(0x91, b"av01", &[0x32, 9, 0x10]));
    assert_eq!(broken, Ok(Some(Unit::Dropped(TrackKind::Video, DropReason::Malformed))));
}

#[test]
fn tracks_of_one_message_are_told_apart() {
    let mut demuxer = Demuxer::new();
    let second = TrackId {
        number: 1,
        ..TrackId::AUDIO
    };
    demuxer
        .audio(Bytes::from_static(
            b"\x95\x10mp4a\0\0\0\x02\x12\x10\x01\0\0\x02\x11\x90",
        ))
        .unwrap();
    let rates: Vec<_> = std::iter::from_fn(|| demuxer.poll())
        .map(|unit| match unit {
            Unit::Config(id, config) => match &*config {
                CodecConfig::Aac(aac) => (id, aac.sample_rate),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(rates, [(TrackId::AUDIO, 44_100), (second, 48_000)]);
    demuxer
        .audio(Bytes::from_static(
            b"\x97\x02\0\0\x07\x05\x11mp4a\x01\0\0\x01b\0\0\0\x01a",
        ))
        .unwrap();
    let frames: Vec<_> = std::iter::from_fn(|| demuxer.poll())
        .map(|unit| match unit {
            Unit::Frame(frame) => (frame.track, frame.nanos, frame.data),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        frames,
        [
            (second, 7, Bytes::from_static(b"b")),
            (TrackId::AUDIO, 7, Bytes::from_static(b"a"))
        ]
    );
    // The old header means track 0.
    assert!(matches!(
        audio(&mut demuxer, vec![0xaf, 1, 9]),
        Ok(Some(Unit::Frame(RawFrame {
            track: TrackId::AUDIO,
            ..
        })))
    ));
}

#[test]
fn tracks_are_counted() {
    let mut demuxer = Demuxer::new();
    let start = |number: u8| Bytes::from([&b"\x95\x00mp4a"[..], &[number, 0x12, 0x10]].concat());
    for number in (0..TRACKS_MAX as u8).map(|n| n * 31) {
        assert!(audio(&mut demuxer, start(number)).unwrap().is_some());
    }
    let refused = demuxer.audio(start(3)).unwrap_err();
    assert_eq!(refused, FlvError::TooManyTracks(TrackKind::Audio));
    assert_eq!(refused.to_string(), "more than 8 audio tracks");
    assert_eq!(audio(&mut demuxer, start(31)), Ok(None), "those that were taken stay");
    assert!(
        video(&mut demuxer, video_config()).unwrap().is_some(),
        "the other kind counts for itself"
    );
}

proptest! {
    #[test]
    fn no_message_panics(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
        let mut demuxer = ready();
        for message in messages {
            let _ = demuxer.video(message.clone().into());
            let _ = demuxer.audio(message.clone().into());
            // And as what it would rarely be by chance.
            for codec in [b"hvc1", b"av01", b"avc1"] {
                let _ = demuxer.video(enhanced(0x90, codec, &message));
                let _ = demuxer.video(enhanced(0x91, codec, &message));
                let _ = demuxer.video([&b"\x96\x21"[..], codec, &message].concat().into());
            }
            let _ = demuxer.audio(enhanced(0x90, b"Opus", &message));
            let _ = demuxer.audio(enhanced(0x95, b"Opus", &message));
            while demuxer.poll().is_some() {}
        }
    }
}
