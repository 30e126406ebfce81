//! The tables that say what a transport stream carries: PAT and PMT (ISO/IEC 13818-1 section 2.4.4). Pure.
//!
//! Before this: `ts/packet.rs`. After this: `ingest/ts.rs`, which opens a track for each stream that is understood.

use crc::{CRC_32_MPEG_2, Crc};

use super::packet::{Packet, Pid};
use crate::{ingest::language::Language, package::frame::TrackKind};

/// PID of the program association table.
pub(super) const PAT_PID: Pid = 0;
const PAT_TABLE: u8 = 0;
const PMT_TABLE: u8 = 2;
/// Longest section of either table, in bytes (section 2.4.4.4 and 2.4.4.9).
const SECTION_MAX: usize = 1024;
/// Bytes of a section before its table id extension, and of its checksum.
const SECTION_HEADER: usize = 3;
const CHECKSUM_BYTES: usize = 4;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_MPEG_2);

/// Puts the sections of one PID together.
#[derive(Debug, Default)]
pub(super) struct Sections {
    /// At most [`SECTION_MAX`] bytes and one packet.
    bytes: Vec<u8>,
    /// A section began and its beginning was seen.
    open: bool,
}

/// A section whose checksum is right: table id, and what stands between the section number and the checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    pub table: u8,
    pub body: Vec<u8>,
}

impl Sections {
    /// Something is missing: what is not whole is forgotten.
    pub(super) fn lost(&mut self) {
        self.bytes.clear();
        self.open = false;
    }

    /// The first whole and current section that ends in this packet. Tables here have one section; further ones in the
    /// same packet repeat them.
    pub(super) fn push(&mut self, packet: &Packet<'_>) -> Option<Section> {
        let mut payload = packet.payload;
        if packet.starts {
            // pointer_field: so many bytes belong to the section before.
            let (&before, rest) = payload.split_first()?;
            let (end, rest) = rest.split_at_checked(usize::from(before))?;
            let finished = if self.open {
                self.bytes.extend_from_slice(end);
                self.take()
            } else {
                None
            };
            self.bytes.clear();
            self.open = true;
            if finished.is_some() {
                self.bytes.extend_from_slice(rest);
                return finished;
            }
            payload = rest;
        }
        if !self.open {
            return None;
        }
        self.bytes.extend_from_slice(payload);
        self.take()
    }

    fn take(&mut self) -> Option<Section> {
        let &[table, high, low] = self.bytes.first_chunk::<SECTION_HEADER>()?;
        let length = usize::from(u16::from_be_bytes([high & 0x0f, low])) + SECTION_HEADER;
        if length > SECTION_MAX || high & 0x80 == 0 {
            self.lost();
            return None;
        }
        let section = self.bytes.get(..length)?;
        let parsed = (CRC.checksum(section) == 0).then(|| {
            let &[_, _, version, ..] = section.get(SECTION_HEADER..)? else {
                return None;
            };
            let body = section.get(SECTION_HEADER + 5..length.checked_sub(CHECKSUM_BYTES)?)?;
            // current_next_indicator: the table that is to come is not yet true.
            (version & 1 == 1).then(|| Section {
                table,
                body: body.to_vec(),
            })
        });
        self.lost();
        parsed.flatten()
    }
}

/// PID of the first program's map. `None`: not a PAT, or without programs.
pub(super) fn program(section: &Section) -> Option<Pid> {
    if section.table != PAT_TABLE {
        return None;
    }
    let (entries, _) = section.body.as_chunks::<4>();
    entries
        .iter()
        .find(|entry| entry[..2] != [0, 0])
        .map(|&[_, _, high, low]| u16::from_be_bytes([high & 0x1f, low]))
}

/// What an elementary stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Avc,
    Hevc,
    /// AAC with ADTS headers.
    Aac,
    /// Opus; channel_config_code of its descriptor.
    Opus(u8),
    /// Something that is not packaged.
    Other(TrackKind, &'static str),
}

impl Codec {
    pub(super) const fn kind(self) -> TrackKind {
        match self {
            Self::Avc | Self::Hevc => TrackKind::Video,
            Self::Aac | Self::Opus(_) => TrackKind::Audio,
            Self::Other(kind, _) => kind,
        }
    }
}

