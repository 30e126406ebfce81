//! One transport packet (ISO/IEC 13818-1 section 2.4.3). Pure.
//!
//! Before this: `ingest/ts.rs`, which finds packets. After this: `ts/table.rs` (tables) and `ts/pes.rs` (media).

use super::{PACKET_BYTES, SYNC_BYTE};

/// Number of an elementary stream or a table: 13 bits.
pub(super) type Pid = u16;

/// Carries stuffing.
pub(super) const NULL_PID: Pid = 0x1fff;

/// What the layers above need of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub pid: Pid,
    /// A table section or PES packet begins here (payload_unit_start_indicator).
    pub starts: bool,
    /// continuity_counter: 0..=15, one more with each packet of a PID that has a payload.
    pub counter: u8,
    /// The sender says that the counter or the clock starts anew.
    pub discontinuity: bool,
    /// Never empty.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// `None`: no packet, one that arrived broken, one that is encrypted, or one without payload.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&[sync, b1, b2, b3], rest) = bytes.split_first_chunk()?;
        let error = b1 & 0x80 != 0;
        let scrambled = b3 & 0xc0 != 0;
        if sync != SYNC_BYTE || bytes.len() != PACKET_BYTES || error || scrambled {
            return None;
        }
        let mut discontinuity = false;
        let payload = match b3 >> 4 & 3 {
            1 => rest,
            3 => {
                let (&length, after) = rest.split_first()?;
                let (field, payload) = after.split_at_checked(usize::from(length))?;
                discontinuity = field.first().is_some_and(|flags| flags & 0x80 != 0);
                payload
            }
            _ => return None,
        };
        (!payload.is_empty()).then_some(Self {
            pid: u16::from_be_bytes([b1 & 0x1f, b2]),
            starts: b1 & 0x40 != 0,
            counter: b3 & 0x0f,
            discontinuity,
            payload,
        })
    }
}

/// What a packet's counter says beside the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Next,
    /// The same packet once more, which is allowed (section 2.4.3.3).
    Repeated,
    /// Something is missing in between.
    Lost,
}

/// Follows the counter of one PID.
#[derive(Debug, Default)]
pub(super) struct Continuity(Option<u8>);

impl Continuity {
    pub(super) fn order(&mut self, packet: &Packet<'_>) -> Order {
        let last = self.0.replace(packet.counter);
        match last {
            _ if packet.discontinuity => Order::Next,
            None => Order::Next,
            Some(last) if packet.counter == (last + 1) & 0x0f => Order::Next,
            Some(last) if packet.counter == last => Order::Repeated,
            Some(_) => Order::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(b1: u8, b3: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![SYNC_BYTE, b1, 0x42, b3];
        bytes.extend_from_slice(rest);
        bytes.resize(PACKET_BYTES, 7);
        bytes
    }

    #[test]
    fn fields_of_a_packet() {
        let bytes = packet(0x41, 0x1a, &[]);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.pid, packet.starts, packet.counter), (0x142, true, 10));
        assert_eq!(packet.payload.len(), 184);
    }

    #[test]
    fn an_adaptation_field_stands_before_the_payload() {
        let bytes = packet(0x01, 0x30, &[2, 0x80, 0, 0xaa]);
        let packet = Packet::parse(&bytes).unwrap();
        assert!(packet.discontinuity);
        assert_eq!((packet.payload.len(), packet.payload[0]), (181, 0xaa));
    }

    #[test]
    fn what_has_nothing_to_say_is_no_packet() {
        assert_eq!(Packet::parse(&packet(0x81, 0x10, &[])), None, "transport error");
        assert_eq!(Packet::parse(&packet(0x01, 0x90, &[])), None, "encrypted");
        assert_eq!(Packet::parse(&packet(0x01, 0x20, &[183])), None, "no payload");
        assert_eq!(Packet::parse(&packet(0x01, 0x30, &[183])), None, "empty payload");
        assert_eq!(
            Packet::parse(&packet(0x01, 0x30, &[200])),
            None,
            "field longer than the packet"
        );
        assert_eq!(Packet::parse(&packet(0x01, 0x10, &[])[..187]), None);
        assert_eq!(Packet::parse(&[]), None);
    }

    #[test]
    fn the_counter_tells_repeated_from_lost() {
        let mut continuity = Continuity::default();
        let mut at = |counter: u8, b1: Option<u8>| {
            let field: &[u8] = if b1.is_some() { &[1, 0x80] } else { &[0] };
            let bytes = packet(1, 0x30 | counter, field);
            continuity.order(&Packet::parse(&bytes).unwrap())
        };
        assert_eq!(at(14, None), Order::Next);
        assert_eq!(at(15, None), Order::Next);
        assert_eq!(at(0, None), Order::Next);
        assert_eq!(at(0, None), Order::Repeated);
        assert_eq!(at(2, None), Order::Lost);
        assert_eq!(at(9, Some(1)), Order::Next, "announced");
    }
}
