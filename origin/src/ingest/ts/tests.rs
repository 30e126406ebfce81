//! Transport streams made by hand, from tables to access units.

use proptest::prelude::*;

use super::{pes::tests::pes, table::tests::section, *};
use crate::{
    codec::{CodecConfig, avc::tests::X264_720P30},
    package::frame::Frame,
};

const MAP: Pid = 0x1000;
const VIDEO: Pid = 0x100;
const AUDIO: Pid = 0x101;

/// Writes transport packets with the counters that belong to them.
#[derive(Default)]
struct Muxer {
    counters: std::collections::BTreeMap<Pid, u8>,
}

impl Muxer {
    fn packets(&mut self, pid: Pid, mut bytes: &[u8]) -> Vec<[u8; PACKET_BYTES]> {
        let mut packets = Vec::new();
        let mut starts = 0x40;
        while !bytes.is_empty() {
            let counter = self.counters.entry(pid).or_default();
            let mut packet = vec![SYNC_BYTE, starts | (pid >> 8) as u8, pid as u8, 0x10 | *counter];
            *counter = (*counter + 1) & 0x0f;
            starts = 0;
            let room = PACKET_BYTES - 4;
            if bytes.len() < room {
                // Stuffing goes into an adaptation field.
                packet[3] |= 0x20;
                let stuffing = room - 1 - bytes.len();
                packet.push(stuffing as u8);
                packet.extend((0..stuffing).map(|at| if at == 0 { 0 } else { 0xff }));
            }
            let (now, later) = bytes.split_at(bytes.len().min(PACKET_BYTES - packet.len()));
            packet.extend_from_slice(now);
            bytes = later;
            packets.push(packet.try_into().unwrap());
        }
        packets
    }

    fn tables(&mut self, streams: &[u8]) -> Vec<[u8; PACKET_BYTES]> {
        let with_pointer = |section: Vec<u8>| [vec![0], section].concat();
        let program = with_pointer(section(0, &[0, 1, 0xe0 | (MAP >> 8) as u8, MAP as u8]));
        let body = [&[0xe1, 0x00, 0xf0, 0x00], streams].concat();
        let map = with_pointer(section(2, &body));
        let mut packets = self.packets(PAT_PID, &program);
        packets.extend(self.packets(MAP, &map));
        packets
    }
}

const H264_AND_AAC: [u8; 16] = [
    0x1b, 0xe1, 0x00, 0xf0, 0x00, 0x0f, 0xe1, 0x01, 0xf0, 0x06, 0x0a, 0x04, b'd', b'e', b'u', 0,
];

/// A picture with parameter sets if it is a key picture.
fn picture(key: bool, size: usize) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 1, 9, 0xf0];
    if key {
        for at in [6, 35] {
            let length = usize::from(u16::from_be_bytes([X264_720P30[at], X264_720P30[at + 1]]));
            bytes.extend([0, 0, 0, 1]);
            bytes.extend_from_slice(&X264_720P30[at + 2..at + 2 + length]);
        }
    }
    bytes.extend([0, 0, 1, if key { 0x65 } else { 0x41 }]);
    bytes.extend((0..size).map(|at| (at % 200) as u8 + 1));
    bytes
}

fn adts(length: usize) -> Vec<u8> {
    let total = length + 7;
    let mut bytes = vec![
        0xff,
        0xf1,
        0x4c,
        0x80 | (total >> 11) as u8,
        (total >> 3) as u8,
        (total << 5) as u8 | 0x1f,
        0xfc,
    ];
    bytes.resize(total, 0x21);
    bytes
}

/// A second of 25 pictures with a B-frame's offset and of sound, interleaved.
fn second(muxer: &mut Muxer, from: u64) -> Vec<[u8; PACKET_BYTES]> {
    let mut packets = Vec::new();
    for at in 0..25 {
        let dts = (from + at * 3600) % (1 << 33);
        let bytes = pes((dts + 7200) % (1 << 33), Some(dts), &picture(at == 0, 900), false);
        packets.extend(muxer.packets(VIDEO, &bytes));
        let sound = [adts(200), adts(100)].concat();
        packets.extend(muxer.packets(AUDIO, &pes(dts, None, &sound, true)));
    }
    packets
}

