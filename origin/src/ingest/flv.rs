//! RTMP audio and video messages (the tag bodies of the FLV format, Adobe FLV 10.1 sections E.4.2 and E.4.3, and those of
//! Enhanced RTMP) become decoder configurations and access units. Pure, and without copying: an access unit is a slice
//! of its message.
//!
//! Before this: `rtmp/session.rs`. Beside it: `flv/enhanced.rs`. After this: `ingest/timeline.rs`.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Buf, Bytes};

use crate::{
    codec::{
        CodecConfig,
        aac::{AacConfig, AacError},
        av1::{Av1Config, Av1Error},
        avc::{self, AvcConfig, AvcError},
        hevc::{self, HevcConfig, HevcError},
        opus::{OpusConfig, OpusError},
    },
    package::frame::{TrackId, TrackKind},
};

mod enhanced;

use enhanced::{FourCc, Packet, Purpose};

/// Frames of a video track dropped while waiting for its decoder configuration before we give up: ten seconds at 30 fps.
pub const FRAMES_BEFORE_CONFIG_MAX: u32 = 300;
/// The FourCCs that Enhanced RTMP messages may have here.
pub const VIDEO_CODECS: [&str; 3] = ["avc1", "hvc1", "av01"];
pub const AUDIO_CODECS: [&str; 2] = ["mp4a", "Opus"];
/// Most tracks of a kind in one publish.
pub const TRACKS_MAX: usize = 8;

/// What a message amounts to: one [`Unit`] per track in it, or none.
#[derive(Debug, Clone, PartialEq)]
pub enum Unit {
    /// A track's decoder configuration, first or changed; never a repeated one.
    Config(TrackId, Arc<CodecConfig>),
    Frame(RawFrame),
    /// Left out, the publish goes on.
    Dropped(TrackKind, DropReason),
}

/// One access unit; its decode time is the message's timestamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    pub track: TrackId,
    /// To be added to the message's timestamp, in nanoseconds, below a millisecond.
    pub nanos: u32,
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
    /// Its NAL unit lengths, or sizes of AV1 units, do not add up.
    Malformed,
    /// A part of it was lost on the way.
    Damaged,
    /// It refers to an access unit that was lost; the next key frame is waited for.
    AfterDamage,
}

impl DropReason {
    /// Label value and log word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BeforeConfig => "before_config",
            Self::Malformed => "malformed",
            Self::Damaged => "damaged",
            Self::AfterDamage => "after_damage",
        }
    }

    pub const ALL: [Self; 4] = [Self::BeforeConfig, Self::Malformed, Self::Damaged, Self::AfterDamage];
}

