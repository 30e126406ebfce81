//! AAC: the `AudioSpecificConfig` (ISO/IEC 14496-3 section 1.6.2.1).

use bytes::Bytes;

/// A parsed AAC decoder configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AacConfig {
    /// The AudioSpecificConfig as the encoder sent it (trailing padding included).
    pub asc: Bytes,
    /// Audio object type: 2 = LC, 5 = SBR, 29 = PS.
    pub object_type: u8,
    /// Core sampling rate in Hz: the track's timescale.
    pub sample_rate: u32,
    /// 1..=8.
    pub channels: u8,
    /// Samples per frame at `sample_rate`: 1024 or 960.
    pub frame_samples: u32,
}

impl AacConfig {
    pub fn codec_string(&self) -> String {
        format!("mp4a.40.{}", self.object_type)
    }
}