#[derive(Debug, Default)]
struct Seen {
    announced: Vec<Announced>,
    configs: Vec<(TrackId, String)>,
    frames: Vec<Frame>,
    dropped: Vec<DropReason>,
    repairs: Vec<&'static str>,
}

impl Seen {
    fn of(&self, id: TrackId) -> Vec<&Frame> {
        self.frames.iter().filter(|frame| frame.track == id).collect()
    }
}

fn collect(demuxer: &mut Demuxer) -> Seen {
    let mut seen = Seen::default();
    while let Some(step) = demuxer.poll() {
        match step {
            Step::Event { event, repair } => {
                seen.repairs.extend(repair.map(|repair| repair.as_str()));
                match event {
                    Event::Announced(announced) => seen.announced.push(announced),
                    Event::Config(id, config) => seen.configs.push((id, CodecConfig::codec_string(&config))),
                    Event::Frame(frame) => seen.frames.push(frame),
                }
            }
            Step::Dropped { reason, .. } => seen.dropped.push(reason),
        }
    }
    seen
}

fn demux(packets: &[[u8; PACKET_BYTES]]) -> Seen {
    let mut demuxer = Demuxer::new(Limits::default());
    let now = Instant::now();
    for datagram in packets.chunks(7) {
        demuxer.push(&datagram.concat(), now).unwrap();
    }
    demuxer.finish(now).unwrap();
    collect(&mut demuxer)
}

#[test]
fn picture_and_sound_come_out_with_their_times() {
    let mut muxer = Muxer::default();
    let mut packets = muxer.tables(&H264_AND_AAC);
    packets.extend(second(&mut muxer, 90_000));
    let seen = demux(&packets);
    assert_eq!(seen.announced.len(), 1);
    assert_eq!(
        (seen.announced[0].has_video, seen.announced[0].has_audio),
        (Some(true), Some(true))
    );
    let named = [
        (TrackId::VIDEO, "avc1.64001f".to_owned()),
        (TrackId::AUDIO, "mp4a.40.2".to_owned()),
    ];
    assert!(
        named.iter().all(|config| seen.configs.contains(config)),
        "{:?}",
        seen.configs
    );
    let video = seen.of(TrackId::VIDEO);
    assert_eq!(video.len(), 25);
    assert_eq!(video.iter().filter(|frame| frame.key).count(), 1);
    for pair in video.windows(2) {
        assert_eq!((pair[1].dts - pair[0].dts).as_nanos(), 40_000_000);
        assert_eq!(pair[0].composition_offset.as_nanos(), 80_000_000);
    }
    let audio = seen.of(TrackId::AUDIO);
    assert_eq!(audio.len(), 50);
    assert_eq!((audio[1].dts - audio[0].dts).as_nanos(), 21_333_333);
    assert_eq!(audio[0].dts, video[0].dts);
    assert!(seen.dropped.is_empty() && seen.repairs.is_empty(), "{seen:?}");
}

#[test]
fn the_clock_wraps_without_a_trace() {
    let mut muxer = Muxer::default();
    let mut packets = muxer.tables(&H264_AND_AAC);
    packets.extend(second(&mut muxer, (1 << 33) - 45_000));
    let seen = demux(&packets);
    let video = seen.of(TrackId::VIDEO);
    assert!(
        video
            .windows(2)
            .all(|pair| (pair[1].dts - pair[0].dts).as_nanos() == 40_000_000)
    );
    assert!(seen.repairs.is_empty());
}

#[test]
fn after_a_lost_packet_the_picture_waits_for_a_key_frame() {
    let mut muxer = Muxer::default();
    let mut packets = muxer.tables(&H264_AND_AAC);
    packets.extend(second(&mut muxer, 90_000));
    packets.extend(second(&mut muxer, 180_000));
    // The last packet of the fourth picture.
    let lost = packets
        .iter()
        .enumerate()
        .filter(|(_, packet)| packet[1] & 0x1f == 1 && packet[2] == 0 && packet[1] & 0x40 != 0)
        .nth(4)
        .map(|(at, _)| at)
        .unwrap();
    let lost = (0..lost)
        .rev()
        .find(|&at| packets[at][2] == 0 && packets[at][1] & 0x1f == 1)
        .unwrap();
    packets.remove(lost);
    let seen = demux(&packets);
    assert_eq!(seen.of(TrackId::VIDEO).len(), 3 + 25);
    assert_eq!(seen.of(TrackId::AUDIO).len(), 100, "sound is not touched");
    let count = |reason| seen.dropped.iter().filter(|&&dropped| dropped == reason).count();
    assert_eq!((count(DropReason::Damaged), count(DropReason::AfterDamage)), (1, 21));
}

