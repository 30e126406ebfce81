//! Enhanced RTMP v1 and v2: audio and video messages whose codec is a FourCC, with modifiers and several tracks in one
//! message (sections "Enhanced Audio" and "Enhanced Video"). Pure. Only framing: what a packet's bytes mean is the
//! demuxer's business.
//!
//! Before this: `ingest/flv.rs`, which sees the header bit and calls [`split`]. After this: the demuxer again, packet by
//! packet.

use bytes::{Buf, Bytes};

use super::FlvError;
use crate::package::frame::TrackKind;

/// A codec's four characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FourCc(pub [u8; 4]);

impl FourCc {
    pub(super) const AVC: Self = Self(*b"avc1");
    pub(super) const HEVC: Self = Self(*b"hvc1");
    pub(super) const AV1: Self = Self(*b"av01");
    pub(super) const AAC: Self = Self(*b"mp4a");
    pub(super) const OPUS: Self = Self(*b"Opus");
}

impl std::fmt::Display for FourCc {
    /// Made printable.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in self.0 {
            let shown = if byte.is_ascii_graphic() || byte == b' ' {
                char::from(byte)
            } else {
                '?'
            };
            write!(f, "{shown}")?;
        }
        f.write_str(" (Enhanced RTMP)")
    }
}

/// What a packet is for. Audio and video number them alike as far as they have the same ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    SequenceStart,
    CodedFrames,
    /// Coded frames whose composition time is zero and not sent. Video only.
    CodedFramesX,
    /// Number and order of the channels, for codecs that do not say. Audio only.
    MultichannelConfig,
}

/// One track's share of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub purpose: Purpose,
    pub codec: FourCc,
    /// The encoder's track id; 0 outside of multitrack messages.
    pub track: u8,
    /// To be added to the message's timestamp, in nanoseconds, below a millisecond (ModEx TimestampOffsetNano).
    pub nanos: u32,
    pub body: Bytes,
}

/// Packet types by number (AudioPacketType, VideoPacketType).
mod packet_type {
    pub(super) const SEQUENCE_START: u8 = 0;
    pub(super) const CODED_FRAMES: u8 = 1;
    pub(super) const VIDEO_CODED_FRAMES_X: u8 = 3;
    pub(super) const AUDIO_MULTICHANNEL_CONFIG: u8 = 4;
    pub(super) const VIDEO_METADATA: u8 = 4;
    pub(super) const AUDIO_MULTITRACK: u8 = 5;
    pub(super) const VIDEO_MULTITRACK: u8 = 6;
    pub(super) const MOD_EX: u8 = 7;
}

/// VideoFrameType of a message that is a command to a player and holds no media.
const FRAME_TYPE_COMMAND: u8 = 5;
/// ModEx type of an offset to the timestamp.
const TIMESTAMP_OFFSET_NANO: u8 = 0;
/// Largest such offset: more would be another millisecond.
const NANOS_MAX: u32 = 999_999;

/// How a multitrack message lays out its tracks (AvMultitrackType).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// No track id at all.
    Plain(FourCc),
    OneTrack(FourCc),
    ManyTracks(FourCc),
    ManyTracksManyCodecs,
}

/// Takes a message apart, its first byte included. `each` gets the packets in order; others than those of [`Purpose`]
/// are passed over, as the specification wants of what is not understood.
pub(super) fn split(
    kind: TrackKind,
    mut rest: Bytes,
    mut each: impl FnMut(Packet) -> Result<(), FlvError>,
) -> Result<(), FlvError> {
    let first = byte(&mut rest)?;
    let mut packet = first & 0x0f;
    let mut nanos = 0;
    while packet == packet_type::MOD_EX {
        packet = modifier(&mut rest, &mut nanos)?;
    }
    let is_video = kind == TrackKind::Video;
    if is_video && (first >> 4 & 7 == FRAME_TYPE_COMMAND || packet == packet_type::VIDEO_METADATA) {
        return Ok(());
    }
    let multitrack = if is_video {
        packet_type::VIDEO_MULTITRACK
    } else {
        packet_type::AUDIO_MULTITRACK
    };
    let layout = if packet == multitrack {
        let types = byte(&mut rest)?;
        packet = types & 0x0f;
        if packet == multitrack || packet == packet_type::MOD_EX {
            return Err(FlvError::Multitrack("a packet type that cannot be inside"));
        }
        match types >> 4 {
            0 => Layout::OneTrack(fourcc(&mut rest)?),
            1 => Layout::ManyTracks(fourcc(&mut rest)?),
            2 => Layout::ManyTracksManyCodecs,
            _ => return Err(FlvError::Multitrack("an unknown layout")),
        }
    } else {
        Layout::Plain(fourcc(&mut rest)?)
    };
    let Some(purpose) = purpose(kind, packet) else {
        return Ok(());
    };
    loop {
        let (codec, track, body) = share(layout, &mut rest)?;
        each(Packet {
            purpose,
            codec,
            track,
            nanos,
            body,
        })?;
        if rest.is_empty() || matches!(layout, Layout::Plain(_) | Layout::OneTrack(_)) {
            return Ok(());
        }
    }
}

