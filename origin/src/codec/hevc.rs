//! H.265: the `HEVCDecoderConfigurationRecord` (ISO/IEC 14496-15 section 8.3.3.1) and what its parameter sets say. Pure.
//!
//! Before this: `ingest/flv.rs`, `ingest/ts/video.rs`. After this: `package/fmp4`.

use bytes::Bytes;

use super::{VideoRange, bits::Ended};

pub mod coding;
mod sps;

/// Longest record kept, in bytes: real ones have below 300, with SEI messages of encoders that like to talk 3 000.
const RECORD_MAX: usize = 16 << 10;
/// NAL unit types (ITU-T H.265 table 7-1).
const NAL_VPS: u8 = 32;
const NAL_SPS: u8 = 33;
const NAL_PPS: u8 = 34;
/// Pictures at which decoding can begin: broken link, instantaneous refresh, clean random access.
const NAL_RANDOM_ACCESS: std::ops::RangeInclusive<u8> = 16..=21;

/// A parsed H.265 decoder configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct HevcConfig {
    /// The record as the encoder sent it: the payload of the `hvcC` box.
    pub record: Bytes,
    /// Bytes of a NAL unit's length prefix: 1, 2 or 4.
    pub nal_length_size: u8,
    pub profile: Profile,
    /// Displayed (cropped) picture size in pixels.
    pub width: u16,
    pub height: u16,
    /// Sample aspect ratio, 1:1 when not said.
    pub sample_aspect: (u16, u16),
    /// Nominal frame duration from VUI timing as (numerator, denominator) of a second: 1001/30000.
    pub frame_duration: Option<(u32, u32)>,
    pub range: VideoRange,
}

/// Profile, tier and level of a record: what the codec string tells (14496-15 annex E.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// 0..=3.
    pub space: u8,
    /// True for the high tier.
    pub high_tier: bool,
    /// 1 = Main, 2 = Main 10.
    pub idc: u8,
    /// general_profile_compatibility_flags, the first flag in the most significant bit.
    pub compatibility: u32,
    /// general_constraint_indicator_flags.
    pub constraints: [u8; 6],
    /// Thirty times the level: 93 is 3.1.
    pub level_idc: u8,
}

/// Why a decoder configuration record was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HevcError {
    #[error("HEVC decoder configuration ends too early")]
    Truncated,
    #[error("HEVC decoder configuration of {0} bytes, at most {RECORD_MAX} are accepted")]
    TooLong(usize),
    #[error("HEVC decoder configuration version {0}, only 1 is known")]
    Version(u8),
    #[error("NAL unit length prefixes of {0} bytes, only 1, 2 and 4 are allowed")]
    NalLengthSize(u8),
    #[error("HEVC without parameter sets")]
    NoParameterSets,
    #[error("HEVC sequence parameter set is broken")]
    Sps,
    #[error("picture of {0}x{1} pixels")]
    PictureSize(u32, u32),
}

impl From<Ended> for HevcError {
    fn from(_: Ended) -> Self {
        Self::Sps
    }
}

impl HevcConfig {
    /// Reads a decoder configuration record.
    pub fn parse(record: Bytes) -> Result<Self, HevcError> {
        if record.len() > RECORD_MAX {
            return Err(HevcError::TooLong(record.len()));
        }
        let (head, arrays) = record.split_first_chunk::<23>().ok_or(HevcError::Truncated)?;
        let &[
            version,
            general,
            c0,
            c1,
            c2,
            c3,
            f0,
            f1,
            f2,
            f3,
            f4,
            f5,
            level_idc,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            lengths,
            array_count,
        ] = head;
        // Version 0 was written by early encoders for the same layout.
        if version > 1 {
            return Err(HevcError::Version(version));
        }
        let nal_length_size = (lengths & 3) + 1;
        if nal_length_size == 3 {
            return Err(HevcError::NalLengthSize(nal_length_size));
        }
        let sets = ParameterSets::read(arrays, array_count)?;
        let sps = sps::parse(sets.sps)?;
        Ok(Self {
            nal_length_size,
            profile: Profile {
                space: general >> 6,
                high_tier: general & 0x20 != 0,
                idc: general & 0x1f,
                compatibility: u32::from_be_bytes([c0, c1, c2, c3]),
                constraints: [f0, f1, f2, f3, f4, f5],
                level_idc,
            },
            width: sps.width,
            height: sps.height,
            sample_aspect: sps.sample_aspect,
            frame_duration: sps.frame_duration,
            range: sps.range,
            record,
        })
    }