#[test]
fn damage_is_passed_on_where_that_is_wished() {
    let mut muxer = Muxer::default();
    let mut packets = muxer.tables(&H264_AND_AAC);
    packets.extend(second(&mut muxer, 90_000));
    let is_middle = |packet: &[u8; PACKET_BYTES]| packet[1..3] == [1, 0];
    let lost = 50 + packets.iter().skip(50).position(is_middle).unwrap();
    packets.remove(lost);
    let mut demuxer = Demuxer::new(Limits {
        damaged: Damaged::PassOn,
        ..Limits::default()
    });
    demuxer.push(&packets.concat(), Instant::now()).unwrap();
    demuxer.finish(Instant::now()).unwrap();
    let seen = collect(&mut demuxer);
    assert_eq!(seen.of(TrackId::VIDEO).len(), 25);
    assert_eq!(seen.dropped, [DropReason::Damaged], "counted all the same");
}

#[test]
fn a_gap_of_the_transport_damages_the_picture_under_way() {
    let mut muxer = Muxer::default();
    let mut packets = muxer.tables(&H264_AND_AAC);
    packets.extend(second(&mut muxer, 90_000));
    let now = Instant::now();
    let mut demuxer = Demuxer::new(Limits::default());
    let (before, after) = packets.split_at(6);
    demuxer.push(&before.concat(), now).unwrap();
    demuxer.gap();
    demuxer.push(&after.concat(), now).unwrap();
    let seen = collect(&mut demuxer);
    assert_eq!(seen.of(TrackId::VIDEO), [] as [&Frame; 0]);
    assert_eq!(seen.dropped[0], DropReason::Damaged);
}

#[test]
fn a_new_map_keeps_what_stays_and_opens_what_is_new() {
    let mut muxer = Muxer::default();
    let mut packets = muxer.tables(&H264_AND_AAC[..5]);
    let bytes = pes(90_000, None, &picture(true, 900), false);
    packets.extend(muxer.packets(VIDEO, &bytes));
    // In the middle of a picture, as it were: the next one has not begun.
    packets.extend(muxer.tables(&H264_AND_AAC));
    packets.extend(second(&mut muxer, 93_600));
    let seen = demux(&packets);
    assert_eq!(seen.of(TrackId::VIDEO).len(), 26);
    assert!(seen.dropped.is_empty(), "{:?}", seen.dropped);
    let told: Vec<_> = seen.announced.iter().map(|announced| announced.has_audio).collect();
    assert_eq!(told, [Some(false), Some(true)]);
    assert_eq!(seen.configs.len(), 2);
}

#[test]
fn pictures_without_times_follow_the_ones_before() {
    let mut muxer = Muxer::default();
    let mut packets = muxer.tables(&H264_AND_AAC[..5]);
    for at in 0..3 {
        packets.extend(muxer.packets(VIDEO, &pes(at * 3600, None, &picture(at == 0, 50), false)));
    }
    let mut bytes = vec![0, 0, 1, 0xe0, 0, 0, 0x80, 0, 0];
    bytes.extend(picture(false, 50));
    packets.extend(muxer.packets(VIDEO, &bytes));
    let seen = demux(&packets);
    let steps: Vec<_> = seen
        .frames
        .windows(2)
        .map(|pair| (pair[1].dts - pair[0].dts).as_nanos())
        .collect();
    assert_eq!(steps, [40_000_000; 3]);
}

