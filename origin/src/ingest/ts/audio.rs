//! AAC in ADTS (ISO/IEC 13818-7 section 6.2) and Opus (ETSI TS 102 366 annex, the "Opus in MPEG-TS" draft) as transport
//! streams carry them: frames out of PES payloads. Pure.
//!
//! Before this: `ts/pes.rs`. After this: `ingest/ts.rs`.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::codec::{
    CodecConfig,
    aac::{self, AacConfig},
    opus::{self, OpusConfig},
};

use super::TsError;

/// Longest ADTS frame: 13 bits tell it.
const ADTS_FRAME_MAX: usize = 1 << 13;
const ADTS_HEADER: usize = 7;
/// Most Opus packets in one PES packet.
const OPUS_PACKETS_MAX: usize = 64;

/// A frame of sound.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sound {
    /// The decoder configuration, if it is new.
    pub config: Option<CodecConfig>,
    pub data: Bytes,
    /// How long it lasts, in nanoseconds.
    pub nanos: i64,
    /// It began in the PES packet before, and so did its time.
    pub carried: bool,
}

/// Takes frames out of ADTS; a frame may go on in the next PES packet.
#[derive(Debug, Default)]
pub(super) struct Adts {
    /// Below [`ADTS_FRAME_MAX`] bytes.
    rest: BytesMut,
    header: Option<[u8; 4]>,
}

impl Adts {
    /// What is not whole is forgotten.
    pub(super) fn lost(&mut self) {
        self.rest.clear();
    }

    /// All frames that end in this payload.
    pub(super) fn read(&mut self, payload: &Bytes) -> Result<Vec<Sound>, TsError> {
        let carried_bytes = self.rest.len();
        let mut bytes = if carried_bytes == 0 {
            payload.clone()
        } else {
            self.rest.extend_from_slice(payload);
            self.rest.split().freeze()
        };
        let total = bytes.len();
        let mut sounds = Vec::new();
        loop {
            let at = total - bytes.len();
            let Some(&[a, b, c, d, e, f, g]) = bytes.first_chunk::<ADTS_HEADER>() else {
                break;
            };
            if a != 0xff || b & 0xf6 != 0xf0 {
                // Not where a frame begins: look for the next one.
                let next = bytes
                    .iter()
                    .skip(1)
                    .position(|&byte| byte == 0xff)
                    .map_or(bytes.len(), |at| at + 1);
                bytes.advance(next);
                continue;
            }
            let header = if b & 1 == 1 { ADTS_HEADER } else { ADTS_HEADER + 2 };
            let length = usize::from(d & 3) << 11 | usize::from(e) << 3 | usize::from(f >> 5);
            if length <= header {
                bytes.advance(1);
                continue;
            }
            if length > bytes.len() {
                break;
            }
            let frame = bytes.split_to(length);
            // Several raw blocks in one frame have no places of their own; encoders send one.
            if g & 3 != 0 {
                continue;
            }
            let (profile, rate_index) = (c >> 6, c >> 2 & 0x0f);
            let channels = (c & 1) << 2 | d >> 6;
            let asc = aac::specific_config(profile + 1, rate_index, channels);
            let config = AacConfig::parse(Bytes::copy_from_slice(&asc))?;
            let nanos = i64::from(config.frame_samples) * 1_000_000_000 / i64::from(config.sample_rate);
            let kept = [b, c & 0xfd, d & 0xc0, 0];
            let is_new = self.header != Some(kept);
            self.header = Some(kept);
            sounds.push(Sound {
                config: is_new.then_some(CodecConfig::Aac(config)),
                data: frame.slice(header..),
                nanos,
                carried: at < carried_bytes,
            });
        }
        if bytes.len() < ADTS_FRAME_MAX {
            self.rest.extend_from_slice(&bytes);
        }
        Ok(sounds)
    }
}

/// Takes packets out of the control headers that stand before each.
#[derive(Debug)]
pub(super) struct Opus {
    /// channel_config_code of the stream's descriptor.
    channels: u8,
    told: bool,
}

impl Opus {
    pub(super) fn new(channels: u8) -> Self {
        Self { channels, told: false }
    }

    pub(super) fn read(&mut self, payload: &Bytes) -> Result<Vec<Sound>, TsError> {
        let mut bytes = payload.clone();
        let mut sounds = Vec::new();
        while let Some(length) = take_control_header(&mut bytes) {
            if length > bytes.len() || sounds.len() >= OPUS_PACKETS_MAX {
                break;
            }
            let data = bytes.split_to(length);
            let Some(samples) = opus::packet_samples(&data) else {
                continue;
            };
            let config = match self.told {
                true => None,
                false => Some(CodecConfig::Opus(OpusConfig::of_channels(self.channels)?)),
            };
            self.told = true;
            sounds.push(Sound {
                config,
                data,
                nanos: i64::from(samples) * 1_000_000_000 / i64::from(opus::SAMPLE_RATE),
                carried: false,
            });
        }
        Ok(sounds)
    }
}

