//! Packets of one elementary stream become PES packets (ISO/IEC 13818-1 section 2.4.3.6): the payload and its times.
//! Pure.
//!
//! Before this: `ts/packet.rs`. After this: `ts/video.rs` and `ts/audio.rs`.

use bytes::{Bytes, BytesMut};

use super::packet::{Continuity, Order, Packet};

/// Longest PES packet kept, in bytes; as much as an RTMP media message may have.
pub(super) const PES_BYTES_MAX: usize = 4 << 20;
/// Bytes before the optional header.
const FIXED_BYTES: usize = 6;
/// Longest header of all, in bytes.
const HEADER_MAX: usize = FIXED_BYTES + 3 + 255;

/// Times of a PES packet, in ticks of 90 kHz modulo 2^33.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamps {
    pub pts: u64,
    /// The same as `pts` if it is not told.
    pub dts: u64,
}

/// One PES packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pes {
    pub stamps: Option<Stamps>,
    pub data: Bytes,
    /// Something of it is missing.
    pub damaged: bool,
}

/// Puts the PES packets of one PID together.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    continuity: Continuity,
    /// At most [`PES_BYTES_MAX`].
    bytes: BytesMut,
    /// A PES packet is under way.
    open: bool,
    damaged: bool,
}

impl Assembler {
    /// The transport lost something: what is under way cannot be trusted.
    pub(super) fn lost(&mut self) {
        self.damaged = true;
    }

    /// Takes a packet; gives the PES packets that are whole by it: the one before, when a new one begins, and the new one
    /// itself when it tells its length.
    pub(super) fn push(&mut self, packet: &Packet<'_>) -> [Option<Pes>; 2] {
        match self.continuity.order(packet) {
            Order::Next => {}
            Order::Repeated => return [None, None],
            Order::Lost => self.damaged = true,
        }
        let before = if packet.starts { self.take() } else { None };
        if packet.starts {
            self.open = true;
        }
        if !self.open {
            return [before, None];
        }
        if self.bytes.len() + packet.payload.len() <= PES_BYTES_MAX {
            self.bytes.extend_from_slice(packet.payload);
        } else {
            self.damaged = true;
        }
        let whole = if self.is_whole() { self.take() } else { None };
        [before, whole]
    }

    /// Nothing follows any more: what was under way.
    pub(super) fn finish(&mut self) -> Option<Pes> {
        self.take()
    }

    /// What was under way. It counts as damaged if anything got lost since it began.
    fn take(&mut self) -> Option<Pes> {
        let was_open = std::mem::replace(&mut self.open, false);
        let damaged = std::mem::replace(&mut self.damaged, false);
        let bytes = self.bytes.split().freeze();
        if !was_open {
            return None;
        }
        match parse(&bytes) {
            Some((stamps, at, length)) => {
                let end = length.unwrap_or(bytes.len());
                Some(Pes {
                    stamps,
                    data: bytes.slice(at..end.clamp(at, bytes.len())),
                    damaged: damaged || end > bytes.len(),
                })
            }
            None => Some(Pes {
                stamps: None,
                data: Bytes::new(),
                damaged: true,
            }),
        }
    }

    /// It tells its length, and so much is there: no need to wait for the next one.
    fn is_whole(&self) -> bool {
        match *self.bytes.as_ref() {
            [0, 0, 1, _, high, low, ..] if (high, low) != (0, 0) => {
                self.bytes.len() >= FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]))
            }
            _ => false,
        }
    }
}

/// Times, where the payload begins, and where it ends if that is told. `None`: not a PES packet.
fn parse(bytes: &[u8]) -> Option<(Option<Stamps>, usize, Option<usize>)> {
    let head = bytes.get(..bytes.len().min(HEADER_MAX))?;
    let (&[0, 0, 1, _, high, low, marks, flags, header_length], rest) = head.split_first_chunk()? else {
        return None;
    };
    if marks >> 6 != 2 {
        return None;
    }
    let told = usize::from(u16::from_be_bytes([high, low]));
    let stamps = match flags >> 6 {
        2 => rest.first_chunk().map(|pts| Stamps {
            pts: stamp(pts),
            dts: stamp(pts),
        }),
        3 => rest
            .first_chunk()
            .zip(rest.get(5..)?.first_chunk())
            .map(|(pts, dts)| Stamps {
                pts: stamp(pts),
                dts: stamp(dts),
            }),
        _ => None,
    };
    let at = FIXED_BYTES + 3 + usize::from(header_length);
    (at <= bytes.len()).then_some((stamps, at, (told > 0).then_some(FIXED_BYTES + told)))
}