/// A stream of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stream {
    pub pid: Pid,
    pub codec: Codec,
    pub language: Option<Language>,
}

/// The streams of a program in the order of its map; those that are neither picture nor sound left out. `None`: not a
/// PMT, or one that ends inside an entry.
pub(super) fn streams(section: &Section) -> Option<Vec<Stream>> {
    if section.table != PMT_TABLE {
        return None;
    }
    let (&[_, _, high, low], rest) = section.body.split_first_chunk()?;
    let mut rest = rest.get(length(high, low)..)?;
    let mut streams = Vec::new();
    while let Some((&[stream_type, p0, p1, high, low], after)) = rest.split_first_chunk() {
        let (descriptors, after) = after.split_at_checked(length(high, low))?;
        rest = after;
        let facts = Facts::read(descriptors);
        if let Some(codec) = codec(stream_type, &facts) {
            streams.push(Stream {
                pid: u16::from_be_bytes([p0 & 0x1f, p1]),
                codec,
                language: facts.language,
            });
        }
    }
    rest.is_empty().then_some(streams)
}

fn length(high: u8, low: u8) -> usize {
    usize::from(u16::from_be_bytes([high & 0x0f, low]))
}

/// What the descriptors of a stream say.
#[derive(Debug, Default)]
struct Facts {
    registration: Option<[u8; 4]>,
    language: Option<Language>,
    /// channel_config_code of the Opus descriptor.
    opus_channels: Option<u8>,
    has_ac3: bool,
}

impl Facts {
    fn read(mut descriptors: &[u8]) -> Self {
        let mut facts = Self::default();
        while let Some((&[tag, length], rest)) = descriptors.split_first_chunk() {
            let Some((body, rest)) = rest.split_at_checked(usize::from(length)) else {
                break;
            };
            descriptors = rest;
            match tag {
                0x05 => facts.registration = body.first_chunk().copied(),
                0x0a => {
                    let code = body.get(..3).and_then(|code| std::str::from_utf8(code).ok());
                    facts.language = code.and_then(Language::parse);
                }
                0x6a | 0x7a => facts.has_ac3 = true,
                // Extension descriptor; 0x80 is the one of Opus (ETSI TS 102 366 leaves it to users).
                0x7f => {
                    if let [0x80, channels, ..] = *body {
                        facts.opus_channels = Some(channels);
                    }
                }
                _ => {}
            }
        }
        facts
    }
}

