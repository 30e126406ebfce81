//! Decoder configurations: parameter sets in, codec strings, picture sizes and sample-entry facts out.
//!
//! Before this: `ingest/flv.rs`, which finds the records. After this: `package/fmp4` and `live/master.rs`.

pub mod aac;
pub mod av1;
pub mod avc;
mod bits;
pub mod hevc;
pub mod opus;

use bytes::Bytes;
pub use weir_shared::hls::multivariant::VideoRange;

use crate::package::frame::TrackKind;

/// Fastest nominal frame rate believed. Beyond it the headers state a clock, not a frame rate.
const FRAME_RATE_MAX: u32 = 300;

/// A track's decoder configuration.
#[derive(Debug, Clone, PartialEq)]
pub enum CodecConfig {
    Avc(avc::AvcConfig),
    Hevc(hevc::HevcConfig),
    Av1(av1::Av1Config),
    Aac(aac::AacConfig),
    Opus(opus::OpusConfig),
}

/// What a video configuration says of its pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picture {
    /// Displayed size in pixels.
    pub width: u16,
    pub height: u16,
    /// Width of a pixel to its height.
    pub sample_aspect: (u16, u16),
    /// Nominal duration as (numerator, denominator) of a second, if told.
    pub frame_duration: Option<(u32, u32)>,
    pub range: VideoRange,
}

/// By transfer_characteristics (ITU-T H.273 section 8.2).
const fn video_range(transfer: u8) -> VideoRange {
    match transfer {
        16 => VideoRange::Pq,
        18 => VideoRange::Hlg,
        _ => VideoRange::Sdr,
    }
}

impl CodecConfig {
    pub fn track(&self) -> TrackKind {
        match self {
            Self::Avc(_) | Self::Hevc(_) | Self::Av1(_) => TrackKind::Video,
            Self::Aac(_) | Self::Opus(_) => TrackKind::Audio,
        }
    }

    /// Whether a decoder of the one takes the other, set up anew.
    pub fn is_same_codec(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// RFC 6381 codec string: `avc1.64001f`, `hvc1.1.6.L93.90`, `av01.0.04M.08`, `mp4a.40.2`, `opus`.
    pub fn codec_string(&self) -> String {
        match self {
            Self::Avc(c) => c.codec_string(),
            Self::Hevc(c) => c.codec_string(),
            Self::Av1(c) => c.codec_string(),
            Self::Aac(c) => c.codec_string(),
            Self::Opus(c) => c.codec_string(),
        }
    }

    /// The configuration as the encoder sent it.
    pub fn record(&self) -> &Bytes {
        match self {
            Self::Avc(c) => &c.record,
            Self::Hevc(c) => &c.record,
            Self::Av1(c) => &c.record,
            Self::Aac(c) => &c.asc,
            Self::Opus(c) => &c.head,
        }
    }

    /// `None` for audio.
    pub fn picture(&self) -> Option<Picture> {
        let (width, height, sample_aspect, frame_duration, range) = match self {
            Self::Avc(c) => (c.width, c.height, c.sample_aspect, c.frame_duration, VideoRange::Sdr),
            Self::Hevc(c) => (c.width, c.height, c.sample_aspect, c.frame_duration, c.range),
            Self::Av1(c) => (c.width, c.height, (1, 1), c.frame_duration, c.range()),
            Self::Aac(_) | Self::Opus(_) => return None,
        };
        Some(Picture {
            width,
            height,
            sample_aspect,
            frame_duration,
            range,
        })
    }

    /// How many channels an audio track has; `None` for video.
    pub fn channels(&self) -> Option<u8> {
        match self {
            Self::Aac(c) => Some(c.channels),
            Self::Opus(c) => Some(c.channels),
            Self::Avc(_) | Self::Hevc(_) | Self::Av1(_) => None,
        }
    }
}

/// `numerator / denominator` of a second per frame. `None`: nothing a frame rate could be.
fn frame_duration(numerator: u32, denominator: u32) -> Option<(u32, u32)> {
    let at_most_one_second = numerator <= denominator;
    let believable = u64::from(denominator) <= u64::from(numerator) * u64::from(FRAME_RATE_MAX);
    (numerator > 0 && at_most_one_second && believable).then_some((numerator, denominator))
}

/// A size that boxes can carry and that has pixels.
fn picture_size(width: u32, height: u32) -> Option<(u16, u16)> {
    match (u16::try_from(width), u16::try_from(height)) {
        (Ok(width), Ok(height)) if width > 0 && height > 0 => Some((width, height)),
        _ => None,
    }
}
