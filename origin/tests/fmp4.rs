//! Init sections and parts as others read them: a second parser (`mp4-atom`) for their fields, and a walk over the bare
//! boxes for their sizes.

use std::ops::Range;

use bytes::Bytes;
use mp4_atom::{Codec, Decode as _, FourCC, Ftyp, Moof, Moov, StszSamples, Trak, TrunEntry};
use proptest::prelude::*;
use weir_origin::{
    codec::{CodecConfig, aac::AacConfig, avc::AvcConfig},
    package::{
        fmp4::{init_section, part},
        segmenter::{Draft, Sample},
    },
};
use weir_shared::media::time::{Ticks, Timescale};

/// x264, High profile, level 3.1, 1280 × 720, 30 frames per second.
const AVC_RECORD: [u8; 45] = [
    0x01, 0x64, 0x00, 0x1f, 0xff, 0xe1, 0x00, 0x1a, 0x67, 0x64, 0x00, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01,
    0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x83, 0x19, 0x60, 0x01, 0x00, 0x04, 0x68,
    0xef, 0x8f, 0xcb, 0xfd, 0xf8, 0xf8, 0x00,
];
/// AAC-LC, 48 kHz, stereo.
const ASC: [u8; 5] = [0x11, 0x90, 0x56, 0xe5, 0x00];

fn avc() -> AvcConfig {
    AvcConfig::parse(Bytes::from_static(&AVC_RECORD)).unwrap()
}

fn aac(asc: &'static [u8]) -> AacConfig {
    AacConfig::parse(Bytes::from_static(asc)).unwrap()
}

fn scale(per_second: u32) -> Timescale {
    Timescale::new(per_second).unwrap()
}

/// Boxes that hold nothing but boxes.
const CONTAINERS: [&[u8]; 9] = [
    b"moov", b"trak", b"mdia", b"minf", b"dinf", b"stbl", b"mvex", b"moof", b"traf",
];

/// All boxes with their nested names and the places of their bodies; panics where sizes do not add up.
fn walk(bytes: &[u8]) -> Vec<(String, Range<usize>)> {
    let mut found = vec![];
    walk_into(bytes, 0..bytes.len(), "", &mut found);
    found
}

fn walk_into(bytes: &[u8], room: Range<usize>, parent: &str, found: &mut Vec<(String, Range<usize>)>) {
    let mut at = room.start;
    while at < room.end {
        let head = &bytes[at..at + 8];
        let size = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
        let (name, body) = (&head[4..], at + 8..at + size);
        assert!(size >= 8 && body.end <= room.end, "a box in {parent:?} ends outside it");
        let path = format!("{parent}/{}", String::from_utf8_lossy(name));
        found.push((path.clone(), body.clone()));
        if CONTAINERS.contains(&name) {
            walk_into(bytes, body, &path, found);
        }
        at += size;
    }
}

fn names(bytes: &[u8]) -> Vec<String> {
    walk(bytes).into_iter().map(|(name, _)| name).collect()
}

/// The init section's one track, after checks that hold for all.
fn track(section: &Bytes, timescale: u32) -> Trak {
    let mut buf = &section[..];
    let ftyp = Ftyp::decode(&mut buf).unwrap();
    let mut moov = Moov::decode(&mut buf).unwrap();
    assert!(buf.is_empty(), "no media, nothing else");
    assert_eq!(ftyp.major_brand, FourCC::new(b"iso6"));
    assert!(ftyp.compatible_brands.contains(&FourCC::new(b"cmfc")));
    assert_eq!((moov.mvhd.timescale, moov.mvhd.duration), (timescale, 0));
    let [trex] = &moov.mvex.as_ref().unwrap().trex[..] else {
        panic!("one track: {moov:?}")
    };
    assert_eq!((trex.track_id, trex.default_sample_description_index), (1, 1));
    let track = moov.trak.pop().unwrap();
    assert!(moov.trak.is_empty() && moov.mvhd.next_track_id > 1);
    assert_eq!((track.tkhd.track_id, track.tkhd.duration), (1, 0));
    assert!(track.tkhd.enabled && track.tkhd.in_movie);
    assert_eq!((track.mdia.mdhd.timescale, track.mdia.mdhd.duration), (timescale, 0));
    let table = &track.mdia.minf.stbl;
    assert!(table.stts.entries.is_empty() && table.stsc.entries.is_empty());
    assert!(table.stco.as_ref().unwrap().entries.is_empty());
    assert_eq!(table.stsz.samples, StszSamples::Different { sizes: vec![] });
    track
}