/// opus_control_header: eleven bits of mark, three flags, the length in bytes of 255 each, what the flags announce.
/// `None`: no such header.
fn take_control_header(bytes: &mut Bytes) -> Option<usize> {
    let &[high, low] = bytes.first_chunk()?;
    if high != 0x7f || low & 0xe0 != 0xe0 {
        return None;
    }
    bytes.advance(2);
    let mut length = 0usize;
    loop {
        let &byte = bytes.first()?;
        bytes.advance(1);
        length += usize::from(byte);
        if byte != 0xff {
            break;
        }
    }
    let trims = usize::from(low >> 4 & 1) + usize::from(low >> 3 & 1);
    let mut skip = trims * 2;
    if low & 0x04 != 0 {
        skip += 1 + usize::from(*bytes.get(skip)?);
    }
    (skip <= bytes.len()).then(|| bytes.advance(skip))?;
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ADTS frame of AAC-LC, 48 kHz, stereo.
    fn adts(data: &[u8]) -> Vec<u8> {
        let length = data.len() + ADTS_HEADER;
        let mut bytes = vec![
            0xff,
            0xf1,
            0x4c,
            0x80 | (length >> 11) as u8,
            (length >> 3) as u8,
            (length << 5) as u8 | 0x1f,
            0xfc,
        ];
        bytes.extend_from_slice(data);
        bytes
    }

    #[test]
    fn frames_of_adts() {
        let payload: Bytes = [adts(b"one"), adts(b"three")].concat().into();
        let mut reader = Adts::default();
        let sounds = reader.read(&payload).unwrap();
        assert_eq!(sounds.len(), 2);
        let Some(CodecConfig::Aac(config)) = &sounds[0].config else {
            panic!("no configuration")
        };
        assert_eq!(
            (config.sample_rate, config.channels, &config.asc[..]),
            (48_000, 2, &[0x11, 0x90][..])
        );
        assert_eq!((&sounds[0].data[..], &sounds[1].data[..]), (&b"one"[..], &b"three"[..]));
        assert_eq!((sounds[1].config.is_none(), sounds[1].nanos), (true, 21_333_333));
    }

    #[test]
    fn a_frame_goes_on_in_the_next_packet() {
        let bytes: Bytes = [adts(b"one"), adts(b"three"), adts(b"two")].concat().into();
        for cut in 0..bytes.len() {
            let mut reader = Adts::default();
            let mut sounds = reader.read(&bytes.slice(..cut)).unwrap();
            let before = sounds.len();
            sounds.extend(reader.read(&bytes.slice(cut..)).unwrap());
            let data: Vec<_> = sounds.iter().map(|sound| sound.data.clone()).collect();
            assert_eq!(data, ["one", "three", "two"], "{cut}");
            let begun = [0, 10, 22].into_iter().filter(|&at| at < cut).count();
            for (at, sound) in sounds.iter().enumerate() {
                assert_eq!(sound.carried, at >= before && at < begun, "{cut} {at}");
            }
        }
    }

    #[test]
    fn garbage_before_a_frame_is_passed_over() {
        let payload: Bytes = [vec![0xff, 0xff, 1, 2, 0xff, 0xf1, 0, 0, 0, 0, 0, 0], adts(b"one")]
            .concat()
            .into();
        let sounds = Adts::default().read(&payload).unwrap();
        assert_eq!(sounds.len(), 1);
        let mut reader = Adts::default();
        for _ in 0..100 {
            reader
                .read(&Bytes::from(vec![0xff, 0xf1, 0x4c, 0x83, 0xff, 0xff, 0xfc, 0]))
                .unwrap();
        }
        assert!(reader.rest.len() <= ADTS_FRAME_MAX);
    }

    #[test]
    fn packets_of_opus() {
        // Start trim of two bytes, a packet of 256 bytes, then one of three.
        let mut payload = vec![0x7f, 0xf0, 0xff, 0x01, 0, 9];
        payload.extend([0x78; 256]);
        payload.extend([0x7f, 0xe0, 0x03, 0x78, 1, 2]);
        let sounds = Opus::new(2).read(&payload.into()).unwrap();
        let lengths: Vec<_> = sounds.iter().map(|sound| sound.data.len()).collect();
        assert_eq!(lengths, [256, 3]);
        assert_eq!(sounds[0].nanos, 20_000_000);
        let Some(CodecConfig::Opus(config)) = &sounds[0].config else {
            panic!("no configuration")
        };
        assert_eq!((config.channels, config.mapping_family), (2, 0));
    }

    #[test]
    fn six_channels_of_opus_have_their_mapping() {
        let sounds = Opus::new(6)
            .read(&Bytes::from_static(&[0x7f, 0xe0, 0x01, 0x78]))
            .unwrap();
        let Some(CodecConfig::Opus(config)) = &sounds[0].config else {
            panic!("no configuration")
        };
        assert_eq!((config.channels, config.mapping_family), (6, 1));
        assert_eq!(&config.mapping[..], [4, 2, 0, 4, 1, 2, 3, 5]);
    }

    #[test]
    fn headers_that_lie_end_the_payload() {
        for bytes in [
            &[0x7f, 0xe0, 0xff][..],
            &[0x7f, 0xe4, 1, 200, 1],
            &[0x7f, 0xe0, 9, 1],
            &[0x7f],
            &[1, 2, 3],
        ] {
            assert_eq!(Opus::new(2).read(&Bytes::from_static(bytes)).unwrap(), [], "{bytes:?}");
        }
        assert!(matches!(
            Opus::new(77).read(&Bytes::from_static(&[0x7f, 0xe0, 0x01, 0x78])),
            Err(TsError::Opus(_))
        ));
    }
}
