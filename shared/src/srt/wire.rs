//! Packets as they are on the wire (draft-sharabayko-srt-01, section 3): headers and control packets read and written.
//! Pure, and without copying.
//!
//! The published Rust codec (srt-protocol 0.4.4) panics on handshakes with an empty stream id, a congestion name or an
//! empty group, before any cookie is looked at: not for an open port.
//!
//! Beside it: `srt/hello.rs`, the handshake's own fields. After this: the origin's `srt/session.rs`, which receives, and the
//! harness's `srt/caller.rs`, which sends.

use super::sequence::Sequence;

/// Length of every packet's header.
pub const HEADER_BYTES: usize = 16;
/// Most words of a loss report: what is left of 1500 bytes after IPv6, UDP and SRT headers.
pub const LOSS_WORDS_MAX: usize = (1500 - 40 - 8 - HEADER_BYTES) / 4;

const CONTROL: u32 = 1 << 31;
/// Control packet types (table 1).
mod control_type {
    pub(super) const HANDSHAKE: u16 = 0;
    pub(super) const KEEP_ALIVE: u16 = 1;
    pub(super) const ACKNOWLEDGEMENT: u16 = 2;
    pub(super) const LOSS_REPORT: u16 = 3;
    pub(super) const SHUTDOWN: u16 = 5;
    pub(super) const ACKNOWLEDGEMENT_SEEN: u16 = 6;
    pub(super) const DROP_REQUEST: u16 = 7;
    pub(super) const USER_DEFINED: u16 = 0x7fff;
}
/// Subtypes of user-defined control packets (table 5).
const KEY_REQUEST: u16 = 3;
const KEY_RESPONSE: u16 = 4;
/// Second word of a data packet: first and last packet of its message, to be delivered in order, message number.
const SOLO: u32 = 0b11 << 30;
const IN_ORDER: u32 = 1 << 29;
const MESSAGE_NUMBER: u32 = (1 << 26) - 1;
/// In the same word's first byte … of a packet that was sent before.
const RETRANSMITTED_BIT: u8 = 1 << 2;
/// First bit of a loss report's word that begins a range.
const RANGE: u32 = 1 << 31;

/// One packet of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// In microseconds since the peer's socket began; wraps after 71 minutes.
    pub timestamp: u32,
    /// Which socket of ours it is for; 0: none yet.
    pub destination: u32,
    pub kind: Kind<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// Its payload is all that follows the header.
    Data {
        sequence: Sequence,
        encryption: Encryption,
        /// Sent before.
        retransmitted: bool,
    },
    /// For `hello.rs`.
    Handshake(&'a [u8]),
    KeepAlive,
    Shutdown,
    /// Everything before `next` has arrived there. Number 0 wants no answer.
    Acknowledgement {
        number: u32,
        next: Sequence,
        /// Microseconds; `None`: only the position.
        rtt: Option<u32>,
    },
    /// Words of what is missing there, for [`losses`].
    LossReport(&'a [u8]),
    /// Our acknowledgement of this number has arrived there.
    AcknowledgementSeen(u32),
    /// These will not come (again); both ends included.
    DropRequest {
        first: Sequence,
        last: Sequence,
    },
    /// A key refresh, for `crypto.rs`.
    KeyRequest(&'a [u8]),
    /// Nothing that anybody acts on.
    Other,
}

/// Which key a payload is locked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    None,
    Even,
    Odd,
}

/// Why bytes are no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("shorter than a header")]
    TooShort,
    #[error("a control packet ends too early")]
    Truncated,
    #[error("a payload locked with both keys")]
    BothKeys,
}

impl<'a> Packet<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(WireError::TooShort)?;
        let [first, second, timestamp, destination] = words(header);
        let kind = if first & CONTROL == 0 {
            Kind::Data {
                sequence: Sequence::new(first),
                encryption: match (second >> 27) & 0b11 {
                    0 => Encryption::None,
                    1 => Encryption::Even,
                    2 => Encryption::Odd,
                    _ => return Err(WireError::BothKeys),
                },
                retransmitted: (second >> 26) & 1 == 1,
            }
        } else {
            let (type_id, subtype) = ((first >> 16) as u16 & 0x7fff, first as u16);
            control(type_id, subtype, second, rest)?
        };
        Ok(Self {
            timestamp,
            destination,
            kind,
        })
    }
}