/// 33 bits in five bytes, with marker bits that are not looked at: some encoders forget them.
fn stamp(&[a, b, c, d, e]: &[u8; 5]) -> u64 {
    u64::from(a >> 1 & 7) << 30 | u64::from(b) << 22 | u64::from(c >> 1) << 15 | u64::from(d) << 7 | u64::from(e >> 1)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn field(mark: u8, ticks: u64) -> [u8; 5] {
        [
            mark << 4 | (ticks >> 29) as u8 & 0x0e | 1,
            (ticks >> 22) as u8,
            (ticks >> 14) as u8 | 1,
            (ticks >> 7) as u8,
            (ticks << 1) as u8 | 1,
        ]
    }

    /// A PES packet; `told`: with its length.
    pub(in super::super) fn pes(pts: u64, dts: Option<u64>, data: &[u8], told: bool) -> Vec<u8> {
        let mut header = field(if dts.is_some() { 3 } else { 2 }, pts).to_vec();
        header.extend(dts.iter().flat_map(|dts| field(1, *dts)));
        let flags = if dts.is_some() { 0xc0 } else { 0x80 };
        let length = if told { 3 + header.len() + data.len() } else { 0 } as u16;
        let mut bytes = vec![0, 0, 1, 0xe0];
        bytes.extend(length.to_be_bytes());
        bytes.extend([0x80, flags, header.len() as u8]);
        bytes.extend(header);
        bytes.extend_from_slice(data);
        bytes
    }

    fn packet(payload: &[u8], starts: bool, counter: u8) -> Packet<'_> {
        Packet {
            pid: 256,
            starts,
            counter,
            discontinuity: false,
            payload,
        }
    }

    #[test]
    fn times_of_33_bits() {
        let (pts, dts) = ((1 << 33) - 1, 0x1_2345_6789);
        let bytes = pes(pts, Some(dts), b"x", true);
        let [_, whole] = Assembler::default().push(&packet(&bytes, true, 0));
        let whole = whole.unwrap();
        assert_eq!(whole.stamps, Some(Stamps { pts, dts }));
        assert_eq!((&whole.data[..], whole.damaged), (&b"x"[..], false));
    }

    #[test]
    fn without_a_length_it_ends_where_the_next_begins() {
        let bytes = pes(9, None, b"abc", false);
        let mut assembler = Assembler::default();
        assert_eq!(assembler.push(&packet(&bytes, true, 0)), [None, None]);
        assert_eq!(assembler.push(&packet(b"def", false, 1)), [None, None]);
        let [before, _] = assembler.push(&packet(&bytes, true, 2));
        let before = before.unwrap();
        assert_eq!((&before.data[..], before.damaged), (&b"abcdef"[..], false));
    }

    #[test]
    fn a_missing_packet_damages_only_what_it_was_part_of() {
        let bytes = pes(9, None, b"abc", false);
        let mut assembler = Assembler::default();
        assembler.push(&packet(&bytes, true, 0));
        assembler.push(&packet(b"def", false, 3));
        let [before, _] = assembler.push(&packet(&bytes, true, 4));
        assert!(before.unwrap().damaged);
        let [before, _] = assembler.push(&packet(&bytes, true, 5));
        assert!(!before.unwrap().damaged);
        // Lost between the end of one and the beginning of the next: the one before may have gone on.
        let [before, _] = assembler.push(&packet(&bytes, true, 8));
        assert!(before.unwrap().damaged);
        assembler.push(&packet(b"more", false, 9));
        assembler.push(&packet(b"more", false, 9));
        let [before, _] = assembler.push(&packet(&bytes, true, 10));
        let before = before.unwrap();
        assert_eq!((&before.data[..], before.damaged), (&b"abcmore"[..], false), "repeated");
    }

    #[test]
    fn headers_that_lie_are_damage() {
        for bytes in [
            &b"\0\0\x02garbage!"[..],
            b"\0\0\x01\xe0\0\0\x80\x80\xff123",
            b"\0\0\x01",
            b"x",
        ] {
            let mut assembler = Assembler::default();
            assembler.push(&packet(bytes, true, 0));
            let [before, _] = assembler.push(&packet(bytes, true, 1));
            assert!(before.unwrap().damaged, "{bytes:?}");
        }
    }
}
