//! Opus: the identification header (RFC 7845 section 5.1), its ISO form `dOps`, and how long a packet lasts. Pure.
//!
//! Before this: `ingest/flv.rs`, `ingest/ts/audio.rs`. After this: `package/fmp4`.

use bytes::Bytes;

/// Opus is timed in these units whatever the encoder's input was (RFC 7845 section 4), in Hz.
pub const SAMPLE_RATE: u32 = 48_000;
/// What live encoders send unless told otherwise: 20 ms, in samples at [`SAMPLE_RATE`].
pub const USUAL_PACKET_SAMPLES: u32 = 960;
/// Longest packet that Opus allows (RFC 6716 section 3.2.5): 120 ms, in samples at [`SAMPLE_RATE`].
const PACKET_SAMPLES_MAX: u32 = 5_760;
/// Longest header kept, in bytes: 255 channels with their mapping have 276.
const HEADER_MAX: usize = 512;
/// Channels that are taken: RFC 7845 section 5.1.1.2 names layouts up to eight.
const CHANNELS_MAX: u8 = 8;

/// A parsed Opus identification header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpusConfig {
    /// The header as the encoder sent it, `OpusHead` included.
    pub head: Bytes,
    /// 1..=8.
    pub channels: u8,
    /// Samples at [`SAMPLE_RATE`] that a decoder needs before its output is right.
    pub pre_skip: u16,
    /// Of what was encoded, in Hz; informative, may be 0.
    pub input_sample_rate: u32,
    /// Q7.8 dB to be applied to the output.
    pub output_gain: i16,
    /// 0: mono or stereo; 1: up to eight channels in Vorbis order; others have no defined order.
    pub mapping_family: u8,
    /// Stream count, coupled count and one byte per channel; empty for family 0.
    pub mapping: Bytes,
}

/// Why an Opus header was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpusError {
    #[error("Opus header ends too early")]
    Truncated,
    #[error("Opus header of {0} bytes, at most {HEADER_MAX} are accepted")]
    TooLong(usize),
    #[error("Opus header does not begin with \"OpusHead\"")]
    NoMagic,
    #[error("Opus header version {0}, only 1 is known")]
    Version(u8),
    #[error("Opus with {0} channels, 1 to {CHANNELS_MAX} are supported")]
    Channels(u8),
    #[error("Opus channel mapping names streams that are not there")]
    Mapping,
}

impl OpusConfig {
    /// Reads an identification header.
    pub fn parse(head: Bytes) -> Result<Self, OpusError> {
        if head.len() > HEADER_MAX {
            return Err(OpusError::TooLong(head.len()));
        }
        let fields = head.strip_prefix(b"OpusHead").ok_or(OpusError::NoMagic)?;
        let Some((&[version, channels, s0, s1, r0, r1, r2, r3, g0, g1, mapping_family], mapping)) =
            fields.split_first_chunk()
        else {
            return Err(OpusError::Truncated);
        };
        // The upper half of the byte is the major version (section 5.1).
        if version >> 4 != 0 || version == 0 {
            return Err(OpusError::Version(version));
        }
        if !(1..=CHANNELS_MAX).contains(&channels) {
            return Err(OpusError::Channels(channels));
        }
        let mapping = match mapping_family {
            0 if channels > 2 => return Err(OpusError::Channels(channels)),
            0 => Bytes::new(),
            _ => head.slice_ref(channel_mapping(mapping, channels)?),
        };
        Ok(Self {
            channels,
            pre_skip: u16::from_le_bytes([s0, s1]),
            input_sample_rate: u32::from_le_bytes([r0, r1, r2, r3]),
            output_gain: i16::from_le_bytes([g0, g1]),
            mapping_family,
            mapping,
            head,
        })
    }

    /// The header of so many channels in the usual order (RFC 7845 section 5.1.1.2), for transport streams, which tell no
    /// more. Their times are those of the decoded sound: nothing is to be skipped.
    pub fn of_channels(channels: u8) -> Result<Self, OpusError> {
        let mapping: &[u8] = match channels {
            1 | 2 => &[],
            3 => &[2, 1, 0, 2, 1],
            4 => &[2, 2, 0, 1, 2, 3],
            5 => &[3, 2, 0, 4, 1, 2, 3],
            6 => &[4, 2, 0, 4, 1, 2, 3, 5],
            7 => &[4, 3, 0, 4, 1, 2, 3, 5, 6],
            8 => &[5, 3, 0, 6, 1, 2, 3, 4, 5, 7],
            other => return Err(OpusError::Channels(other)),
        };
        let mut head = b"OpusHead".to_vec();
        head.extend([1, channels, 0, 0]);
        head.extend(SAMPLE_RATE.to_le_bytes());
        head.extend([0, 0, u8::from(channels > 2)]);
        head.extend_from_slice(mapping);
        Self::parse(head.into())
    }

    /// The payload of a `dOps` box (Encapsulation of Opus in ISO Base Media File Format, section 4.3.2): the same
    /// fields in big-endian order, version 0, without the magic.
    pub fn dops(&self) -> Vec<u8> {
        let mut out = vec![0, self.channels];
        out.extend(self.pre_skip.to_be_bytes());
        out.extend(self.input_sample_rate.to_be_bytes());
        out.extend(self.output_gain.to_be_bytes());
        out.push(self.mapping_family);
        out.extend_from_slice(&self.mapping);
        out
    }

