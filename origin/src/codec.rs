//! Decoder configurations: parameter sets in, codec strings, picture sizes and sample-entry facts out.

pub mod aac;
pub mod avc;

use crate::package::frame::TrackKind;

/// A track's decoder configuration.
#[derive(Debug, Clone, PartialEq)]
pub enum CodecConfig {
    Avc(avc::AvcConfig),
    Aac(aac::AacConfig),
}

impl CodecConfig {
    pub fn track(&self) -> TrackKind {
        match self {
            Self::Avc(_) => TrackKind::Video,
            Self::Aac(_) => TrackKind::Audio,
        }
    }

    /// RFC 6381 codec string: `avc1.64001f`, `mp4a.40.2`.
    pub fn codec_string(&self) -> String {
        match self {
            Self::Avc(c) => c.codec_string(),
            Self::Aac(c) => c.codec_string(),
        }
    }
}
