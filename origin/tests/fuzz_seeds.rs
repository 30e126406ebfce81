//! The hostile cases kept for fuzzing, run as ordinary tests.

#[path = "../../fuzz/ingest.rs"]
mod ingest;
#[path = "../../fuzz/media.rs"]
mod media;
#[path = "../../fuzz/mutate.rs"]
mod mutate;
#[path = "../../fuzz/srt.rs"]
mod srt;
#[path = "../../fuzz/transport.rs"]
mod transport;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use rand::{SeedableRng as _, rngs::SmallRng};
use weir_origin::{
    codec::{aac::AacError, av1::Av1Error, avc::AvcError, hevc::HevcError, opus::OpusError},
    ingest::{
        flv::{FlvError, Unit},
        rtmp::{amf0::AmfError, chunk::ChunkError},
    },
    package::frame::{TrackId, TrackKind},
};

/// Name → bytes of a target's seeds.
fn seeds(target: &str) -> BTreeMap<String, Vec<u8>> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

#[test]
fn srt_seeds_end_as_they_should() {
    let heard = |name: &str| srt::srt(&seeds("srt")[name]);
    assert_eq!(heard("induction").inductions, 2);
    assert_eq!((heard("conclusion").knocks, heard("conclusion_locked").knocks), (1, 1));
    // What panicked other codecs.
    assert_eq!(heard("empty_stream_id").knocks, 1);
    for name in ["congestion_and_group", "long_stream_id", "extension_cut_off"] {
        assert_eq!(heard(name).rejected, 1, "{name}");
    }
    assert_eq!((heard("data_in_order").payloads, heard("data_in_order").gaps), (12, 0));
    assert_eq!(
        (heard("data_with_holes").payloads, heard("data_with_holes").gaps),
        (7, 1)
    );
    assert_eq!((heard("goodbye").payloads, heard("goodbye").gaps), (2, 1));
    for (name, bytes) in seeds("srt") {
        srt::srt(&bytes);
        assert!(!srt::key_material(&bytes), "{name}");
    }
}

#[test]
fn chunk_seeds_end_as_they_should() {
    let outcomes: BTreeMap<_, _> = seeds("chunk")
        .into_iter()
        .map(|(name, bytes)| (name, ingest::chunk(&bytes)))
        .collect();
    let messages = |name: &str| outcomes[name].as_ref().unwrap().len();
    assert_eq!(messages("connect"), 1);
    assert_eq!(messages("interleaved"), 2);
    assert_eq!(messages("abort_inside_message"), 1);
    assert_eq!(messages("extended_time"), 1);
    assert_eq!(messages("extended_time_not_repeated"), 1);
    assert_eq!(messages("cut_off"), 0);
    let error = |name: &str| outcomes[name].clone().unwrap_err();
    for name in ["message_of_16_mib", "command_of_16_mib"] {
        assert!(matches!(error(name), ChunkError::MessageTooLong { .. }));
    }
    assert_eq!(error("chunk_size_zero"), ChunkError::ChunkSize(0));
    assert_eq!(error("nine_unfinished_messages"), ChunkError::TooManyPartials);
    assert_eq!(error("sixty_five_chunk_streams"), ChunkError::TooManyChunkStreams);
}

#[test]
fn amf0_seeds_end_as_they_should() {
    let outcomes: BTreeMap<_, _> = seeds("amf0")
        .into_iter()
        .map(|(name, bytes)| (name, ingest::amf0(&bytes)))
        .collect();
    for name in ["ten_thousand_objects", "ten_thousand_arrays"] {
        assert_eq!(outcomes[name], Err(AmfError::TooDeep), "{name}");
    }
    assert_eq!(outcomes["reference"], Err(AmfError::Marker(7)));
    assert_eq!(outcomes["two_thousand_nulls"], Err(AmfError::TooManyElements));
    for name in [
        "connect",
        "metadata",
        "sixteen_levels",
        "ecma_array_without_end",
        "not_utf8",
    ] {
        assert!(outcomes[name].is_ok(), "{name}");
    }
}

