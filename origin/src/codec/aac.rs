//! AAC: the `AudioSpecificConfig` (ISO/IEC 14496-3 section 1.6.2.1). Pure.
//!
//! Before this: `ingest/flv.rs`, `ingest/ts/audio.rs`. After this: `package/fmp4`.

use bytes::Bytes;

use super::bits::{Bits, Ended};

/// Rates by `samplingFrequencyIndex` (ISO/IEC 14496-3 table 1.18), in Hz.
const SAMPLE_RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
];
/// The index that says that the rate itself follows in 24 bits.
const EXPLICIT_RATE: u32 = 15;
/// Rates we take, in Hz: the rate is the track's timescale.
const RATE_RANGE: std::ops::RangeInclusive<u32> = 4_000..=192_000;
/// Longest configuration kept, in bytes: real ones have 2 to 7.
const ASC_MAX: usize = 256;

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

/// Why an AudioSpecificConfig was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AacError {
    #[error("AudioSpecificConfig ends too early")]
    Truncated,
    #[error("AudioSpecificConfig of {0} bytes, at most {ASC_MAX} are accepted")]
    TooLong(usize),
    #[error("audio object type {0} is not supported, AAC-LC, HE-AAC and HE-AAC v2 are")]
    ObjectType(u32),
    #[error("AAC sampling rate index {0} is reserved")]
    RateIndex(u32),
    #[error("AAC sampling rate of {0} Hz is out of range")]
    Rate(u32),
    #[error("AAC channel configuration {0} is not supported")]
    Channels(u32),
}

impl From<Ended> for AacError {
    fn from(_: Ended) -> Self {
        Self::Truncated
    }
}

impl AacConfig {
    /// Reads an AudioSpecificConfig.
    pub fn parse(asc: Bytes) -> Result<Self, AacError> {
        if asc.len() > ASC_MAX {
            return Err(AacError::TooLong(asc.len()));
        }
        let mut bits = Bits::new(&asc);
        let signalled = take_object_type(&mut bits)?;
        let sample_rate = take_rate(&mut bits)?;
        let channel_configuration = bits.take(4)?;
        let mut core = signalled;
        if matches!(signalled, 5 | 29) {
            // Hierarchical signalling: the rate above is the core's, the one here that of the output.
            take_rate(&mut bits)?;
            core = take_object_type(&mut bits)?;
        }
        // Main, LC, SSR, LTP share the GASpecificConfig that follows (section 4.4.1).
        if !(1..=4).contains(&core) {
            return Err(AacError::ObjectType(core));
        }
        let channels = match channel_configuration {
            n @ 1..=6 => n as u8,
            7 => 8,
            // 0: the layout stands in a program config element, which no live encoder sends.
            n => return Err(AacError::Channels(n)),
        };
        let frame_samples = if bits.take(1)? == 1 { 960 } else { 1024 };
        Ok(Self {
            object_type: signalled as u8,
            sample_rate,
            channels,
            frame_samples,
            asc,
        })
    }

    pub fn codec_string(&self) -> String {
        format!("mp4a.40.{}", self.object_type)
    }
}

/// The AudioSpecificConfig of a plain object type (1..=4), sampling rate index and channel configuration: what an ADTS
/// header tells (ISO/IEC 13818-7 section 6.2.1).
pub const fn specific_config(object_type: u8, rate_index: u8, channels: u8) -> [u8; 2] {
    [
        object_type << 3 | rate_index >> 1 & 7,
        rate_index << 7 | (channels & 0x0f) << 3,
    ]
}

/// Five bits, or eleven for the rarer ones (section 1.6.2.1).
fn take_object_type(bits: &mut Bits<'_>) -> Result<u32, AacError> {
    match bits.take(5)? {
        31 => Ok(32 + bits.take(6)?),
        object_type => Ok(object_type),
    }
}

fn take_rate(bits: &mut Bits<'_>) -> Result<u32, AacError> {
    let rate = match bits.take(4)? {
        EXPLICIT_RATE => bits.take(24)?,
        index => *SAMPLE_RATES.get(index as usize).ok_or(AacError::RateIndex(index))?,
    };
    if RATE_RANGE.contains(&rate) {
        Ok(rate)
    } else {
        Err(AacError::Rate(rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(asc: &[u8]) -> Result<AacConfig, AacError> {
        AacConfig::parse(Bytes::copy_from_slice(asc))
    }

    /// A configuration from (value, bits) fields.
    fn built(fields: &[(u32, usize)]) -> Vec<u8> {
        let bits: String = fields.iter().map(|(v, n)| format!("{v:0n$b}")).collect();
        bits.as_bytes()
            .chunks(8)
            .map(|byte| {
                let text = String::from_utf8_lossy(byte);
                u8::from_str_radix(&format!("{text:0<8}"), 2).unwrap()
            })
            .collect()
    }

    #[test]
    fn what_encoders_send_for_lc() {
        let stereo = parse(&[0x11, 0x90, 0x56, 0xe5, 0x00]).unwrap();
        assert_eq!(
            (stereo.sample_rate, stereo.channels, stereo.frame_samples),
            (48_000, 2, 1024)
        );
        assert_eq!(stereo.codec_string(), "mp4a.40.2");
        let mono = parse(&[0x12, 0x08]).unwrap();
        assert_eq!((mono.sample_rate, mono.channels), (44_100, 1));
    }

    #[test]
    fn he_aac_keeps_the_core_rate() {
        // SBR: core 24 kHz, output 48 kHz, core type LC.
        let sbr = parse(&built(&[(5, 5), (6, 4), (2, 4), (3, 4), (2, 5), (0, 3)])).unwrap();
        assert_eq!((sbr.sample_rate, sbr.object_type), (24_000, 5));
        let ps = parse(&built(&[(29, 5), (7, 4), (1, 4), (4, 4), (2, 5), (0, 3)])).unwrap();
        assert_eq!((ps.sample_rate, ps.codec_string().as_str()), (22_050, "mp4a.40.29"));
    }

    #[test]
    fn an_explicit_rate_and_short_frames() {
        let asc = built(&[(2, 5), (15, 4), (47_952, 24), (2, 4), (1, 1), (0, 2)]);
        let config = parse(&asc).unwrap();
        assert_eq!((config.sample_rate, config.frame_samples), (47_952, 960));
    }

    #[test]
    fn lies_are_typed() {
        assert_eq!(parse(&[]), Err(AacError::Truncated));
        assert_eq!(parse(&[0x11]), Err(AacError::Truncated));
        let asc = built(&[(2, 5), (13, 4), (2, 4), (0, 3)]);
        assert_eq!(parse(&asc), Err(AacError::RateIndex(13)));
        let asc = built(&[(2, 5), (15, 4), (0, 24), (2, 4), (0, 3)]);
        assert_eq!(parse(&asc), Err(AacError::Rate(0)));
        let asc = built(&[(2, 5), (3, 4), (0, 4), (0, 3)]);
        assert_eq!(parse(&asc), Err(AacError::Channels(0)));
        let asc = built(&[(31, 5), (10, 6), (3, 4), (2, 4), (0, 3)]);
        assert_eq!(parse(&asc), Err(AacError::ObjectType(42)));
        assert_eq!(parse(&[0; 300]), Err(AacError::TooLong(300)));
    }
}