fn codec(track: &Trak) -> &Codec {
    let [codec] = &track.mdia.minf.stbl.stsd.codecs[..] else {
        panic!("one sample description: {track:?}")
    };
    codec
}

#[test]
fn an_init_section_of_h264_says_what_the_encoder_said() {
    let section = init_section(&CodecConfig::Avc(avc()), scale(90_000));
    let track = track(&section, 90_000);
    assert_eq!(track.mdia.hdlr.handler, FourCC::new(b"vide"));
    assert!(track.mdia.minf.vmhd.is_some());
    assert_eq!((track.tkhd.width.integer(), track.tkhd.height.integer()), (1280, 720));
    assert_eq!(track.tkhd.volume.integer(), 0);
    let Codec::Avc1(avc1) = codec(&track) else {
        panic!("{track:?}")
    };
    assert_eq!((avc1.visual.width, avc1.visual.height), (1280, 720));
    assert_eq!(avc1.visual.data_reference_index, 1);
    assert_eq!((avc1.visual.frame_count, avc1.visual.depth), (1, 24));
    assert_eq!(
        (avc1.avcc.avc_profile_indication, avc1.avcc.avc_level_indication),
        (0x64, 0x1f)
    );
    assert_eq!(avc1.avcc.length_size, 4);
    assert_eq!(avc1.avcc.sequence_parameter_sets, [&AVC_RECORD[8..34]]);
    assert_eq!(avc1.avcc.picture_parameter_sets, [&AVC_RECORD[37..41]]);
    assert!(avc1.pasp.is_none(), "pixels are square");
    // The record goes in as it is: not one bit may be lost by reading and writing it.
    assert!(section.windows(AVC_RECORD.len()).any(|bytes| bytes == AVC_RECORD));
}

#[test]
fn pixels_that_are_not_square_are_told_twice() {
    let config = AvcConfig {
        width: 720,
        height: 576,
        sample_aspect: (16, 11),
        ..avc()
    };
    let track = track(&init_section(&CodecConfig::Avc(config), scale(90_000)), 90_000);
    assert_eq!((track.tkhd.width.integer(), track.tkhd.height.integer()), (1047, 576));
    let Codec::Avc1(avc1) = codec(&track) else {
        panic!("{track:?}")
    };
    assert_eq!(avc1.visual.width, 720, "the coded size stays");
    let pasp = avc1.pasp.as_ref().unwrap();
    assert_eq!((pasp.h_spacing, pasp.v_spacing), (16, 11));
}

#[test]
fn an_init_section_of_aac_says_what_the_encoder_said() {
    for (asc, rate, channels) in [(&ASC[..], 48_000, 2), (&[0x12, 0x08], 44_100, 1)] {
        let config = CodecConfig::Aac(aac(asc));
        let track = track(&init_section(&config, scale(rate)), rate);
        assert_eq!(track.mdia.hdlr.handler, FourCC::new(b"soun"));
        assert!(track.mdia.minf.smhd.is_some());
        assert_eq!(track.tkhd.volume.integer(), 1);
        let Codec::Mp4a(mp4a) = codec(&track) else {
            panic!("{track:?}")
        };
        assert_eq!(u32::from(mp4a.audio.sample_rate.integer()), rate);
        assert_eq!((mp4a.audio.channel_count, mp4a.audio.sample_size), (channels, 16));
        let decoder = &mp4a.esds.es_desc.dec_config;
        assert_eq!((decoder.object_type_indication, decoder.stream_type), (0x40, 5));
        assert_eq!(decoder.dec_specific.as_ref().unwrap().raw, asc);
    }
}

#[test]
fn a_rate_that_does_not_fit_is_left_to_the_configuration() {
    // 96 kHz: more than the sample entry's 16 bits can say.
    let track = track(
        &init_section(&CodecConfig::Aac(aac(&[0x10, 0x10])), scale(96_000)),
        96_000,
    );
    let Codec::Mp4a(mp4a) = codec(&track) else {
        panic!("{track:?}")
    };
    assert_eq!(mp4a.audio.sample_rate.integer(), 0);
    assert_eq!(
        mp4a.esds.es_desc.dec_config.dec_specific.as_ref().unwrap().freq_index,
        0
    );
}

