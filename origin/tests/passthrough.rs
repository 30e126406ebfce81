//! What an encoder sends is what a player gets, bit by bit: access units of every codec, in every message form, through
//! demuxer, timeline, segmenter and fMP4, read back by another parser.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use mp4_atom::{Any, Codec, Mdat, Moof, Moov, ReadFrom as _};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use weir_origin::{
    codec::CodecConfig,
    ingest::{
        flv::{Demuxer, Unit},
        timeline::Timeline,
    },
    package::{
        fmp4,
        frame::{Frame, TrackId, TrackKind},
        segmenter::{Mode, Output, Targets, TrackSegmenter},
    },
};

/// Access units per track: ten seconds of 30 frames per second.
const FRAMES: u32 = 300;

/// A track of one codec, as an encoder has it.
struct Elementary {
    id: TrackId,
    codec: [u8; 4],
    record: Bytes,
    /// Milliseconds from one access unit to the next.
    step_ms: u32,
    /// Turns random bytes into an access unit; the flag asks for a key frame.
    dress: fn(bool, &[u8]) -> Bytes,
}

/// Behind a four-byte length.
fn nal_unit(header: &[u8], payload: &[u8]) -> Bytes {
    let mut unit = BytesMut::new();
    unit.put_u32((header.len() + payload.len()) as u32);
    unit.put_slice(header);
    unit.put_slice(payload);
    unit.freeze()
}

fn avc(number: u8) -> Elementary {
    let record = include_bytes!("records/avc");
    let dress = |key: bool, payload: &[u8]| nal_unit(if key { &[0x65] } else { &[0x41] }, payload);
    video(number, *b"avc1", record, dress)
}

fn hevc(number: u8) -> Elementary {
    let record = include_bytes!("records/hevc");
    let dress = |key: bool, payload: &[u8]| nal_unit(if key { &[0x28, 1] } else { &[0x02, 1] }, payload);
    video(number, *b"hvc1", record, dress)
}

fn av1(number: u8) -> Elementary {
    let record = include_bytes!("records/av1");
    // A frame unit without a size reaches to the end.
    let dress = |key: bool, payload: &[u8]| {
        let header: &[u8] = if key {
            &[0x12, 0, 0x30, 0x10]
        } else {
            &[0x12, 0, 0x30, 0x30]
        };
        [header, payload].concat().into()
    };
    video(number, *b"av01", record, dress)
}

fn video(number: u8, codec: [u8; 4], record: &'static [u8], dress: fn(bool, &[u8]) -> Bytes) -> Elementary {
    Elementary {
        id: TrackId {
            kind: TrackKind::Video,
            number,
        },
        codec,
        record: Bytes::from_static(record),
        step_ms: 33,
        dress,
    }
}

fn aac(number: u8) -> Elementary {
    Elementary {
        id: TrackId {
            kind: TrackKind::Audio,
            number,
        },
        codec: *b"mp4a",
        record: Bytes::from_static(&[0x11, 0x90]),
        step_ms: 21,
        dress: |_, payload| Bytes::copy_from_slice(payload),
    }
}

fn opus(number: u8) -> Elementary {
    Elementary {
        codec: *b"Opus",
        record: Bytes::from_static(include_bytes!("records/opus")),
        step_ms: 20,
        // One CELT frame of 20 ms.
        dress: |_, payload| [&[0xfc], payload].concat().into(),
        ..aac(number)
    }
}

