//! RTMP audio and video messages (the tag bodies of the FLV format, Adobe FLV 10.1 sections E.4.2 and E.4.3) become
//! decoder configurations and access units. Pure, and without copying: an access unit is a slice of its message.
//!
//! Before this: `rtmp/session.rs`. After this: `ingest/timeline.rs`.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::{
    codec::{
        CodecConfig,
        aac::{AacConfig, AacError},
        avc::{AvcConfig, AvcError},
    },
    package::frame::TrackKind,
};

/// Video frames dropped while waiting for a decoder configuration before we give up: ten seconds at 30 fps.
pub const FRAMES_BEFORE_CONFIG_MAX: u32 = 300;

/// NAL unit type of an IDR slice (ITU-T H.264 table 7-1).
const NAL_IDR: u8 = 5;

/// What one message amounts to.
#[derive(Debug, Clone, PartialEq)]
pub enum Unit {
    /// A decoder configuration, first or changed. A repeated one is [`Unit::Nothing`].
    Config(Arc<CodecConfig>),
    Frame(RawFrame),
    /// Left out, the publish goes on.
    Dropped(TrackKind, DropReason),
    /// Nothing to publish: empty, end of sequence, metadata.
    Nothing,
}

/// One access unit; its decode time is the message's timestamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    pub track: TrackKind,
    /// Presentation minus decode time, in milliseconds.
    pub composition_ms: i32,
    pub key: bool,
    pub data: Bytes,
}

/// Why an access unit was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// It came before its decoder configuration.
    BeforeConfig,
    /// Its NAL unit lengths do not add up.
    Malformed,
}

impl DropReason {
    /// Label value and log word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BeforeConfig => "before_config",
            Self::Malformed => "malformed",
        }
    }

    pub const ALL: [Self; 2] = [Self::BeforeConfig, Self::Malformed];
}

/// Why a publish cannot be packaged. All are the encoder's settings; trying again without changing them is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlvError {
    #[error("video codec {0} is not supported, H.264 is")]
    UnsupportedVideo(String),
    #[error("audio codec {0} is not supported, AAC is")]
    UnsupportedAudio(String),
    #[error("H.264 without parameter sets")]
    NoParameterSets,
    #[error("media message ends inside its header")]
    Truncated,
    #[error("H.264 configuration: {0}")]
    Avc(AvcError),
    #[error("AAC configuration: {0}")]
    Aac(#[from] AacError),
}

impl From<AvcError> for FlvError {
    fn from(error: AvcError) -> Self {
        match error {
            AvcError::NoParameterSets => Self::NoParameterSets,
            other => Self::Avc(other),
        }
    }
}

/// Remembers what the next messages of a publish need: the configurations in force.
#[derive(Debug, Default)]
pub struct Demuxer {
    video: Option<VideoTrack>,
    /// The AudioSpecificConfig in force.
    audio: Option<Bytes>,
    video_before_config: u32,
}

#[derive(Debug)]
struct VideoTrack {
    record: Bytes,
    nal_length_size: u8,
}

impl Demuxer {
    pub fn new() -> Self {
        Self::default()
    }

    /// A video message (RTMP type 9).
    pub fn video(&mut self, mut payload: Bytes) -> Result<Unit, FlvError> {
        let Some(&first) = payload.first() else {
            return Ok(Unit::Nothing);
        };
        if first & 0x80 != 0 {
            return enhanced_video(first, &payload);
        }
        let (frame_type, codec) = (first >> 4, first & 0x0f);
        if frame_type == 5 {
            return Ok(Unit::Nothing); // server command frame
        }
        if codec != 7 {
            return Err(FlvError::UnsupportedVideo(video_codec_name(codec)));
        }
        let Some(&[_, packet_type, c0, c1, c2]) = payload.first_chunk() else {
            return Err(FlvError::Truncated);
        };
        payload.advance(5);
        match packet_type {
            0 => self.video_config(payload),
            1 => {
                let composition_ms = i32::from_be_bytes([c0, c1, c2, 0]) >> 8;
                self.video_frame(composition_ms, payload)
            }
            _ => Ok(Unit::Nothing),
        }
    }