#[test]
fn boxes_of_an_init_section_nest_and_add_up() {
    for config in [CodecConfig::Avc(avc()), CodecConfig::Aac(aac(&ASC))] {
        let names = names(&init_section(&config, scale(90_000)));
        let top = names.iter().filter(|name| name.matches('/').count() == 1);
        assert_eq!(top.collect::<Vec<_>>(), ["/ftyp", "/moov"]);
        assert_eq!(names.iter().filter(|name| *name == "/moov/mvex/trex").count(), 1);
        assert!(
            !names.iter().any(|name| name.ends_with("/edts")),
            "no edit lists in CMAF chunks"
        );
    }
}

fn sample() -> impl Strategy<Value = Sample> {
    let data = prop::collection::vec(any::<u8>(), 0..300);
    // Composition offsets below zero are B-frames' ordinary life (trun version 1).
    (1i64..1 << 31, -1_000_000i64..1_000_000, any::<bool>(), data).prop_map(|(duration, offset, sync, data)| Sample {
        duration: Ticks(duration),
        composition_offset: Ticks(offset),
        sync,
        data: data.into(),
    })
}

fn draft() -> impl Strategy<Value = Draft> {
    (prop::collection::vec(sample(), 1..40), 0i64..1 << 60).prop_map(|(samples, tfdt)| Draft {
        tfdt: Ticks(tfdt),
        duration: Ticks(samples.iter().map(|s| s.duration.0).sum()),
        independent: samples.iter().any(|s| s.sync),
        samples,
    })
}

/// sample_is_non_sync_sample and sample_depends_on (14496-12 section 8.8.3.1).
fn is_sync(flags: u32) -> bool {
    let (non_sync, depends_on) = (flags >> 16 & 1 == 1, flags >> 24 & 3);
    assert_eq!(
        depends_on,
        if non_sync { 1 } else { 2 },
        "both say the same: {flags:08x}"
    );
    !non_sync
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_part_gives_back_what_went_in(draft in draft(), sequence_number: u32) {
        let bytes = part(sequence_number, &draft);
        prop_assert_eq!(
            names(&bytes),
            ["/moof", "/moof/mfhd", "/moof/traf", "/moof/traf/tfhd", "/moof/traf/tfdt", "/moof/traf/trun", "/mdat"]
        );
        let moof = Moof::decode(&mut &bytes[..]).unwrap();
        prop_assert_eq!(moof.mfhd.sequence_number, sequence_number);
        let [traf] = &moof.traf[..] else { panic!("one track") };
        prop_assert_eq!(traf.tfhd.track_id, 1);
        prop_assert!(traf.tfhd.default_base_is_moof && traf.tfhd.base_data_offset.is_none());
        prop_assert_eq!(traf.tfdt.as_ref().unwrap().base_media_decode_time as i64, draft.tfdt.0);
        let [trun] = &traf.trun[..] else { panic!("one run") };

        // The data offset counts from the first byte of moof, which is the part's.
        let (_, mdat) = walk(&bytes).pop().unwrap();
        prop_assert_eq!(trun.data_offset.unwrap() as usize, mdat.start);
        prop_assert_eq!(trun.samples.len(), draft.samples.len());
        let mut at = mdat.start;
        for (entry, sample) in trun.samples.iter().zip(&draft.samples) {
            let TrunEntry { duration: Some(duration), size: Some(size), flags: Some(flags), cts: Some(cts) } = entry
            else { panic!("each sample says all of its own: {entry:?}") };
            prop_assert_eq!(i64::from(duration), sample.duration.0);
            prop_assert_eq!(cts, sample.composition_offset.0);
            prop_assert_eq!(is_sync(flags), sample.sync);
            let end = at + size as usize;
            prop_assert_eq!(&bytes[at..end], &sample.data[..]);
            at = end;
        }
        prop_assert_eq!(at, bytes.len(), "samples cover mdat exactly");
    }
}

#[test]
fn what_no_box_can_say_is_clamped() {
    let draft = Draft {
        tfdt: Ticks(-5),
        duration: Ticks(1),
        independent: true,
        samples: vec![Sample {
            duration: Ticks(i64::MAX),
            composition_offset: Ticks(i64::MIN),
            sync: true,
            data: Bytes::new(),
        }],
    };
    let moof = Moof::decode(&mut &part(0, &draft)[..]).unwrap();
    assert_eq!(moof.traf[0].tfdt.as_ref().unwrap().base_media_decode_time, 0);
    let entry = moof.traf[0].trun[0].samples.get(0).unwrap();
    assert_eq!((entry.duration, entry.cts), (Some(1), Some(i64::from(i32::MIN))));
}
