//! H.264: the `AVCDecoderConfigurationRecord` (ISO/IEC 14496-15 section 5.3.3) and what its parameter sets say.

use bytes::Bytes;

/// A parsed H.264 decoder configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct AvcConfig {
    /// The record as the encoder sent it: the payload of the `avcC` box.
    pub record: Bytes,
    /// Bytes of a NAL unit's length prefix: 1, 2 or 4.
    pub nal_length_size: u8,
    /// profile_idc, constraint flags, level_idc.
    pub profile: [u8; 3],
    /// Displayed (cropped) picture size in pixels.
    pub width: u16,
    pub height: u16,
    /// Sample aspect ratio, 1:1 when not said.
    pub sample_aspect: (u16, u16),
    /// Nominal frame duration from VUI timing as (numerator, denominator) of a second, when `fixed_frame_rate_flag` or
    /// plain timing info is present: 1001/30000.
    pub frame_duration: Option<(u32, u32)>,
}

impl AvcConfig {
    pub fn codec_string(&self) -> String {
        let [profile, constraints, level] = self.profile;
        format!("avc1.{profile:02x}{constraints:02x}{level:02x}")
    }
}
