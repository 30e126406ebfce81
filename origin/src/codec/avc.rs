//! H.264: the `AVCDecoderConfigurationRecord` (ISO/IEC 14496-15 section 5.3.3) and what its parameter sets say. Pure.
//!
//! Before this: `ingest/flv.rs`, `ingest/ts/video.rs`. After this: `package/fmp4`.

use bytes::Bytes;
use h264_reader::nal::{
    Nal, RefNal,
    sps::{ChromaFormat, SeqParameterSet},
};

/// Longest record kept, in bytes: real ones have below 200.
const RECORD_MAX: usize = 16 << 10;
/// NAL unit type of a sequence parameter set (ITU-T H.264 table 7-1).
const NAL_SPS: u8 = 7;
/// NAL unit type of an IDR slice (ITU-T H.264 table 7-1).
const NAL_IDR: u8 = 5;

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

/// Why a decoder configuration record was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AvcError {
    #[error("AVC decoder configuration ends too early")]
    Truncated,
    #[error("AVC decoder configuration of {0} bytes, at most {RECORD_MAX} are accepted")]
    TooLong(usize),
    #[error("AVC decoder configuration version {0}, only 1 is known")]
    Version(u8),
    #[error("NAL unit length prefixes of {0} bytes, only 1, 2 and 4 are allowed")]
    NalLengthSize(u8),
    #[error("H.264 without parameter sets")]
    NoParameterSets,
    #[error("sequence parameter set is broken: {0}")]
    Sps(String),
    #[error("picture of {0}x{1} pixels")]
    PictureSize(u32, u32),
}

impl AvcConfig {
    /// Reads a decoder configuration record.
    pub fn parse(record: Bytes) -> Result<Self, AvcError> {
        if record.len() > RECORD_MAX {
            return Err(AvcError::TooLong(record.len()));
        }
        let (&[version, _, _, _, lengths], mut rest) = record.split_first_chunk().ok_or(AvcError::Truncated)?;
        if version != 1 {
            return Err(AvcError::Version(version));
        }
        let nal_length_size = (lengths & 3) + 1;
        if nal_length_size == 3 {
            return Err(AvcError::NalLengthSize(nal_length_size));
        }
        let sequence_sets = parameter_sets(&mut rest, 0x1f)?;
        let picture_sets = parameter_sets(&mut rest, 0xff)?;
        let Some(&sps_bytes) = sequence_sets.first() else {
            return Err(AvcError::NoParameterSets);
        };
        if picture_sets.is_empty() {
            return Err(AvcError::NoParameterSets);
        }
        let profile = match *sps_bytes {
            [header, profile, constraints, level, ..] if header & 0x1f == NAL_SPS => [profile, constraints, level],
            _ => return Err(AvcError::Sps("not a sequence parameter set".into())),
        };
        let sps = SeqParameterSet::from_bits(RefNal::new(sps_bytes, &[], true).rbsp_bits())
            .map_err(|e| AvcError::Sps(format!("{e:?}")))?;
        let (width, height) = picture_size(&sps)?;
        let vui = sps.vui_parameters.as_ref();
        Ok(Self {
            nal_length_size,
            profile,
            width,
            height,
            sample_aspect: vui
                .and_then(|vui| vui.aspect_ratio_info.as_ref()?.get())
                .unwrap_or((1, 1)),
            frame_duration: vui
                .and_then(|vui| vui.timing_info.as_ref())
                .and_then(|timing| frame_duration(timing.num_units_in_tick, timing.time_scale)),
            record,
        })
    }

    /// The parameter sets of the record, sequence sets first.
    pub fn parameter_sets(&self) -> Vec<&[u8]> {
        let mut rest = self.record.get(5..).unwrap_or_default();
        let mut sets = parameter_sets(&mut rest, 0x1f).unwrap_or_default();
        sets.extend(parameter_sets(&mut rest, 0xff).unwrap_or_default());
        sets
    }

    /// Makes the record of parameter sets that came by themselves, as in a transport stream: NAL units without start
    /// codes, the ones in force.
    pub fn from_sets(sequence: &[Bytes], picture: &[Bytes]) -> Result<Self, AvcError> {
        let first = sequence.first().ok_or(AvcError::NoParameterSets)?;
        let &[_, profile, constraints, level, ..] = first.as_ref() else {
            return Err(AvcError::Sps("too short".into()));
        };
        let mut record = vec![1, profile, constraints, level, 0xff];
        for (mark, sets) in [(0xe0, sequence), (0, picture)] {
            record.push(mark | sets.len().min(31) as u8);
            for set in sets.iter().take(31) {
                let length = u16::try_from(set.len()).map_err(|_| AvcError::TooLong(set.len()))?;
                record.extend(length.to_be_bytes());
                record.extend_from_slice(set);
            }
        }
        // The high profiles say their sample format too (14496-15 section 5.3.3.1.2).
        if matches!(profile, 100 | 110 | 122 | 144 | 244) {
            let sps = SeqParameterSet::from_bits(RefNal::new(first, &[], true).rbsp_bits())
                .map_err(|e| AvcError::Sps(format!("{e:?}")))?;
            let chroma = &sps.chroma_info;
            let format = match chroma.chroma_format {
                ChromaFormat::Monochrome => 0,
                ChromaFormat::YUV420 => 1,
                ChromaFormat::YUV422 => 2,
                _ => 3,
            };
            record.extend([
                0xfc | format,
                0xf8 | chroma.bit_depth_luma_minus8 & 7,
                0xf8 | chroma.bit_depth_chroma_minus8 & 7,
                0,
            ]);
        }
        Self::parse(record.into())
    }