#[test]
fn session_seeds_end_as_they_should() {
    let outcomes: BTreeMap<_, _> = seeds("session")
        .into_iter()
        .map(|(name, bytes)| (name, ingest::session(&bytes)))
        .collect();
    for (name, events) in [
        ("ffmpeg", 12),
        ("ffmpeg_hevc_opus", 17),
        ("gstreamer", 6),
        ("answers", 4),
    ] {
        assert_eq!(outcomes[name].steps, format!("cp{}", "e".repeat(events)), "{name}");
        assert_eq!(outcomes[name].end, None, "{name}");
    }
    assert_eq!((outcomes["asks"].steps.as_str(), outcomes["asks"].end), ("c", None));
    assert_eq!(outcomes["connects_twice"].end, Some("command"));
    assert_eq!(outcomes["begins_in_the_middle"].end, Some("chunk"));
    let told = String::from_utf8_lossy(&outcomes["ffmpeg"].replied);
    assert!(told.contains("NetStream.Publish.Start"), "{told}");
}

#[test]
fn flv_seeds_end_as_they_should() {
    let outcomes: BTreeMap<_, _> = seeds("flv")
        .into_iter()
        .map(|(name, bytes)| (name, ingest::flv(&bytes)))
        .collect();
    let frames = |name: &str| {
        let units = outcomes[name].as_ref().unwrap();
        units.iter().filter(|unit| matches!(unit, Unit::Frame(_))).count()
    };
    assert_eq!(frames("ordinary"), 3);
    assert_eq!(frames("nal_length_lies"), 1);
    assert_eq!(frames("metadata_enhanced"), 0);
    let error = |name: &str| outcomes[name].clone().unwrap_err();
    for name in [
        "no_parameter_sets",
        "empty_configuration",
        "frames_before_configuration",
    ] {
        assert_eq!(error(name), FlvError::NoParameterSets, "{name}");
    }
    for (name, count) in [
        ("hevc_ordinary", 2),
        ("av1_ordinary", 2),
        ("opus_ordinary", 2),
        ("multitrack_video", 1),
        ("many_tracks", 2),
        ("many_tracks_many_codecs", 2),
        ("mod_ex_long", 1),
        ("av1_enhanced", 0),
        ("av1_obu_size_lies", 0),
    ] {
        assert_eq!(frames(name), count, "{name}");
    }
    for name in ["vp9_enhanced", "sorenson"] {
        assert!(matches!(error(name), FlvError::UnsupportedVideo(_)), "{name}");
    }
    assert!(matches!(error("mp3"), FlvError::UnsupportedAudio(_)));
    assert_eq!(error("hevc_enhanced"), FlvError::Hevc(HevcError::Truncated));
    assert_eq!(error("hevc_no_parameter_sets"), FlvError::NoParameterSets);
    for name in ["hevc_sps_of_ones", "hevc_sps_of_zeros"] {
        assert_eq!(error(name), FlvError::Hevc(HevcError::Sps), "{name}");
    }
    assert_eq!(
        error("av1_sequence_header_of_ones"),
        FlvError::Av1(Av1Error::PictureSize(65_536, 65_536))
    );
    assert_eq!(error("opus_enhanced"), FlvError::Opus(OpusError::Truncated));
    assert_eq!(error("opus_mapping_lies"), FlvError::Opus(OpusError::Mapping));
    assert_eq!(error("mod_ex_without_end"), FlvError::Truncated);
    assert_eq!(error("multitrack_size_lies"), FlvError::Truncated);
    assert!(matches!(error("multitrack_nested"), FlvError::Multitrack(_)));
    assert_eq!(error("nine_audio_tracks"), FlvError::TooManyTracks(TrackKind::Audio));
    assert_eq!(error("sps_length_lies"), FlvError::Avc(AvcError::Truncated));
    assert_eq!(error("asc_explicit_rate_zero"), FlvError::Aac(AacError::Rate(0)));
    assert_eq!(error("asc_channel_element"), FlvError::Aac(AacError::Channels(0)));
}