/// Why a publish cannot be packaged. All are the encoder's settings; trying again without changing them is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlvError {
    #[error("video codec {0} is not supported, H.264, HEVC and AV1 are")]
    UnsupportedVideo(String),
    #[error("audio codec {0} is not supported, AAC and Opus are")]
    UnsupportedAudio(String),
    #[error("more than {TRACKS_MAX} {} tracks", .0.as_str())]
    TooManyTracks(TrackKind),
    #[error("video without parameter sets")]
    NoParameterSets,
    #[error("media message ends inside its header")]
    Truncated,
    #[error("multitrack message with {0}")]
    Multitrack(&'static str),
    #[error("H.264 configuration: {0}")]
    Avc(AvcError),
    #[error("HEVC configuration: {0}")]
    Hevc(HevcError),
    #[error("AV1 configuration: {0}")]
    Av1(#[from] Av1Error),
    #[error("AAC configuration: {0}")]
    Aac(#[from] AacError),
    #[error("Opus configuration: {0}")]
    Opus(#[from] OpusError),
}

impl From<AvcError> for FlvError {
    fn from(error: AvcError) -> Self {
        match error {
            AvcError::NoParameterSets => Self::NoParameterSets,
            other => Self::Avc(other),
        }
    }
}

impl From<HevcError> for FlvError {
    fn from(error: HevcError) -> Self {
        match error {
            HevcError::NoParameterSets => Self::NoParameterSets,
            other => Self::Hevc(other),
        }
    }
}

/// Remembers what the next messages of a publish need: the configurations in force. Messages go in, units are polled.
#[derive(Debug, Default)]
pub struct Demuxer {
    /// At most [`TRACKS_MAX`] of each kind.
    tracks: Vec<Track>,
    /// At most one per track of the message that was put in last.
    units: VecDeque<Unit>,
}

#[derive(Debug)]
struct Track {
    id: TrackId,
    config: Option<Arc<CodecConfig>>,
    frames_before_config: u32,
}

impl Demuxer {
    pub fn new() -> Self {
        Self::default()
    }

    /// What the last messages amount to, in order.
    pub fn poll(&mut self) -> Option<Unit> {
        self.units.pop_front()
    }

    /// A video message (RTMP type 9).
    pub fn video(&mut self, mut payload: Bytes) -> Result<(), FlvError> {
        let Some(&first) = payload.first() else {
            return Ok(());
        };
        if first & 0x80 != 0 {
            return self.enhanced(TrackKind::Video, payload);
        }
        let (frame_type, codec) = (first >> 4, first & 0x0f);
        if frame_type == 5 {
            return Ok(()); // server command frame
        }
        if codec != 7 {
            return Err(FlvError::UnsupportedVideo(video_codec_name(codec)));
        }
        let Some(&[_, packet_type]) = payload.first_chunk() else {
            return Err(FlvError::Truncated);
        };
        payload.advance(2);
        match packet_type {
            0 => {
                take_composition(&mut payload)?;
                self.config(TrackId::VIDEO, FourCc::AVC, payload)
            }
            1 => {
                let composition_ms = take_composition(&mut payload)?;
                self.frame(TrackId::VIDEO, FourCc::AVC, 0, composition_ms, payload)
            }
            _ => Ok(()),
        }
    }

    /// An audio message (RTMP type 8).
    pub fn audio(&mut self, mut payload: Bytes) -> Result<(), FlvError> {
        const EX_HEADER: u8 = 9;
        let Some(&first) = payload.first() else {
            return Ok(());
        };
        let format = first >> 4;
        if format == EX_HEADER {
            return self.enhanced(TrackKind::Audio, payload);
        }
        if format != 10 {
            return Err(FlvError::UnsupportedAudio(audio_codec_name(format)));
        }
        let Some(&[_, packet_type]) = payload.first_chunk() else {
            return Err(FlvError::Truncated);
        };
        payload.advance(2);
        match packet_type {
            0 => self.config(TrackId::AUDIO, FourCc::AAC, payload),
            _ => self.frame(TrackId::AUDIO, FourCc::AAC, 0, 0, payload),
        }
    }

    fn enhanced(&mut self, kind: TrackKind, payload: Bytes) -> Result<(), FlvError> {
        enhanced::split(kind, payload, |packet| self.packet(kind, packet))
    }

    fn packet(&mut self, kind: TrackKind, packet: Packet) -> Result<(), FlvError> {
        let Packet {
            purpose,
            codec,
            track: number,
            nanos,
            mut body,
        } = packet;
        match (kind, codec) {
            (TrackKind::Video, FourCc::AVC | FourCc::HEVC | FourCc::AV1) => {}
            (TrackKind::Audio, FourCc::AAC | FourCc::OPUS) => {}
            (TrackKind::Video, other) => return Err(FlvError::UnsupportedVideo(other.to_string())),
            (TrackKind::Audio, other) => return Err(FlvError::UnsupportedAudio(other.to_string())),
        }
        let id = TrackId { kind, number };
        match purpose {
            Purpose::SequenceStart => self.config(id, codec, body),
            Purpose::CodedFrames => {
                let composition_ms = match codec {
                    FourCc::AVC | FourCc::HEVC => take_composition(&mut body)?,
                    _ => 0,
                };
                self.frame(id, codec, nanos, composition_ms, body)
            }
            Purpose::CodedFramesX => self.frame(id, codec, nanos, 0, body),
            // AAC and Opus say it themselves.
            Purpose::MultichannelConfig => Ok(()),
        }
    }

    /// The state of a track; new tracks are counted.
    fn track(&mut self, id: TrackId) -> Result<&mut Track, FlvError> {
        let at = match self.tracks.iter().position(|track| track.id == id) {
            Some(at) => at,
            None => {
                let of_kind = self.tracks.iter().filter(|track| track.id.kind == id.kind).count();
                if of_kind >= TRACKS_MAX {
                    return Err(FlvError::TooManyTracks(id.kind));
                }
                self.tracks.push(Track {
                    id,
                    config: None,
                    frames_before_config: 0,
                });
                self.tracks.len() - 1
            }
        };
        self.tracks.get_mut(at).ok_or(FlvError::TooManyTracks(id.kind))
    }

    fn config(&mut self, id: TrackId, codec: FourCc, record: Bytes) -> Result<(), FlvError> {
        let track = self.track(id)?;
        if track
            .config
            .as_ref()
            .is_some_and(|config| is_same(config, codec, &record))
        {
            return Ok(());
        }
        if record.is_empty() && id.kind == TrackKind::Video {
            return Err(FlvError::NoParameterSets);
        }
        // Kept for the whole publish: it must not hold on to a whole message.
        let record = Bytes::copy_from_slice(&record);
        let config = Arc::new(match codec {
            FourCc::HEVC => CodecConfig::Hevc(HevcConfig::parse(record)?),
            FourCc::AV1 => CodecConfig::Av1(Av1Config::parse(record)?),
            FourCc::AAC => CodecConfig::Aac(AacConfig::parse(record)?),
            FourCc::OPUS => CodecConfig::Opus(OpusConfig::parse(record)?),
            _ => CodecConfig::Avc(AvcConfig::parse(record)?),
        });
        track.config = Some(config.clone());
        self.units.push_back(Unit::Config(id, config));
        Ok(())
    }

    fn frame(
        &mut self,
        id: TrackId,
        codec: FourCc,
        nanos: u32,
        composition_ms: i32,
        data: Bytes,
    ) -> Result<(), FlvError> {
        if data.is_empty() {
            return Ok(());
        }
        let track = self.track(id)?;
        let config = track.config.as_ref().filter(|config| fourcc(config) == codec);
        let unit = match config {
            Some(config) => match is_key(config, &data) {
                Some(key) => Unit::Frame(RawFrame {
                    track: id,
                    nanos,
                    composition_ms,
                    key,
                    data,
                }),
                None => Unit::Dropped(id.kind, DropReason::Malformed),
            },
            None => {
                if id.kind == TrackKind::Video {
                    track.frames_before_config += 1;
                    if track.frames_before_config > FRAMES_BEFORE_CONFIG_MAX {
                        return Err(FlvError::NoParameterSets);
                    }
                }
                Unit::Dropped(id.kind, DropReason::BeforeConfig)
            }
        };
        self.units.push_back(unit);
        Ok(())
    }
}

fn fourcc(config: &CodecConfig) -> FourCc {
    match config {
        CodecConfig::Avc(_) => FourCc::AVC,
        CodecConfig::Hevc(_) => FourCc::HEVC,
        CodecConfig::Av1(_) => FourCc::AV1,
        CodecConfig::Aac(_) => FourCc::AAC,
        CodecConfig::Opus(_) => FourCc::OPUS,
    }
}

fn is_same(config: &CodecConfig, codec: FourCc, record: &Bytes) -> bool {
    fourcc(config) == codec && config.record() == record
}

/// Composition time in milliseconds: 24 bits, signed.
fn take_composition(body: &mut Bytes) -> Result<i32, FlvError> {
    let &[a, b, c] = body.first_chunk().ok_or(FlvError::Truncated)?;
    body.advance(3);
    Ok(i32::from_be_bytes([a, b, c, 0]) >> 8)
}

/// Whether decoding can begin at an access unit. The frame type in the header is not believed: encoders mark recovery
/// points too. `None`: lengths do not add up.
fn is_key(config: &CodecConfig, data: &[u8]) -> Option<bool> {
    match config {
        CodecConfig::Avc(config) => any_nal_unit(data, config.nal_length_size, avc::is_idr),
        CodecConfig::Hevc(config) => any_nal_unit(data, config.nal_length_size, hevc::is_random_access),
        CodecConfig::Av1(config) => config.is_key(data),
        CodecConfig::Aac(_) | CodecConfig::Opus(_) => Some(true),
    }
}

/// Whether `wanted` holds for the first byte of any NAL unit. `None`: lengths do not add up.
fn any_nal_unit(mut data: &[u8], length_size: u8, wanted: fn(u8) -> bool) -> Option<bool> {
    let mut found = false;
    while !data.is_empty() {
        let (prefix, rest) = data.split_at_checked(usize::from(length_size))?;
        let length = prefix.iter().fold(0usize, |n, &b| (n << 8) | usize::from(b));
        let (unit, rest) = rest.split_at_checked(length)?;
        found |= unit.first().is_some_and(|&header| wanted(header));
        data = rest;
    }
    Some(found)
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
mod tests;