    pub fn codec_string(&self) -> String {
        "opus".to_owned()
    }
}

/// Stream count, coupled count, then for each channel the stream it comes from (RFC 7845 section 5.1.1).
fn channel_mapping(bytes: &[u8], channels: u8) -> Result<&[u8], OpusError> {
    let mapping = bytes.get(..2 + usize::from(channels)).ok_or(OpusError::Truncated)?;
    let (&[streams, coupled], sources) = mapping.split_first_chunk().ok_or(OpusError::Truncated)?;
    let decoded = u16::from(streams) + u16::from(coupled);
    let exists = |&source: &u8| source == u8::MAX || u16::from(source) < decoded;
    if streams == 0 || coupled > streams || decoded > 255 || !sources.iter().all(exists) {
        return Err(OpusError::Mapping);
    }
    Ok(mapping)
}

/// How long a packet lasts, in samples at [`SAMPLE_RATE`], from its first two bytes (RFC 6716 section 3.1). `None`: no
/// Opus packet.
pub fn packet_samples(packet: &[u8]) -> Option<u32> {
    let (&toc, rest) = packet.split_first()?;
    let frame = match toc >> 3 {
        silk @ 0..=11 => [480, 960, 1920, 2880][usize::from(silk % 4)],
        hybrid @ 12..=15 => [480, 960][usize::from(hybrid % 2)],
        celt => [120, 240, 480, 960][usize::from(celt % 4)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(rest.first()? & 0x3f),
    };
    let samples = frame * frames;
    (1..=PACKET_SAMPLES_MAX).contains(&samples).then_some(samples)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// libopus, mono.
    pub(crate) const LIBOPUS_MONO: &[u8] = b"OpusHead\x01\x01\x38\x01\x80\xbb\0\0\0\0\0";
    /// libopus, 5.1.
    const LIBOPUS_SURROUND: &[u8] = b"OpusHead\x01\x06\x38\x01\x80\xbb\0\0\0\0\x01\x04\x02\0\x04\x01\x02\x03\x05";

    fn parse(head: &[u8]) -> Result<OpusConfig, OpusError> {
        OpusConfig::parse(Bytes::copy_from_slice(head))
    }

    #[test]
    fn what_libopus_sends() {
        let mono = parse(LIBOPUS_MONO).unwrap();
        assert_eq!((mono.channels, mono.pre_skip, mono.input_sample_rate), (1, 312, 48_000));
        assert_eq!(mono.codec_string(), "opus");
        assert_eq!(mono.dops(), [0, 1, 0x01, 0x38, 0, 0, 0xbb, 0x80, 0, 0, 0]);
        let surround = parse(LIBOPUS_SURROUND).unwrap();
        assert_eq!((surround.channels, surround.mapping_family), (6, 1));
        assert_eq!(surround.dops()[10..], [1, 4, 2, 0, 4, 1, 2, 3, 5]);
    }

    #[test]
    fn lies_are_typed() {
        assert_eq!(parse(b"OpusTags"), Err(OpusError::NoMagic));
        assert_eq!(parse(&LIBOPUS_MONO[..18]), Err(OpusError::Truncated));
        assert_eq!(parse(&[0; 600]), Err(OpusError::TooLong(600)));
        let changed = |at: usize, to: u8| {
            let mut head = LIBOPUS_SURROUND.to_vec();
            head[at] = to;
            parse(&head)
        };
        assert_eq!(changed(8, 16), Err(OpusError::Version(16)));
        assert_eq!(changed(9, 0), Err(OpusError::Channels(0)));
        assert_eq!(changed(9, 9), Err(OpusError::Channels(9)));
        assert_eq!(changed(9, 8), Err(OpusError::Truncated));
        assert_eq!(changed(18, 0), Err(OpusError::Channels(6)));
        for (at, to) in [(19, 0), (20, 5), (21, 6)] {
            assert_eq!(changed(at, to), Err(OpusError::Mapping), "{at}");
        }
        // A silent channel comes from no stream.
        assert!(changed(21, 255).is_ok());
    }

    #[test]
    fn packets_tell_how_long_they_last() {
        // CELT 20 ms; CELT 2.5 ms; hybrid 10 ms twice; SILK 60 ms twice.
        for (packet, samples) in [
            (&[0xfc, 0xff][..], 960),
            (&[0xe0], 120),
            (&[0x61, 0], 960),
            (&[0x1a, 0], 5_760),
            (&[0xff, 0x03], 2_880),
        ] {
            assert_eq!(packet_samples(packet), Some(samples), "{packet:?}");
        }
        for none in [&[][..], &[0xff], &[0xff, 0x00], &[0x1b, 0x03]] {
            assert_eq!(packet_samples(none), None, "{none:?}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(tail in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(config) = parse(&[b"OpusHead\x01", &tail[..]].concat()) {
                prop_assert!((1..=8).contains(&config.channels));
                prop_assert_eq!(config.dops().len(), 11 + config.mapping.len());
            }
            let _ = packet_samples(&tail);
        }
    }
}
