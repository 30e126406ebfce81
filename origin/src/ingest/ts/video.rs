//! H.264 and HEVC as transport streams carry them, with start codes (Annex B of both), become access units with length
//! prefixes and decoder configurations. Pure.
//!
//! One PES packet holds one access unit, as every encoder sends them. Parameter sets go to the configuration, which is
//! where an `avc1` or `hvc1` sample entry has them; delimiters and stuffing are left out.
//!
//! Before this: `ts/pes.rs`. After this: `ingest/ts.rs`.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::codec::{
    CodecConfig,
    avc::{self, AvcConfig},
    hevc::{self, HevcConfig},
};

use super::TsError;

/// Most parameter sets of a kind, and longest, in bytes.
const SETS_MAX: usize = 16;
const SET_BYTES_MAX: usize = 4096;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syntax {
    Avc,
    Hevc,
}

/// What a NAL unit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Index into [`Sets`].
    ParameterSet(usize),
    /// Delimiters, ends, stuffing.
    LeftOut,
    /// A slice; true if decoding can begin with it.
    Slice(bool),
    /// Kept as it is: SEI and the like.
    Other,
}

impl Syntax {
    fn purpose(self, header: u8) -> Purpose {
        match self {
            Self::Avc => match header & 0x1f {
                7 => Purpose::ParameterSet(1),
                8 => Purpose::ParameterSet(2),
                9..=13 => Purpose::LeftOut,
                1..=4 => Purpose::Slice(false),
                _ if avc::is_idr(header) => Purpose::Slice(true),
                _ => Purpose::Other,
            },
            Self::Hevc => match header >> 1 & 0x3f {
                kind @ 32..=34 => Purpose::ParameterSet(usize::from(kind - 32)),
                35..=38 => Purpose::LeftOut,
                0..=31 => Purpose::Slice(hevc::is_random_access(header)),
                _ => Purpose::Other,
            },
        }
    }
}

/// Parameter sets of a stream: video (HEVC only), sequence, picture.
type Sets = [Vec<Bytes>; 3];

/// What a PES packet amounts to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Unit {
    /// The decoder configuration, if it is new.
    pub config: Option<CodecConfig>,
    /// The access unit; empty if the packet had no slice.
    pub data: Bytes,
    pub key: bool,
}

/// Remembers the parameter sets in force.
#[derive(Debug)]
pub(crate) struct Reader {
    syntax: Syntax,
    sets: Sets,
}

impl Reader {
    pub(crate) fn new(syntax: Syntax) -> Self {
        Self {
            syntax,
            sets: Sets::default(),
        }
    }

    /// Takes the payload of a PES packet apart.
    pub(crate) fn read(&mut self, payload: &Bytes) -> Result<Unit, TsError> {
        let mut found = Sets::default();
        let mut slices = false;
        let mut unit = Unit::default();
        // A start code is at least three bytes, a prefix is four: one more per unit at most.
        let mut data = BytesMut::with_capacity(payload.len() + 64);
        for nal in nal_units(payload) {
            let Some(&header) = nal.first() else { continue };
            match self.syntax.purpose(header) {
                Purpose::ParameterSet(kind) => {
                    let sets = found.get_mut(kind);
                    if let Some(sets) = sets.filter(|sets| sets.len() < SETS_MAX && nal.len() <= SET_BYTES_MAX) {
                        sets.push(Bytes::copy_from_slice(nal));
                    }
                }
                Purpose::LeftOut => {}
                purpose => {
                    if let Purpose::Slice(key) = purpose {
                        slices = true;
                        unit.key |= key;
                    }
                    data.put_u32(nal.len() as u32);
                    data.extend_from_slice(nal);
                }
            }
        }
        if self.merge(found) {
            unit.config = self.config()?;
        }
        if slices {
            unit.data = data.freeze();
        }
        Ok(unit)
    }

    /// Sets that come with a sequence set replace all there were; others are added. True if that changed anything.
    fn merge(&mut self, found: Sets) -> bool {
        let mut changed = false;
        let begins_anew = !found[1].is_empty();
        for (kept, found) in self.sets.iter_mut().zip(found) {
            if found.is_empty() {
                continue;
            }
            if begins_anew {
                changed |= *kept != found;
                *kept = found;
                continue;
            }
            for set in found {
                if !kept.contains(&set) && kept.len() < SETS_MAX {
                    kept.push(set);
                    changed = true;
                }
            }
        }
        changed
    }

    /// `None` as long as sets are missing.
    fn config(&self) -> Result<Option<CodecConfig>, TsError> {
        let [video, sequence, picture] = &self.sets;
        let is_complete = !sequence.is_empty() && !picture.is_empty();
        Ok(match self.syntax {
            Syntax::Avc if is_complete => Some(CodecConfig::Avc(AvcConfig::from_sets(sequence, picture)?)),
            Syntax::Hevc if is_complete && !video.is_empty() => {
                Some(CodecConfig::Hevc(HevcConfig::from_sets(video, sequence, picture)?))
            }
            _ => None,
        })
    }
}