    /// Makes the record of parameter sets that came by themselves, as in a transport stream: NAL units without start
    /// codes, the ones in force.
    pub fn from_sets(video: &[Bytes], sequence: &[Bytes], picture: &[Bytes]) -> Result<Self, HevcError> {
        let first = sequence.first().ok_or(HevcError::NoParameterSets)?;
        let shape = sps::shape(first)?;
        let mut record = vec![1];
        record.extend(shape.profile_tier_level);
        // No segmentation, parallelism or frame rate told; then the sample format.
        record.extend([0xf0, 0, 0xfc, 0xfc | shape.chroma]);
        record.extend([0xf8 | shape.luma_bits_minus8, 0xf8 | shape.chroma_bits_minus8, 0, 0]);
        record.push(shape.sub_layers << 3 | u8::from(shape.nested) << 2 | 3);
        record.push(3);
        for (kind, sets) in [(NAL_VPS, video), (NAL_SPS, sequence), (NAL_PPS, picture)] {
            let count = sets.len().min(usize::from(u8::MAX)) as u16;
            record.push(0x80 | kind);
            record.extend(count.to_be_bytes());
            for set in sets.iter().take(usize::from(count)) {
                let length = u16::try_from(set.len()).map_err(|_| HevcError::TooLong(set.len()))?;
                record.extend(length.to_be_bytes());
                record.extend_from_slice(set);
            }
        }
        Self::parse(record.into())
    }

    /// `hvc1.1.6.L93.90`: the sample entry keeps parameter sets in `hvcC`.
    pub fn codec_string(&self) -> String {
        let profile = &self.profile;
        let space = match profile.space {
            1 => "A",
            2 => "B",
            3 => "C",
            _ => "",
        };
        let tier = if profile.high_tier { 'H' } else { 'L' };
        let mut text = format!(
            "hvc1.{space}{}.{:X}.{tier}{}",
            profile.idc,
            profile.compatibility.reverse_bits(),
            profile.level_idc
        );
        let said = profile.constraints.iter().rposition(|&b| b != 0).map_or(0, |at| at + 1);
        for byte in profile.constraints.iter().take(said) {
            text.push_str(&format!(".{byte:X}"));
        }
        text
    }
}

/// The first of each kind; a decoder needs all three.
struct ParameterSets<'a> {
    sps: &'a [u8],
}

impl<'a> ParameterSets<'a> {
    fn read(arrays: &'a [u8], array_count: u8) -> Result<Self, HevcError> {
        let (mut vps, mut sps, mut pps) = (false, None, false);
        for unit in Self::units(arrays, array_count) {
            let (kind, unit) = unit?;
            match kind {
                NAL_VPS => vps = true,
                NAL_SPS => sps = sps.or(Some(unit)),
                NAL_PPS => pps = true,
                _ => {}
            }
        }
        match sps {
            Some(sps) if vps && pps => Ok(Self { sps }),
            _ => Err(HevcError::NoParameterSets),
        }
    }

    /// The NAL units of a record's arrays and their types. Ends after the first error.
    fn units(arrays: &'a [u8], array_count: u8) -> impl Iterator<Item = Result<(u8, &'a [u8]), HevcError>> {
        let mut rest = arrays;
        let mut arrays_left = array_count;
        let (mut kind, mut units_left) = (0, 0);
        let mut read = move || -> Result<Option<(u8, &'a [u8])>, HevcError> {
            while units_left == 0 {
                let Some(left) = arrays_left.checked_sub(1) else {
                    return Ok(None);
                };
                let (&[head, n0, n1], tail) = rest.split_first_chunk().ok_or(HevcError::Truncated)?;
                (arrays_left, kind, units_left) = (left, head & 0x3f, u16::from_be_bytes([n0, n1]));
                rest = tail;
            }
            let (length, tail) = rest.split_first_chunk().ok_or(HevcError::Truncated)?;
            let length = usize::from(u16::from_be_bytes(*length));
            let (unit, tail) = tail.split_at_checked(length).ok_or(HevcError::Truncated)?;
            rest = tail;
            units_left -= 1;
            Ok(Some((kind, unit)))
        };
        let mut failed = false;
        std::iter::from_fn(move || {
            if failed {
                return None;
            }
            let unit = read().transpose();
            failed = matches!(unit, Some(Err(_)));
            unit
        })
    }
}

