//! What must hold of any configuration record and of any Enhanced RTMP message. Shared by the fuzz targets and by
//! `origin/tests/fuzz_seeds.rs`.

use bytes::Bytes;
use weir_origin::{
    codec::{CodecConfig, aac::AacConfig, av1::Av1Config, avc::AvcConfig, hevc::HevcConfig, opus},
    ingest::flv::{Demuxer, FlvError, TRACKS_MAX, Unit},
    package::{
        fmp4,
        frame::{TrackId, TrackKind},
    },
};
use weir_shared::media::time::Timescale;

const AVC: &[u8] = include_bytes!("../origin/tests/records/avc");
const HEVC: &[u8] = include_bytes!("../origin/tests/records/hevc");
const AV1: &[u8] = include_bytes!("../origin/tests/records/av1");
const OPUS: &[u8] = include_bytes!("../origin/tests/records/opus");

/// A record, or a header that is put into a record, by the first byte.
pub(super) fn codec(bytes: &[u8]) -> Option<CodecConfig> {
    let (&selector, rest) = bytes.split_first()?;
    let own = Bytes::copy_from_slice(rest);
    let config = match selector % 8 {
        0 => CodecConfig::Hevc(HevcConfig::parse(own).ok()?),
        1 => CodecConfig::Hevc(HevcConfig::parse(around_hevc_sps(rest)).ok()?),
        2 => CodecConfig::Av1(Av1Config::parse(own).ok()?),
        3 => CodecConfig::Av1(Av1Config::parse(around_av1_header(rest)?).ok()?),
        4 => {
            let known = Av1Config::parse(Bytes::from_static(AV1)).expect("it is valid");
            let _ = known.is_key(rest);
            return Some(CodecConfig::Av1(known));
        }
        5 => {
            let samples = opus::packet_samples(rest);
            assert!(samples.is_none_or(|samples| (1..=5760).contains(&samples)));
            CodecConfig::Opus(opus::OpusConfig::parse(own).ok()?)
        }
        6 => CodecConfig::Avc(AvcConfig::parse(around_avc_sps(rest)).ok()?),
        _ => CodecConfig::Aac(AacConfig::parse(own).ok()?),
    };
    holds(&config);
    Some(config)
}

/// What everything after the parser relies on.
fn holds(config: &CodecConfig) {
    let name = config.codec_string();
    assert!(
        name.len() < 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '.'),
        "{name}"
    );
    match config.picture() {
        Some(picture) => {
            assert!(picture.width > 0 && picture.height > 0);
            if let Some((seconds, frames)) = picture.frame_duration {
                assert!(seconds > 0 && seconds <= frames);
            }
        }
        None => assert!(config.channels().is_some_and(|channels| (1..=8).contains(&channels))),
    }
    let init = fmp4::init_section(config, Timescale::VIDEO);
    assert!(init.len() < config.record().len() + 1024);
}

fn around_hevc_sps(sps: &[u8]) -> Bytes {
    let mut record = HEVC[..22].to_vec();
    record.push(3);
    for (kind, unit) in [(32, &[0x40, 1][..]), (33, sps), (34, &[0x44, 1])] {
        record.extend([kind, 0, 1]);
        record.extend((unit.len() as u16).to_be_bytes());
        record.extend_from_slice(unit);
    }
    record.into()
}

fn around_av1_header(header: &[u8]) -> Option<Bytes> {
    let size = u8::try_from(header.len()).ok().filter(|size| *size < 0x80)?;
    Some([&[0x81, 0, 0, 0, 0x0a, size], header].concat().into())
}

fn around_avc_sps(sps: &[u8]) -> Bytes {
    let length = (sps.len() as u16).to_be_bytes();
    [&[1, 0x64, 0, 31, 0xff, 0xe1], &length[..], sps, &[1, 0, 1, 0x68]]
        .concat()
        .into()
}

/// Enhanced RTMP messages to a demuxer that has a configuration of every codec. Each message stands behind one byte
/// that picks its kind and codec, and its length (two bytes).
pub(super) fn enhanced(mut bytes: &[u8]) -> Result<Vec<Unit>, FlvError> {
    let mut demuxer = Demuxer::new();
    for (multitrack, codec, number, record) in [
        (0x96, b"avc1", 0, AVC),
        (0x96, b"hvc1", 1, HEVC),
        (0x96, b"av01", 2, AV1),
        (0x95, b"mp4a", 0, &[0x11, 0x90][..]),
        (0x95, b"Opus", 1, OPUS),
    ] {
        let message = Bytes::from([&[multitrack, 0], &codec[..], &[number], record].concat());
        match multitrack {
            0x96 => demuxer.video(message)?,
            _ => demuxer.audio(message)?,
        }
        assert!(matches!(demuxer.poll(), Some(Unit::Config(..))));
    }
    let mut units = Vec::new();
    while let Some((&[choice, high, low], rest)) = bytes.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let (payload, rest) = rest.split_at(length);
        bytes = rest;
        let codec = [&b"avc1"[..], b"hvc1", b"av01", b"mp4a", b"Opus", b""][usize::from(choice >> 1) % 6];
        let (first, tail) = payload.split_first().unwrap_or((&0, &[]));
        let is_video = choice & 1 == 1;
        let header = if is_video { 0x80 | first } else { 0x90 | (first & 0x0f) };
        let message = Bytes::from([&[header], codec, tail].concat());
        let sent = message.len();
        let outcome = if is_video {
            demuxer.video(message)
        } else {
            demuxer.audio(message)
        };
        let made: Vec<Unit> = std::iter::from_fn(|| demuxer.poll()).collect();
        let bytes_out: usize = made.iter().map(bytes_of).sum();
        assert!(bytes_out <= sent, "{bytes_out} bytes out of {sent}");
        units.extend(made);
        outcome?;
    }
    for kind in [TrackKind::Video, TrackKind::Audio] {
        let mut tracks: Vec<TrackId> = units.iter().filter_map(track_of).filter(|id| id.kind == kind).collect();
        tracks.sort_unstable();
        tracks.dedup();
        assert!(tracks.len() <= TRACKS_MAX);
    }
    Ok(units)
}

fn bytes_of(unit: &Unit) -> usize {
    match unit {
        Unit::Frame(frame) => frame.data.len(),
        Unit::Config(_, config) => config.record().len(),
        Unit::Dropped(..) => 0,
    }
}

fn track_of(unit: &Unit) -> Option<TrackId> {
    match unit {
        Unit::Frame(frame) => Some(frame.track),
        Unit::Config(id, _) => Some(*id),
        Unit::Dropped(..) => None,
    }
}