    /// An audio message (RTMP type 8).
    pub fn audio(&mut self, mut payload: Bytes) -> Result<Unit, FlvError> {
        let Some(&first) = payload.first() else {
            return Ok(Unit::Nothing);
        };
        let format = first >> 4;
        if format == 9 {
            return Err(FlvError::UnsupportedAudio(fourcc(&payload)));
        }
        if format != 10 {
            return Err(FlvError::UnsupportedAudio(audio_codec_name(format)));
        }
        let Some(&[_, packet_type]) = payload.first_chunk() else {
            return Err(FlvError::Truncated);
        };
        payload.advance(2);
        if packet_type == 0 {
            return self.audio_config(payload);
        }
        if payload.is_empty() {
            return Ok(Unit::Nothing);
        }
        if self.audio.is_none() {
            return Ok(Unit::Dropped(TrackKind::Audio, DropReason::BeforeConfig));
        }
        Ok(Unit::Frame(RawFrame {
            track: TrackKind::Audio,
            composition_ms: 0,
            key: true,
            data: payload,
        }))
    }

    fn video_config(&mut self, record: Bytes) -> Result<Unit, FlvError> {
        if record.is_empty() {
            return Err(FlvError::NoParameterSets);
        }
        if self.video.as_ref().is_some_and(|v| v.record == record) {
            return Ok(Unit::Nothing);
        }
        // Kept for the whole publish: it must not hold on to a whole message.
        let config = AvcConfig::parse(Bytes::copy_from_slice(&record))?;
        self.video = Some(VideoTrack {
            record: config.record.clone(),
            nal_length_size: config.nal_length_size,
        });
        Ok(Unit::Config(Arc::new(CodecConfig::Avc(config))))
    }

    fn video_frame(&mut self, composition_ms: i32, data: Bytes) -> Result<Unit, FlvError> {
        if data.is_empty() {
            return Ok(Unit::Nothing);
        }
        let Some(track) = &self.video else {
            self.video_before_config += 1;
            if self.video_before_config > FRAMES_BEFORE_CONFIG_MAX {
                return Err(FlvError::NoParameterSets);
            }
            return Ok(Unit::Dropped(TrackKind::Video, DropReason::BeforeConfig));
        };
        let Some(key) = contains_idr(&data, usize::from(track.nal_length_size)) else {
            return Ok(Unit::Dropped(TrackKind::Video, DropReason::Malformed));
        };
        Ok(Unit::Frame(RawFrame {
            track: TrackKind::Video,
            composition_ms,
            key,
            data,
        }))
    }

    fn audio_config(&mut self, asc: Bytes) -> Result<Unit, FlvError> {
        if self.audio.as_ref() == Some(&asc) {
            return Ok(Unit::Nothing);
        }
        let config = AacConfig::parse(Bytes::copy_from_slice(&asc))?;
        self.audio = Some(config.asc.clone());
        Ok(Unit::Config(Arc::new(CodecConfig::Aac(config))))
    }
}

/// Whether an access unit holds an IDR slice; the FLV frame type also marks recovery points, which are not independent.
/// `None`: lengths do not add up.
fn contains_idr(mut data: &[u8], length_size: usize) -> Option<bool> {
    let mut idr = false;
    while !data.is_empty() {
        let (prefix, rest) = data.split_at_checked(length_size)?;
        let length = prefix.iter().fold(0usize, |n, &b| (n << 8) | usize::from(b));
        let (unit, rest) = rest.split_at_checked(length)?;
        idr |= unit.first().is_some_and(|header| header & 0x1f == NAL_IDR);
        data = rest;
    }
    Some(idr)
}

/// Enhanced RTMP v1: packet type in the low nibble of the first byte, then a FourCC. Metadata packets are no codec's
/// business, all else needs a codec that the old header cannot name.
fn enhanced_video(first: u8, payload: &[u8]) -> Result<Unit, FlvError> {
    const METADATA: u8 = 4;
    match first & 0x0f {
        METADATA => Ok(Unit::Nothing),
        _ => Err(FlvError::UnsupportedVideo(fourcc(payload))),
    }
}

/// The FourCC after the first byte, made printable.
fn fourcc(payload: &[u8]) -> String {
    let name: String = payload
        .iter()
        .skip(1)
        .take(4)
        .map(|&b| if b.is_ascii_alphanumeric() { char::from(b) } else { '?' })
        .collect();
    format!("{name} (Enhanced RTMP)")
}

fn video_codec_name(codec: u8) -> String {
    match codec {
        2 => "Sorenson H.263".into(),
        3 | 6 => "Screen video".into(),
        4 | 5 => "VP6".into(),
        12 => "HEVC (legacy id 12)".into(),
        other => format!("id {other}"),
    }
}