fn control(type_id: u16, subtype: u16, info: u32, rest: &[u8]) -> Result<Kind<'_>, WireError> {
    Ok(match type_id {
        control_type::HANDSHAKE => Kind::Handshake(rest),
        control_type::KEEP_ALIVE => Kind::KeepAlive,
        control_type::SHUTDOWN => Kind::Shutdown,
        control_type::ACKNOWLEDGEMENT_SEEN => Kind::AcknowledgementSeen(info),
        control_type::ACKNOWLEDGEMENT => {
            let (next, rest) = rest.split_first_chunk::<4>().ok_or(WireError::Truncated)?;
            Kind::Acknowledgement {
                number: info,
                next: Sequence::new(u32::from_be_bytes(*next)),
                rtt: rest.first_chunk().map(|rtt| u32::from_be_bytes(*rtt)),
            }
        }
        control_type::LOSS_REPORT => Kind::LossReport(rest),
        control_type::DROP_REQUEST => {
            let (range, _) = rest.split_first_chunk::<8>().ok_or(WireError::Truncated)?;
            let [a, b, c, d, e, f, g, h] = *range;
            Kind::DropRequest {
                first: Sequence::new(u32::from_be_bytes([a, b, c, d])),
                last: Sequence::new(u32::from_be_bytes([e, f, g, h])),
            }
        }
        control_type::USER_DEFINED if subtype == KEY_REQUEST => Kind::KeyRequest(rest),
        _ => Kind::Other,
    })
}

/// Which socket of ours a datagram is for, before anything else is looked at.
pub fn destination(datagram: &[u8]) -> Option<u32> {
    let destination = datagram.get(HEADER_BYTES - 4..)?.first_chunk()?;
    Some(u32::from_be_bytes(*destination))
}

fn words(header: &[u8; HEADER_BYTES]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(header.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    words
}

/// What a full acknowledgement tells the sender (section 3.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Counts acknowledgements; the sender repeats it to say that it came.
    pub number: u32,
    /// Everything before this one is here, or given up.
    pub next: Sequence,
    /// Microseconds.
    pub rtt: u32,
    pub rtt_variance: u32,
    /// Room, in packets.
    pub room: u32,
    pub packets_per_second: u32,
    pub bytes_per_second: u32,
}

/// Writes packets to one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer {
    /// The peer's socket.
    pub destination: u32,
}

impl Writer {
    pub fn handshake(self, timestamp: u32, content: &[u8]) -> Vec<u8> {
        self.control(control_type::HANDSHAKE, 0, 0, timestamp, content)
    }

    pub fn acknowledgement(self, timestamp: u32, ack: &Acknowledgement) -> Vec<u8> {
        let content = [
            ack.next.raw(),
            ack.rtt,
            ack.rtt_variance,
            ack.room,
            ack.packets_per_second,
            // Of the link: not measured, the rate is a lower bound.
            ack.packets_per_second,
            ack.bytes_per_second,
        ];
        let content = to_bytes(&content);
        self.control(control_type::ACKNOWLEDGEMENT, 0, ack.number, timestamp, &content)
    }

    /// Only the position, and no answer to it.
    pub fn light_acknowledgement(self, timestamp: u32, next: Sequence) -> Vec<u8> {
        let content = next.raw().to_be_bytes();
        self.control(control_type::ACKNOWLEDGEMENT, 0, 0, timestamp, &content)
    }

    /// Asks for packets again: at most [`LOSS_WORDS_MAX`] words of [`push_range`].
    pub fn loss_report(self, timestamp: u32, loss_words: &[u32]) -> Vec<u8> {
        self.control(control_type::LOSS_REPORT, 0, 0, timestamp, &to_bytes(loss_words))
    }