fn purpose(kind: TrackKind, packet: u8) -> Option<Purpose> {
    match (packet, kind) {
        (packet_type::SEQUENCE_START, _) => Some(Purpose::SequenceStart),
        (packet_type::CODED_FRAMES, _) => Some(Purpose::CodedFrames),
        (packet_type::VIDEO_CODED_FRAMES_X, TrackKind::Video) => Some(Purpose::CodedFramesX),
        (packet_type::AUDIO_MULTICHANNEL_CONFIG, TrackKind::Audio) => Some(Purpose::MultichannelConfig),
        _ => None,
    }
}

/// One ModEx packet; returns the packet type that follows it.
fn modifier(rest: &mut Bytes, nanos: &mut u32) -> Result<u8, FlvError> {
    let mut size = usize::from(byte(rest)?) + 1;
    if size == 256 {
        let (high, low) = (byte(rest)?, byte(rest)?);
        size = usize::from(u16::from_be_bytes([high, low])) + 1;
    }
    let data = take(rest, size)?;
    let types = byte(rest)?;
    if types >> 4 == TIMESTAMP_OFFSET_NANO {
        let &[a, b, c] = data.first_chunk().ok_or(FlvError::Truncated)?;
        *nanos = u32::from_be_bytes([0, a, b, c]).min(NANOS_MAX);
    }
    Ok(types & 0x0f)
}

/// The next track's codec, id and bytes.
fn share(layout: Layout, rest: &mut Bytes) -> Result<(FourCc, u8, Bytes), FlvError> {
    match layout {
        Layout::Plain(codec) => Ok((codec, 0, std::mem::take(rest))),
        Layout::OneTrack(codec) => Ok((codec, byte(rest)?, std::mem::take(rest))),
        Layout::ManyTracks(codec) => {
            let track = byte(rest)?;
            Ok((codec, track, sized(rest)?))
        }
        Layout::ManyTracksManyCodecs => {
            let codec = fourcc(rest)?;
            let track = byte(rest)?;
            Ok((codec, track, sized(rest)?))
        }
    }
}

/// Bytes behind their 24-bit size.
fn sized(rest: &mut Bytes) -> Result<Bytes, FlvError> {
    let &[a, b, c] = rest.first_chunk().ok_or(FlvError::Truncated)?;
    rest.advance(3);
    take(rest, u32::from_be_bytes([0, a, b, c]) as usize)
}

fn fourcc(rest: &mut Bytes) -> Result<FourCc, FlvError> {
    let codec = *rest.first_chunk().ok_or(FlvError::Truncated)?;
    rest.advance(4);
    Ok(FourCc(codec))
}

fn byte(rest: &mut Bytes) -> Result<u8, FlvError> {
    let byte = *rest.first().ok_or(FlvError::Truncated)?;
    rest.advance(1);
    Ok(byte)
}