/// As ffprobe counts their packets.
#[test]
fn ts_seeds_end_as_they_should() {
    let outcomes: BTreeMap<_, _> = seeds("ts")
        .into_iter()
        .map(|(name, bytes)| (name, transport::ts(&bytes)))
        .collect();
    for (name, codecs, video, audio) in [
        ("ffmpeg_h264_aac", ["avc1.4d400a", "mp4a.40.2"], 5, 23),
        ("ffmpeg_hevc_opus", ["hvc1.1.6.L30.90", "opus"], 5, 51),
        ("gstreamer", ["avc1.f4000d", "mp4a.40.2"], 5, 31),
    ] {
        let media = outcomes[name].as_ref().unwrap();
        let named: Vec<_> = media.codecs.iter().map(|(_, codec)| codec.as_str()).collect();
        assert_eq!(named, codecs, "{name}");
        let frames = BTreeMap::from([(TrackId::VIDEO, video), (TrackId::AUDIO, audio)]);
        assert_eq!((&media.frames, media.dropped), (&frames, 0), "{name}");
    }
    assert_eq!(outcomes["ffmpeg_h264_aac_begins"].as_ref().unwrap().frames.len(), 1);
}

#[test]
fn codec_seeds_end_as_they_should() {
    let names: BTreeMap<_, _> = seeds("codec")
        .into_iter()
        .map(|(name, bytes)| (name, media::codec(&bytes).map(|config| config.codec_string())))
        .collect();
    for (name, codec) in [
        ("hevc_record", "hvc1.1.6.L63.90"),
        ("hevc_sps", "hvc1.1.6.L63.90"),
        ("av1_record", "av01.0.01M.08"),
        ("av1_header", "av01.0.01M.08"),
        ("av1_temporal_unit", "av01.0.01M.08"),
        ("opus_mono", "opus"),
        ("opus_surround", "opus"),
        ("avc_sps", "avc1.64001f"),
        ("asc", "mp4a.40.2"),
    ] {
        assert_eq!(names[name].as_deref(), Some(codec), "{name}");
    }
    assert_eq!(names["av1_header_of_ones"], None);
    assert_eq!(names["opus_packet"], None);
}

#[test]
fn enhanced_seeds_end_as_they_should() {
    let outcomes: BTreeMap<_, _> = seeds("enhanced")
        .into_iter()
        .map(|(name, bytes)| (name, media::enhanced(&bytes)))
        .collect();
    let units = |name: &str| outcomes[name].as_ref().map(Vec::len);
    assert_eq!(units("frames"), Ok(5));
    assert_eq!(units("many_tracks"), Ok(3));
    assert_eq!(units("modifiers"), Ok(3));
    // Track 0 has had other records before.
    assert_eq!(units("new_records"), Ok(3));
    assert_eq!(units("passed_over"), Ok(0));
    assert!(matches!(outcomes["nested"], Err(FlvError::Multitrack(_))));
    assert_eq!(outcomes["size_lies"], Err(FlvError::Truncated));
    assert!(matches!(outcomes["wrong_kind"], Err(FlvError::UnsupportedVideo(_))));
}

/// Not a fuzzer, which would learn what it finds: a smoke test that every checkout runs. The same mutations each time.
#[test]
fn damaged_seeds_break_nothing() {
    let mut random = SmallRng::seed_from_u64(4);
    for target in ["session", "ts", "srt", "flv", "enhanced", "codec"] {
        let seeds: Vec<Vec<u8>> = seeds(target).into_values().collect();
        for _ in 0..2_000 {
            let bytes = mutate::damaged(&seeds, &mut random);
            match target {
                "ts" => drop(transport::ts(&bytes)),
                "srt" => drop(srt::srt(&bytes)),
                "session" => drop(ingest::session(&bytes)),
                "flv" => drop(ingest::flv(&bytes)),
                "enhanced" => drop(media::enhanced(&bytes)),
                _ => drop(media::codec(&bytes)),
            }
        }
    }
}