/// By stream_type (section 2.4.4.9, table 2-34), and by registration where that leaves it open.
fn codec(stream_type: u8, facts: &Facts) -> Option<Codec> {
    use TrackKind::{Audio, Video};
    Some(match stream_type {
        0x1b => Codec::Avc,
        0x24 => Codec::Hevc,
        0x0f => Codec::Aac,
        0x01 | 0x02 => Codec::Other(Video, "MPEG-2 video"),
        0x10 => Codec::Other(Video, "MPEG-4 part 2"),
        0x33 => Codec::Other(Video, "VVC"),
        0x03 | 0x04 => Codec::Other(Audio, "MPEG audio layers 1 to 3"),
        0x11 => Codec::Other(Audio, "AAC in LATM (set the encoder to ADTS)"),
        0x81 | 0x87 => Codec::Other(Audio, "AC-3"),
        0x06 => match (facts.registration, facts.opus_channels) {
            (Some(id), channels) if &id == b"Opus" => Codec::Opus(channels.unwrap_or(2)),
            (Some(id), _) if &id == b"HEVC" => Codec::Hevc,
            (Some(id), _) if &id == b"AV01" => Codec::Other(Video, "AV1 in MPEG-TS"),
            (Some(id), _) if &id == b"AC-3" || &id == b"EAC3" => Codec::Other(Audio, "AC-3"),
            _ if facts.has_ac3 => Codec::Other(Audio, "AC-3"),
            _ => return None,
        },
        _ => return None,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A section with its header and checksum.
    pub(in super::super) fn section(table: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() + 5 + CHECKSUM_BYTES) as u16;
        let mut bytes = vec![table, 0xb0 | (length >> 8) as u8, length as u8, 0, 1, 0xc1, 0, 0];
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(&CRC.checksum(&bytes).to_be_bytes());
        bytes
    }

    fn packet(payload: &[u8], starts: bool) -> Packet<'_> {
        Packet {
            pid: 0,
            starts,
            counter: 0,
            discontinuity: false,
            payload,
        }
    }

    fn whole(bytes: &[u8]) -> Option<Section> {
        let mut payload = vec![0];
        payload.extend_from_slice(bytes);
        Sections::default().push(&packet(&payload, true))
    }

    #[test]
    fn the_first_program_is_taken_and_the_network_passed_over() {
        let pat = whole(&section(0, &[0, 0, 0xe0, 0x10, 0, 1, 0xf0, 0x00])).unwrap();
        assert_eq!(program(&pat), Some(0x1000));
        assert_eq!(program(&whole(&section(0, &[])).unwrap()), None);
        assert_eq!(program(&whole(&section(2, &[0, 1, 0xf0, 0x00])).unwrap()), None);
    }

    #[test]
    fn a_map_names_its_streams() {
        let body = [
            0xe1, 0x00, 0xf0, 0x03, 0x99, 0x01, 0x00, // PCR PID, a program descriptor
            0x1b, 0xe1, 0x00, 0xf0, 0x00, // H.264
            0x0f, 0xe1, 0x01, 0xf0, 0x06, 0x0a, 0x04, b'd', b'e', b'u', 0, // AAC, German
            0x06, 0xe1, 0x02, 0xf0, 0x0a, 0x05, 0x04, b'O', b'p', b'u', b's', 0x7f, 0x02, 0x80, 0x06, // Opus 5.1
            0x05, 0xe1, 0x03, 0xf0, 0x00, // private sections
            0x81, 0xe1, 0x04, 0xf0, 0x00, // AC-3
        ];
        let found = streams(&whole(&section(2, &body)).unwrap()).unwrap();
        let codecs: Vec<_> = found.iter().map(|stream| (stream.pid, stream.codec)).collect();
        assert_eq!(
            codecs,
            [
                (0x100, Codec::Avc),
                (0x101, Codec::Aac),
                (0x102, Codec::Opus(6)),
                (0x104, Codec::Other(TrackKind::Audio, "AC-3"))
            ]
        );
        assert_eq!(found[1].language, Language::parse("deu"));
        for cut in 1..body.len() {
            let Some(section) = whole(&section(2, &body[..cut])) else {
                continue;
            };
            let _ = streams(&section);
        }
    }

    #[test]
    fn a_section_goes_over_packets_and_is_believed_only_with_its_checksum() {
        let mut long = vec![0xe1, 0x00, 0xf0, 0x00];
        for _ in 0..60 {
            long.extend([0x05, 0xe1, 0x03, 0xf0, 0x00]);
        }
        let bytes = section(2, &long);
        let (first, second) = bytes.split_at(180);
        let mut sections = Sections::default();
        let opening: Vec<u8> = [0].iter().chain(first).copied().collect();
        assert_eq!(sections.push(&packet(&opening, true)), None);
        // The end stands before the beginning of the next.
        let mut closing = vec![second.len() as u8];
        closing.extend_from_slice(second);
        closing.push(0xff);
        assert!(sections.push(&packet(&closing, true)).is_some());
        let mut wrong = bytes.clone();
        wrong[50] ^= 1;
        assert_eq!(whole(&wrong), None);
        // A part that got lost.
        assert_eq!(sections.push(&packet(&opening, true)), None);
        sections.lost();
        assert_eq!(sections.push(&packet(second, false)), None);
    }

    #[test]
    fn lengths_that_lie_are_passed_over() {
        for bytes in [
            &[0, 0xbf, 0xff][..],
            &[0, 0xb0, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0x30, 0x05, 0, 0, 0, 0, 0],
            &[],
        ] {
            assert_eq!(whole(bytes), None, "{bytes:?}");
        }
        assert_eq!(Sections::default().push(&packet(&[200, 1], true)), None);
    }
}