/// What one message holds.
#[derive(Clone, Copy)]
enum Holds<'a> {
    Record(&'a [u8]),
    Frame(&'a [u8]),
}

/// An Enhanced RTMP message in one of the forms there are.
fn message(track: &Elementary, holds: Holds<'_>, random: &mut SmallRng) -> Bytes {
    let has_offset = matches!(&track.codec, b"avc1" | b"hvc1");
    let (packet_type, offset, bytes) = match holds {
        Holds::Record(bytes) => (0, &[][..], bytes),
        Holds::Frame(bytes) if has_offset && random.random_bool(0.5) => (3, &[][..], bytes),
        Holds::Frame(bytes) if has_offset => (1, &[0, 0, 33][..], bytes),
        Holds::Frame(bytes) => (1, &[][..], bytes),
    };
    let body = [offset, bytes].concat();
    let multitrack = match track.id.kind {
        TrackKind::Video => 6,
        TrackKind::Audio => 5,
    };
    let is_plain = track.id.number == 0 && random.random_bool(0.5);
    let first = if is_plain { packet_type } else { multitrack };
    let mut out = BytesMut::new();
    if random.random_bool(0.3) {
        // A modifier: how much it moves the time does not change the bytes.
        out.put_slice(&[0x97, 2, 0, random.random(), 0, first]);
    } else {
        out.put_u8(0x90 | first);
    }
    if is_plain {
        out.put_slice(&track.codec);
    } else {
        let layout = random.random_range(0..3u8);
        out.put_u8(layout << 4 | packet_type);
        out.put_slice(&track.codec);
        out.put_u8(track.id.number);
        if layout > 0 {
            out.put_slice(&(body.len() as u32).to_be_bytes()[1..]);
        }
    }
    out.put_slice(&body);
    out.freeze()
}

/// A player's side of one track: init section and parts in, samples out.
#[derive(Default)]
struct Player {
    samples: Vec<Bytes>,
    keys: Vec<bool>,
}

impl Player {
    fn init(config: &Arc<CodecConfig>, segmenter: &TrackSegmenter) -> (Codec, Bytes) {
        let init = fmp4::init_section(config, segmenter.timescale());
        let mut reader = &init[..];
        assert!(matches!(Any::read_from(&mut reader).unwrap(), Any::Ftyp(_)));
        let moov = Moov::read_from(&mut reader).unwrap();
        assert!(reader.is_empty());
        let mut entries = moov.trak[0].mdia.minf.stbl.stsd.codecs.clone();
        assert_eq!((moov.trak.len(), entries.len()), (1, 1));
        (entries.remove(0), init)
    }

    fn part(&mut self, part: &Bytes) {
        let mut reader = &part[..];
        let moof = Moof::read_from(&mut reader).unwrap();
        let mdat = Mdat::read_from(&mut reader).unwrap();
        assert!(reader.is_empty());
        let mut rest = Bytes::from(mdat.data);
        for entry in moof.traf[0].trun[0].samples.iter() {
            self.samples.push(rest.split_to(entry.size.unwrap() as usize));
            // sample_is_non_sync_sample
            self.keys.push(entry.flags.unwrap() & 0x1_0000 == 0);
        }
        assert!(rest.is_empty());
    }
}

/// Sends the tracks as messages; what a player has of each in the end, and what was sent.
fn broadcast(tracks: &[Elementary], seed: u64) -> BTreeMap<TrackId, (Player, Vec<Bytes>)> {
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut demuxer, mut timeline) = (Demuxer::new(), Timeline::new());
    let mut segmenters: BTreeMap<TrackId, TrackSegmenter> = BTreeMap::new();
    let mut ends: BTreeMap<TrackId, (Player, Vec<Bytes>)> = BTreeMap::new();
    let targets = Targets {
        part: Duration::from_millis(333),
        segment: Duration::from_secs(1),
        target_duration_seconds: 2,
    };
    let began = Instant::now();
    for track in tracks {
        let bytes = message(track, Holds::Record(&track.record), &mut random);
        take(&mut demuxer, track.id.kind, bytes);
        let Some(Unit::Config(id, config)) = demuxer.poll() else {
            panic!("no configuration of {}", track.id);
        };
        let segmenter = TrackSegmenter::new(config.clone(), Some(30.0), Mode::Lead, targets);
        let (entry, init) = Player::init(&config, &segmenter);
        let named = match entry {
            Codec::Avc1(_) => b"avc1",
            Codec::Hvc1(_) => b"hvc1",
            Codec::Av01(_) => b"av01",
            Codec::Mp4a(_) => b"mp4a",
            Codec::Opus(_) => b"Opus",
            other => panic!("{other:?}"),
        };
        assert_eq!(named, &track.codec);
        if track.codec != *b"Opus" {
            let whole = init.windows(track.record.len()).any(|bytes| bytes == track.record);
            assert!(whole, "the init section holds the record as it was sent");
        }
        segmenters.insert(id, segmenter);
        ends.insert(id, Default::default());
    }
    // By time, as an encoder interleaves them.
    let mut order: Vec<(u32, &Elementary, u32)> = Vec::new();
    for track in tracks {
        order.extend((0..FRAMES).map(|n| (n * track.step_ms, track, n)));
    }
    order.sort_by_key(|(at_ms, track, _)| (*at_ms, track.id));
    for (at_ms, track, n) in order {
        let length = random.random_range(1..3000);
        let payload: Vec<u8> = (0..length).map(|_| random.random()).collect();
        let unit = (track.dress)(n.is_multiple_of(30), &payload);
        ends.get_mut(&track.id).unwrap().1.push(unit.clone());
        let bytes = message(track, Holds::Frame(&unit), &mut random);
        take(&mut demuxer, track.id.kind, bytes);
        while let Some(unit) = demuxer.poll() {
            let Unit::Frame(raw) = unit else { panic!("{unit:?}") };
            let now = began + Duration::from_millis(u64::from(at_ms));
            let placed = timeline.place(raw.track, at_ms, raw.nanos, raw.composition_ms, now);
            let segmenter = segmenters.get_mut(&raw.track).unwrap();
            segmenter.push(Frame {
                track: raw.track,
                dts: placed.dts,
                composition_offset: placed.composition_offset,
                key: raw.key,
                data: raw.data,
            });
            drain(segmenter, &mut ends.get_mut(&raw.track).unwrap().0);
        }
    }
    for (id, segmenter) in &mut segmenters {
        segmenter.finish();
        drain(segmenter, &mut ends.get_mut(id).unwrap().0);
    }
    ends
}

fn take(demuxer: &mut Demuxer, kind: TrackKind, message: Bytes) {
    match kind {
        TrackKind::Video => demuxer.video(message).unwrap(),
        TrackKind::Audio => demuxer.audio(message).unwrap(),
    }
}

fn drain(segmenter: &mut TrackSegmenter, player: &mut Player) {
    while let Some(output) = segmenter.poll() {
        if let Output::Part(draft) = output {
            player.part(&fmp4::part(1, &draft));
        }
    }
}

fn is_passed_through(tracks: &[Elementary], seed: u64) {
    let ends = broadcast(tracks, seed);
    assert_eq!(ends.len(), tracks.len());
    for (id, (player, sent)) in ends {
        assert_eq!(player.samples, sent, "{id}, seed {seed}");
        for (n, key) in player.keys.iter().enumerate() {
            let wanted = id.kind == TrackKind::Audio || n.is_multiple_of(30);
            assert_eq!(*key, wanted, "{id}, sample {n}, seed {seed}");
        }
    }
}

#[test]
fn every_codec_comes_out_as_it_went_in() {
    for seed in 0..3 {
        for video in [avc, hevc, av1] {
            for audio in [aac, opus] {
                is_passed_through(&[video(0), audio(0)], seed);
            }
        }
    }
}

#[test]
fn so_do_many_tracks_of_different_codecs() {
    let tracks = || [hevc(0), avc(1), av1(9), opus(0), aac(1), opus(2), aac(255)];
    for seed in 10..13 {
        is_passed_through(&tracks(), seed);
    }
}