#[test]
fn several_languages_are_tracks_with_their_names() {
    let mut muxer = Muxer::default();
    let mut streams = H264_AND_AAC.to_vec();
    streams.extend([0x0f, 0xe1, 0x02, 0xf0, 0x06, 0x0a, 0x04, b'f', b'r', b'a', 0]);
    let mut packets = muxer.tables(&streams);
    for pid in [AUDIO, AUDIO + 1] {
        packets.extend(muxer.packets(pid, &pes(0, None, &adts(100), true)));
    }
    let seen = demux(&packets);
    assert_eq!(seen.frames.len(), 2);
    assert_eq!(seen.frames[1].track.to_string(), "audio-2");
    let languages = format!("{:?}", seen.announced[0].audio_languages);
    assert!(languages.contains("Some"), "{languages}");
}

#[test]
fn what_cannot_be_packaged_says_so() {
    let refused = |streams: &[u8]| {
        let packets = Muxer::default().tables(streams);
        Demuxer::new(Limits::default()).push(&packets.concat(), Instant::now())
    };
    assert_eq!(
        refused(&[0x02, 0xe1, 0, 0xf0, 0]),
        Err(TsError::UnsupportedVideo("MPEG-2 video"))
    );
    assert_eq!(
        refused(&[0x1b, 0xe1, 0, 0xf0, 0, 0x81, 0xe1, 1, 0xf0, 0]),
        Err(TsError::UnsupportedAudio("AC-3"))
    );
    // Beside sound that is understood, it is passed over.
    assert_eq!(refused(&[0x0f, 0xe1, 0, 0xf0, 0, 0x81, 0xe1, 1, 0xf0, 0]), Ok(()));
    let many: Vec<u8> = (0..9).flat_map(|at| [0x0f, 0xe1, at, 0xf0, 0]).collect();
    assert_eq!(refused(&many), Err(TsError::TooManyTracks(TrackKind::Audio)));
}

#[test]
fn what_has_no_transport_packets_is_told_apart_soon() {
    let limits = Limits {
        garbage_bytes: 1000,
        ..Limits::default()
    };
    let mut demuxer = Demuxer::new(limits);
    let now = Instant::now();
    let mut packet = [0; PACKET_BYTES];
    packet[0] = SYNC_BYTE;
    assert_eq!(demuxer.push(&packet, now), Ok(()));
    assert_eq!(demuxer.push(&[0; 990], now), Ok(()));
    assert_eq!(demuxer.push(&packet, now), Ok(()));
    assert_eq!(demuxer.push(&[0; 990], now), Ok(()));
    assert_eq!(demuxer.push(b"no transport stream", now), Err(TsError::NotTs));
}

#[test]
fn packets_without_a_program_are_not_listened_to_for_ever() {
    let mut packet = [0xff; PACKET_BYTES];
    packet[..4].copy_from_slice(&[SYNC_BYTE, 0x41, 0, 0x10]);
    let mut demuxer = Demuxer::new(Limits {
        bytes_before_program: 10_000,
        ..Limits::default()
    });
    let ended = (0..100).find_map(|_| demuxer.push(&packet, Instant::now()).err());
    assert_eq!(ended, Some(TsError::NoProgram));
}

proptest! {
    #[test]
    fn nothing_that_is_lost_turned_or_changed_panics_or_goes_back(
        changes in prop::collection::vec((0usize..400, 0usize..PACKET_BYTES, any::<u8>(), 0u8..4), 0..60),
    ) {
        let mut muxer = Muxer::default();
        let mut packets = muxer.tables(&H264_AND_AAC);
        packets.extend(second(&mut muxer, (1 << 33) - 45_000));
        for (at, byte, to, what) in changes {
            let (count, at) = (packets.len(), at % packets.len());
            match what {
                0 => { packets.remove(at); }
                1 => packets[at][byte] = to,
                2 => packets.swap(at, (at + usize::from(to)) % count),
                _ => packets.insert(at, packets[at]),
            }
            if packets.is_empty() { break }
        }
        let mut demuxer = Demuxer::new(Limits::default());
        let now = Instant::now();
        for packet in &packets {
            if demuxer.push(packet, now).is_err() { break }
        }
        let _ = demuxer.finish(now);
        let seen = collect(&mut demuxer);
        for id in [TrackId::VIDEO, TrackId::AUDIO] {
            prop_assert!(seen.of(id).windows(2).all(|pair| pair[0].dts <= pair[1].dts));
        }
    }
}