    /// A data packet: a message of its own, in order, as live mode has it (section 3.1).
    pub fn data(self, timestamp: u32, sequence: Sequence, encryption: Encryption, payload: &[u8]) -> Vec<u8> {
        let key = match encryption {
            Encryption::None => 0,
            Encryption::Even => 1 << 27,
            Encryption::Odd => 2 << 27,
        };
        let message = SOLO | IN_ORDER | key | (sequence.raw() & MESSAGE_NUMBER);
        let mut packet = Vec::with_capacity(HEADER_BYTES + payload.len());
        for word in [sequence.raw(), message, timestamp, self.destination] {
            packet.extend_from_slice(&word.to_be_bytes());
        }
        packet.extend_from_slice(payload);
        packet
    }

    /// The answer to an acknowledgement.
    pub fn acknowledgement_seen(self, timestamp: u32, number: u32) -> Vec<u8> {
        self.control(control_type::ACKNOWLEDGEMENT_SEEN, 0, number, timestamp, &[])
    }

    /// These will not come (again); both ends included.
    pub fn drop_request(self, timestamp: u32, first: Sequence, last: Sequence) -> Vec<u8> {
        let content = to_bytes(&[first.raw(), last.raw()]);
        self.control(control_type::DROP_REQUEST, 0, 0, timestamp, &content)
    }

    pub fn keep_alive(self, timestamp: u32) -> Vec<u8> {
        self.control(control_type::KEEP_ALIVE, 0, 0, timestamp, &[0; 4])
    }

    pub fn shutdown(self, timestamp: u32) -> Vec<u8> {
        self.control(control_type::SHUTDOWN, 0, 0, timestamp, &[0; 4])
    }

    pub fn key_response(self, timestamp: u32, content: &[u8]) -> Vec<u8> {
        self.control(control_type::USER_DEFINED, KEY_RESPONSE, 0, timestamp, content)
    }

    fn control(self, type_id: u16, subtype: u16, info: u32, timestamp: u32, content: &[u8]) -> Vec<u8> {
        let first = CONTROL | u32::from(type_id) << 16 | u32::from(subtype);
        let mut packet = Vec::with_capacity(HEADER_BYTES + content.len());
        for word in [first, info, timestamp, self.destination] {
            packet.extend_from_slice(&word.to_be_bytes());
        }
        packet.extend_from_slice(content);
        packet
    }
}

/// Appends missing packets, both ends included, to a loss report (appendix A).
pub fn push_range(loss_words: &mut Vec<u32>, first: Sequence, last: Sequence) {
    if first == last {
        loss_words.push(first.raw());
    } else {
        loss_words.extend([first.raw() | RANGE, last.raw()]);
    }
}

/// What a loss report asks for: ranges, both ends included. A range that is cut off, or runs backwards, ends it.
pub fn losses(loss_words: &[u8]) -> impl Iterator<Item = (Sequence, Sequence)> {
    let mut words = loss_words
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| u32::from_be_bytes(*word));
    std::iter::from_fn(move || {
        let first = words.next()?;
        let last = if first & RANGE == 0 { first } else { words.next()? };
        let (first, last) = (Sequence::new(first), Sequence::new(last));
        (last.ahead_of(first) >= 0).then_some((first, last))
    })
}

/// Marks a data packet as one that is sent again.
pub fn mark_retransmitted(packet: &mut [u8]) {
    if let Some(flags) = packet.get_mut(4) {
        *flags |= RETRANSMITTED_BIT;
    }
}