fn audio_codec_name(format: u8) -> String {
    match format {
        0 | 3 => "PCM".into(),
        1 => "ADPCM".into(),
        2 | 14 => "MP3".into(),
        4..=6 => "Nellymoser".into(),
        7 => "G.711 A-law".into(),
        8 => "G.711 mu-law".into(),
        11 => "Speex".into(),
        other => format!("id {other}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::avc::tests::X264_720P30;

    fn video_config() -> Bytes {
        [&[0x17, 0, 0, 0, 0], X264_720P30].concat().into()
    }

    /// One NAL unit of the given header byte.
    fn access_unit(first: u8, composition: [u8; 3], nal: u8) -> Bytes {
        let [a, b, c] = composition;
        vec![first, 1, a, b, c, 0, 0, 0, 2, nal, 0xaa].into()
    }

    fn ready() -> Demuxer {
        let mut demuxer = Demuxer::new();
        demuxer.video(video_config()).unwrap();
        demuxer.audio(vec![0xaf, 0, 0x12, 0x10].into()).unwrap();
        demuxer
    }

    #[test]
    fn a_configuration_is_told_once() {
        let mut demuxer = Demuxer::new();
        assert!(matches!(demuxer.video(video_config()), Ok(Unit::Config(_))));
        assert_eq!(demuxer.video(video_config()), Ok(Unit::Nothing));
        let asc = Bytes::from_static(&[0xaf, 0, 0x12, 0x10]);
        assert!(matches!(demuxer.audio(asc.clone()), Ok(Unit::Config(_))));
        assert_eq!(demuxer.audio(asc), Ok(Unit::Nothing));
    }

    #[test]
    fn only_an_idr_is_a_key_frame_whatever_the_header_says() {
        let frame = |unit| match ready().video(unit) {
            Ok(Unit::Frame(frame)) => frame,
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
        let dropped = |track| Ok(Unit::Dropped(track, DropReason::BeforeConfig));
        assert_eq!(demuxer.audio(vec![0xaf, 1, 9].into()), dropped(TrackKind::Audio));
        for _ in 0..FRAMES_BEFORE_CONFIG_MAX {
            let unit = access_unit(0x17, [0; 3], 0x65);
            assert_eq!(demuxer.video(unit), dropped(TrackKind::Video));
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
        let lying = Bytes::from_static(&[0x27, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x41]);
        let malformed = Unit::Dropped(TrackKind::Video, DropReason::Malformed);
        assert_eq!(demuxer.video(lying), Ok(malformed));
        assert!(matches!(
            demuxer.video(access_unit(0x27, [0; 3], 0x41)),
            Ok(Unit::Frame(_))
        ));
    }

    #[test]
    fn other_codecs_are_refused_by_name() {
        let video = |bytes: &'static [u8]| Demuxer::new().video(Bytes::from_static(bytes)).unwrap_err().to_string();
        assert!(video(b"\x90hvc1").contains("hvc1"));
        assert!(video(b"\x91av01").contains("av01"));
        assert!(video(&[0x12, 0, 0]).contains("H.263"));
        let audio = |bytes: &'static [u8]| Demuxer::new().audio(Bytes::from_static(bytes)).unwrap_err().to_string();
        assert!(audio(b"\x90Opus").contains("Opus"));
        assert!(audio(&[0x2f, 0xff]).contains("MP3"));
    }

    #[test]
    fn nothing_comes_of_empty_messages_ends_and_metadata() {
        let mut demuxer = ready();
        for video in [
            &[][..],
            &[0x17, 2, 0, 0, 0],
            &[0x17, 1, 0, 0, 0],
            &[0x57, 0],
            &[0xd4, b'a'],
        ] {
            assert_eq!(demuxer.video(Bytes::copy_from_slice(video)), Ok(Unit::Nothing));
        }
        for audio in [&[][..], &[0xaf, 1]] {
            assert_eq!(demuxer.audio(Bytes::copy_from_slice(audio)), Ok(Unit::Nothing));
        }
        assert_eq!(demuxer.video(vec![0x17, 1].into()), Err(FlvError::Truncated));
    }

    proptest! {
        #[test]
        fn no_message_panics(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let mut demuxer = ready();
            for message in messages {
                let _ = demuxer.video(message.clone().into());
                let _ = demuxer.audio(message.into());
            }
        }
    }
}