    pub fn codec_string(&self) -> String {
        let [profile, constraints, level] = self.profile;
        format!("avc1.{profile:02x}{constraints:02x}{level:02x}")
    }
}

/// Whether a NAL unit of this first byte is a slice of an IDR picture, at which decoding can begin.
pub const fn is_idr(header: u8) -> bool {
    header & 0x1f == NAL_IDR
}

/// A counted list of length-prefixed parameter sets off the front of `rest`.
fn parameter_sets<'a>(rest: &mut &'a [u8], count_mask: u8) -> Result<Vec<&'a [u8]>, AvcError> {
    let (&count, mut tail) = rest.split_first().ok_or(AvcError::Truncated)?;
    let mut sets = Vec::new();
    for _ in 0..count & count_mask {
        let (length, after) = tail.split_first_chunk().ok_or(AvcError::Truncated)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (set, after) = after.split_at_checked(length).ok_or(AvcError::Truncated)?;
        sets.push(set);
        tail = after;
    }
    *rest = tail;
    Ok(sets)
}

fn picture_size(sps: &SeqParameterSet) -> Result<(u16, u16), AvcError> {
    // 1024 macroblocks are 16 384 pixels: above any level (ITU-T H.264 table A-1), and safe to multiply.
    let (wide, high) = (sps.pic_width_in_mbs_minus1, sps.pic_height_in_map_units_minus1);
    if wide >= 1024 || high >= 1024 {
        return Err(AvcError::PictureSize(wide.saturating_mul(16), high.saturating_mul(16)));
    }
    let (width, height) = sps.pixel_dimensions().map_err(|e| AvcError::Sps(format!("{e:?}")))?;
    super::picture_size(width, height).ok_or(AvcError::PictureSize(width, height))
}

/// Two field ticks make a frame (ITU-T H.264 section E.2.1). `None`: nothing a frame rate could be.
fn frame_duration(num_units_in_tick: u32, time_scale: u32) -> Option<(u32, u32)> {
    super::frame_duration(num_units_in_tick.checked_mul(2)?, time_scale)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// x264, High@3.1, 1280x720, 30 fps, as sent over RTMP.
    pub(crate) const X264_720P30: &[u8] = &[
        0x01, 0x64, 0x00, 0x1f, 0xff, 0xe1, 0x00, 0x1a, 0x67, 0x64, 0x00, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb,
        0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x83, 0x19, 0x60, 0x01, 0x00,
        0x04, 0x68, 0xef, 0x8f, 0xcb, 0xfd, 0xf8, 0xf8, 0x00,
    ];

    fn parse(record: &[u8]) -> Result<AvcConfig, AvcError> {
        AvcConfig::parse(Bytes::copy_from_slice(record))
    }

    #[test]
    fn what_x264_sends() {
        let config = parse(X264_720P30).unwrap();
        assert_eq!((config.width, config.height), (1280, 720));
        assert_eq!(config.codec_string(), "avc1.64001f");
        assert_eq!(config.nal_length_size, 4);
        assert_eq!(config.sample_aspect, (1, 1));
        let (num, den) = config.frame_duration.unwrap();
        assert_eq!(num * 30, den);
    }

    #[test]
    fn a_record_without_parameter_sets_says_so() {
        assert_eq!(
            parse(&[1, 0x64, 0, 0x1f, 0xff, 0xe0, 0]),
            Err(AvcError::NoParameterSets)
        );
        let only_sps: Vec<u8> = X264_720P30[..34].iter().copied().chain([0]).collect();
        assert_eq!(parse(&only_sps), Err(AvcError::NoParameterSets));
    }

    #[test]
    fn lies_are_typed() {
        assert_eq!(parse(&[]), Err(AvcError::Truncated));
        assert_eq!(parse(&X264_720P30[..20]), Err(AvcError::Truncated));
        assert_eq!(parse(&[9, 0, 0, 0, 0xff, 0]), Err(AvcError::Version(9)));
        assert_eq!(parse(&[1, 0, 0, 0, 0xfe, 0]), Err(AvcError::NalLengthSize(3)));
        assert_eq!(parse(&vec![1; RECORD_MAX + 1]), Err(AvcError::TooLong(RECORD_MAX + 1)));
    }

    #[test]
    fn a_clock_is_not_mistaken_for_a_frame_rate() {
        assert_eq!(frame_duration(1001, 60_000), Some((2002, 60_000)));
        assert_eq!(frame_duration(1, 180_000), None);
        assert_eq!(frame_duration(0, 60), None);
        assert_eq!(frame_duration(u32::MAX, 60), None);
        assert_eq!(frame_duration(1, 0), None);
    }

    proptest! {
        #[test]
        fn no_change_of_a_record_panics(at in 0usize..45, to: u8, cut in 0usize..50) {
            let mut record = X264_720P30.to_vec();
            if let Some(byte) = record.get_mut(at) {
                *byte = to;
            }
            record.truncate(cut);
            let _ = parse(&record);
        }

        #[test]
        fn no_parameter_set_panics(sps in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut record = vec![1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, sps.len() as u8 + 4, 0x67, 0x64, 0, 0x1f];
            record.extend(&sps);
            record.extend([1, 0, 1, 0x68]);
            let _ = parse(&record);
        }
    }
}