fn to_bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_packets_header_is_read() {
        let mut bytes = vec![0x00, 0, 1, 2, 0b1101_0100, 0, 0, 9, 0, 0, 0, 7, 0, 0, 0, 5];
        bytes.extend(b"payload");
        let packet = Packet::parse(&bytes).unwrap();
        let kind = Kind::Data {
            sequence: Sequence::new(0x102),
            encryption: Encryption::Odd,
            retransmitted: true,
        };
        assert_eq!((packet.timestamp, packet.destination, packet.kind), (7, 5, kind));
        bytes[4] |= 0b0001_1000;
        assert_eq!(Packet::parse(&bytes), Err(WireError::BothKeys));
        assert_eq!(Packet::parse(&bytes[..15]), Err(WireError::TooShort));
    }

    #[test]
    fn what_we_write_is_addressed_and_stamped() {
        let writer = Writer { destination: 77 };
        let keep_alive = writer.keep_alive(123);
        let read = Packet::parse(&keep_alive).unwrap();
        assert_eq!(
            (read.destination, read.timestamp, read.kind),
            (77, 123, Kind::KeepAlive)
        );
        assert_eq!(Packet::parse(&writer.shutdown(0)).unwrap().kind, Kind::Shutdown);
        let hello = writer.handshake(0, b"hello");
        assert_eq!(Packet::parse(&hello).unwrap().kind, Kind::Handshake(b"hello"));
    }

    #[test]
    fn losses_are_single_numbers_and_ranges() {
        let mut loss_words = Vec::new();
        push_range(&mut loss_words, Sequence::new(5), Sequence::new(5));
        push_range(&mut loss_words, Sequence::new(7), Sequence::new(9));
        assert_eq!(loss_words, [5, 7 | RANGE, 9]);
        let report = Writer { destination: 1 }.loss_report(0, &loss_words);
        assert_eq!(report.len(), HEADER_BYTES + 12);
        assert_eq!(report[..4], [0x80, 3, 0, 0]);
        let Kind::LossReport(read) = Packet::parse(&report).unwrap().kind else {
            panic!("{report:?}");
        };
        let read: Vec<_> = losses(read).map(|(a, b)| (a.raw(), b.raw())).collect();
        assert_eq!(read, [(5, 5), (7, 9)]);
        let backwards = to_bytes(&[9 | RANGE, 7, 11]);
        assert_eq!(losses(&backwards).count(), 0);
    }

    #[test]
    fn what_a_sender_writes_a_receiver_reads() {
        let writer = Writer { destination: 5 };
        let mut packet = writer.data(7, Sequence::new(0x102), Encryption::Odd, b"payload");
        for retransmitted in [false, true] {
            let read = Packet::parse(&packet).unwrap();
            let kind = Kind::Data {
                sequence: Sequence::new(0x102),
                encryption: Encryption::Odd,
                retransmitted,
            };
            assert_eq!((read.timestamp, read.destination, read.kind), (7, 5, kind));
            mark_retransmitted(&mut packet);
        }
        let ack = Acknowledgement {
            number: 3,
            next: Sequence::new(9),
            rtt: 40_000,
            rtt_variance: 1,
            room: 1,
            packets_per_second: 1,
            bytes_per_second: 1,
        };
        let light = writer.light_acknowledgement(0, ack.next);
        for (packet, number, rtt) in [(writer.acknowledgement(0, &ack), 3, Some(40_000)), (light, 0, None)] {
            let kind = Kind::Acknowledgement {
                number,
                next: ack.next,
                rtt,
            };
            assert_eq!(Packet::parse(&packet).unwrap().kind, kind);
        }
        let seen = writer.acknowledgement_seen(0, 3);
        assert_eq!(Packet::parse(&seen).unwrap().kind, Kind::AcknowledgementSeen(3));
        let (first, last) = (Sequence::new(3), Sequence::new(4));
        let request = writer.drop_request(0, first, last);
        assert_eq!(Packet::parse(&request).unwrap().kind, Kind::DropRequest { first, last });
    }

    #[test]
    fn drop_requests_and_answers_to_acknowledgements_are_read() {
        let mut bytes = vec![0x80, 7, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5];
        assert_eq!(Packet::parse(&bytes), Err(WireError::Truncated));
        bytes.extend([0, 0, 0, 3, 0, 0, 0, 4]);
        let (first, last) = (Sequence::new(3), Sequence::new(4));
        assert_eq!(Packet::parse(&bytes).unwrap().kind, Kind::DropRequest { first, last });
        let seen = [0x80, 6, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 5];
        assert_eq!(Packet::parse(&seen).unwrap().kind, Kind::AcknowledgementSeen(9));
    }
}