fn take(rest: &mut Bytes, count: usize) -> Result<Bytes, FlvError> {
    if rest.len() < count {
        return Err(FlvError::Truncated);
    }
    Ok(rest.split_to(count))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packets(kind: TrackKind, message: &[u8]) -> Result<Vec<Packet>, FlvError> {
        let mut packets = Vec::new();
        split(kind, Bytes::copy_from_slice(message), |packet| {
            packets.push(packet);
            Ok(())
        })?;
        Ok(packets)
    }

    fn video(message: &[u8]) -> Result<Vec<Packet>, FlvError> {
        packets(TrackKind::Video, message)
    }

    fn audio(message: &[u8]) -> Result<Vec<Packet>, FlvError> {
        packets(TrackKind::Audio, message)
    }

    fn packet(purpose: Purpose, codec: FourCc, track: u8, body: &'static [u8]) -> Packet {
        Packet {
            purpose,
            codec,
            track,
            nanos: 0,
            body: Bytes::from_static(body),
        }
    }

    #[test]
    fn one_codec_one_track() {
        let frames = packet(Purpose::CodedFrames, FourCc::HEVC, 0, b"\0\0\x43rest");
        assert_eq!(video(b"\x91hvc1\0\0\x43rest"), Ok(vec![frames]));
        let without_offset = packet(Purpose::CodedFramesX, FourCc::HEVC, 0, b"rest");
        assert_eq!(video(b"\xa3hvc1rest"), Ok(vec![without_offset]));
        let head = packet(Purpose::SequenceStart, FourCc::OPUS, 0, b"OpusHead");
        assert_eq!(audio(b"\x90OpusOpusHead"), Ok(vec![head]));
        let channels = packet(Purpose::MultichannelConfig, FourCc::OPUS, 0, &[1, 1, 0, 0, 0, 4]);
        assert_eq!(audio(b"\x94Opus\x01\x01\0\0\0\x04"), Ok(vec![channels]));
    }

    #[test]
    fn tracks_share_a_message_in_three_layouts() {
        let one = packet(Purpose::CodedFrames, FourCc::AAC, 1, b"abc");
        assert_eq!(audio(b"\x95\x01mp4a\x01abc"), Ok(vec![one.clone()]));
        let two = packet(Purpose::CodedFrames, FourCc::AAC, 7, b"");
        let many = audio(b"\x95\x11mp4a\x01\0\0\x03abc\x07\0\0\0");
        assert_eq!(many, Ok(vec![one.clone(), two]));
        let other = packet(Purpose::CodedFrames, FourCc::OPUS, 2, b"xy");
        let mixed = audio(b"\x95\x21mp4a\x01\0\0\x03abcOpus\x02\0\0\x02xy");
        assert_eq!(mixed, Ok(vec![one, other]));
    }

    #[test]
    fn a_modifier_moves_the_time_of_its_message_only() {
        let moved = video(b"\x97\x02\x01\xe2\x40\x01av01frame").unwrap();
        assert_eq!((moved[0].nanos, &moved[0].body[..]), (123_456, &b"frame"[..]));
        assert_eq!(video(b"\x91av01frame").unwrap()[0].nanos, 0);
        // Two modifiers, the first of a kind unknown to us and 256 bytes long; the second says too much.
        let mut long = vec![0x97, 0xff, 0x00, 0xff];
        long.extend([9; 256]);
        long.extend([0x17, 0x02, 0xff, 0xff, 0xff, 0x06, 0x01]);
        long.extend(b"av01\x05frame");
        let moved = video(&long).unwrap();
        assert_eq!((moved[0].nanos, moved[0].track), (NANOS_MAX, 5));
    }

    #[test]
    fn what_is_not_media_is_passed_over() {
        for message in [
            &b"\xd4hvc1\x02\0\x09colorInfo"[..],
            b"\xd1\x00",
            b"\x92hvc1",
            b"\x95av01desc",
            b"\x9fhvc1",
        ] {
            assert_eq!(video(message), Ok(vec![]), "{message:?}");
        }
        for message in [&b"\x92Opus"[..], b"\x93Opus", b"\x9fOpus"] {
            assert_eq!(audio(message), Ok(vec![]), "{message:?}");
        }
    }

    #[test]
    fn messages_that_end_early_or_nest_are_refused() {
        for message in [
            &b"\x91hvc"[..],
            b"\x97",
            b"\x97\x02\0\0",
            b"\x97\xff\0",
            b"\x97\x00\x01\x01av01",
            b"\x96",
            b"\x96\x01hvc1",
            b"\x96\x11hvc1\x01\0\0",
            b"\x96\x11hvc1\x01\0\0\x09short",
            b"\x96\x21hvc1\x01\0\0\x00av0",
        ] {
            assert_eq!(video(message), Err(FlvError::Truncated), "{message:?}");
        }
        for message in [&b"\x96\x06hvc1"[..], b"\x96\x07hvc1", b"\x96\x31hvc1\0"] {
            assert!(matches!(video(message), Err(FlvError::Multitrack(_))), "{message:?}");
        }
    }

    #[test]
    fn names_are_printable() {
        assert_eq!(FourCc(*b"ac-3").to_string(), "ac-3 (Enhanced RTMP)");
        assert_eq!(FourCc([0, b'\n', 0xff, b'a']).to_string(), "???a (Enhanced RTMP)");
    }

    proptest! {
        #[test]
        fn packets_lie_inside_their_message(message in prop::collection::vec(any::<u8>(), 0..80)) {
            for kind in [TrackKind::Video, TrackKind::Audio] {
                if let Ok(packets) = packets(kind, &message) {
                    let total: usize = packets.iter().map(|packet| packet.body.len()).sum();
                    prop_assert!(total <= message.len());
                }
            }
        }
    }
}