/// NAL units between start codes, without the zeros that may stand before the next one (Annex B.2).
fn nal_units(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut codes = memchr::memmem::find_iter(stream, &[0, 0, 1]).peekable();
    std::iter::from_fn(move || {
        let begin = codes.next()? + 3;
        let end = codes.peek().copied().unwrap_or(stream.len());
        let nal = stream.get(begin..end)?;
        let zeros = nal.iter().rev().take_while(|&&byte| byte == 0).count();
        nal.get(..nal.len() - zeros)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{avc::tests::X264_720P30, hevc::tests::X265_360P30};

    /// NAL units of a decoder configuration record that begins with so many bytes before its first length.
    fn sets_of(record: &[u8], lengths: &[usize]) -> Vec<Vec<u8>> {
        lengths
            .iter()
            .map(|&at| {
                let length = usize::from(u16::from_be_bytes([record[at], record[at + 1]]));
                record[at + 2..at + 2 + length].to_vec()
            })
            .collect()
    }

    fn annex_b(units: &[&[u8]]) -> Bytes {
        let mut bytes = Vec::new();
        for unit in units {
            bytes.extend([0, 0, 0, 1]);
            bytes.extend_from_slice(unit);
        }
        bytes.into()
    }

    #[test]
    fn an_h264_key_frame_brings_its_configuration() {
        let sets = sets_of(X264_720P30, &[6, 35]);
        let mut reader = Reader::new(Syntax::Avc);
        let payload = annex_b(&[&[9, 0xf0], &sets[0], &sets[1], &[6, 5, 1], &[0x65, 1, 2, 3]]);
        let unit = reader.read(&payload).unwrap();
        assert!(unit.key);
        assert_eq!(&unit.data[..], [0, 0, 0, 3, 6, 5, 1, 0, 0, 0, 4, 0x65, 1, 2, 3]);
        let Some(CodecConfig::Avc(config)) = unit.config else {
            panic!("no configuration")
        };
        assert_eq!(config.record, X264_720P30, "the record that x264 writes for FLV");
        // The same again is nothing new.
        assert_eq!(reader.read(&payload).unwrap().config, None);
        let next = reader.read(&annex_b(&[&[0x41, 9, 9]])).unwrap();
        assert_eq!((next.key, next.config, next.data.len()), (false, None, 7));
    }

    #[test]
    fn hevc_needs_all_three_sets() {
        let sets = sets_of(X265_360P30, &[26, 55, 101]);
        let mut reader = Reader::new(Syntax::Hevc);
        let some = annex_b(&[&sets[1], &sets[2], &[0x26, 1, 7]]);
        assert_eq!(reader.read(&some).unwrap().config, None);
        let unit = reader
            .read(&annex_b(&[&sets[0], &sets[1], &sets[2], &[0x26, 1, 7]]))
            .unwrap();
        assert!(unit.key);
        let Some(CodecConfig::Hevc(config)) = unit.config else {
            panic!("no configuration")
        };
        assert_eq!(config.codec_string(), "hvc1.1.6.L63.90");
        assert_eq!((config.width, config.height), (640, 360));
    }

    #[test]
    fn another_sequence_set_replaces_and_another_picture_set_adds() {
        let sets = sets_of(X264_720P30, &[6, 35]);
        let mut reader = Reader::new(Syntax::Avc);
        reader.read(&annex_b(&[&sets[0], &sets[1]])).unwrap();
        let added = reader.read(&annex_b(&[&[0x68, 1, 2, 3], &[0x41, 1]])).unwrap();
        assert!(added.config.is_some());
        assert_eq!(reader.sets[2].len(), 2);
        let mut other = sets[0].clone();
        other[3] = 0x28;
        let anew = reader.read(&annex_b(&[&other, &sets[1], &[0x65, 1]])).unwrap();
        assert_eq!(anew.config.unwrap().codec_string(), "avc1.640028");
        assert_eq!(reader.sets[2].len(), 1);
    }

    #[test]
    fn start_codes_of_three_and_four_bytes_and_trailing_zeros() {
        let units: Vec<&[u8]> = nal_units(&[9, 9, 0, 0, 1, 5, 6, 0, 0, 0, 1, 7, 0, 0, 0]).collect();
        assert_eq!(units, [&[5, 6][..], &[7]]);
        assert_eq!(nal_units(&[0, 0]).count(), 0);
        assert_eq!(nal_units(&[0, 0, 1]).collect::<Vec<_>>(), [&[] as &[u8]]);
    }

    #[test]
    fn a_set_that_is_broken_is_an_error_with_its_name() {
        let mut reader = Reader::new(Syntax::Avc);
        let broken = annex_b(&[&[0x67, 1], &[0x68, 1, 2], &[0x65, 1]]);
        assert!(matches!(reader.read(&broken), Err(TsError::Avc(_))));
    }
}