/// Whether a NAL unit of this first byte belongs to a picture at which decoding can begin. Clean random access counts
/// (14496-15 section 8.4.3 calls it a sync sample): encoders that let pictures refer across it send nothing else.
pub const fn is_random_access(header: u8) -> bool {
    let nal_type = header >> 1 & 0x3f;
    nal_type >= *NAL_RANDOM_ACCESS.start() && nal_type <= *NAL_RANDOM_ACCESS.end()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// x265, Main@3, 640x360, 30000/1001 fps, as sent over RTMP.
    pub(crate) const X265_360P30: &[u8] = &[
        0x01, 0x01, 0x60, 0x00, 0x00, 0x00, 0x90, 0x00, 0x00, 0x00, 0x00, 0x00, 0x3f, 0xf0, 0x00, 0xfc, 0xfd, 0xf8,
        0xf8, 0x00, 0x00, 0x0f, 0x03, 0x20, 0x00, 0x01, 0x00, 0x18, 0x40, 0x01, 0x0c, 0x01, 0xff, 0xff, 0x01, 0x60,
        0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00, 0x3f, 0x95, 0x90, 0x09, 0x21, 0x00,
        0x01, 0x00, 0x29, 0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00,
        0x03, 0x00, 0x3f, 0xa0, 0x05, 0x02, 0x01, 0x71, 0xf2, 0xe5, 0x95, 0x91, 0x29, 0x30, 0xbc, 0x05, 0xa0, 0x20,
        0x00, 0x00, 0x7d, 0x20, 0x00, 0x0e, 0xa6, 0x01, 0x22, 0x00, 0x01, 0x00, 0x06, 0x44, 0x01, 0xc0, 0x73, 0xc1,
        0x89,
    ];

    fn parse(record: &[u8]) -> Result<HevcConfig, HevcError> {
        HevcConfig::parse(Bytes::copy_from_slice(record))
    }

    #[test]
    fn what_x265_sends() {
        let config = parse(X265_360P30).unwrap();
        assert_eq!((config.width, config.height), (640, 360));
        assert_eq!(config.codec_string(), "hvc1.1.6.L63.90");
        assert_eq!((config.nal_length_size, config.sample_aspect), (4, (1, 1)));
        assert_eq!(config.frame_duration, Some((1001, 30_000)));
        assert_eq!(config.range, VideoRange::Sdr);
    }

    #[test]
    fn the_codec_string_names_tier_space_and_constraints() {
        let mut config = parse(X265_360P30).unwrap();
        config.profile = Profile {
            space: 1,
            high_tier: true,
            idc: 2,
            compatibility: 0x2000_0000,
            constraints: [0xb0, 0, 0x80, 0, 0, 0],
            level_idc: 153,
        };
        assert_eq!(config.codec_string(), "hvc1.A2.4.H153.B0.0.80");
        config.profile.constraints = [0; 6];
        assert_eq!(config.codec_string(), "hvc1.A2.4.H153");
    }

    #[test]
    fn lies_are_typed() {
        assert_eq!(parse(&[]), Err(HevcError::Truncated));
        for cut in [22, 24, 30, 60, X265_360P30.len() - 1] {
            assert_eq!(parse(&X265_360P30[..cut]), Err(HevcError::Truncated), "{cut}");
        }
        let changed = |at: usize, to: u8| {
            let mut record = X265_360P30.to_vec();
            record[at] = to;
            parse(&record)
        };
        assert_eq!(changed(0, 2), Err(HevcError::Version(2)));
        assert_eq!(changed(21, 2), Err(HevcError::NalLengthSize(3)));
        assert_eq!(changed(22, 2), Err(HevcError::NoParameterSets));
        assert_eq!(changed(23, 39), Err(HevcError::NoParameterSets));
        assert_eq!(parse(&[0; 17 << 10]), Err(HevcError::TooLong(17 << 10)));
    }

    #[test]
    fn decoding_begins_at_random_access_pictures() {
        for (nal_type, begins) in [
            (0, false),
            (1, false),
            (15, false),
            (16, true),
            (19, true),
            (20, true),
            (21, true),
        ] {
            assert_eq!(is_random_access(nal_type << 1), begins, "{nal_type}");
        }
        assert!(!is_random_access(NAL_VPS << 1));
    }

    proptest! {
        #[test]
        fn no_record_panics(
            damage in prop::collection::vec((0usize..200, any::<u8>()), 0..12),
            cut in 0usize..200,
        ) {
            let mut record = X265_360P30.to_vec();
            for (at, to) in damage {
                if let Some(byte) = record.get_mut(at) {
                    *byte = to;
                }
            }
            record.truncate(cut);
            if let Ok(config) = parse(&record) {
                prop_assert!(config.width > 0 && config.height > 0);
                let _ = config.codec_string();
            }
        }
    }
}
