//! MPEG-TS (ISO/IEC 13818-1) of a broadcaster becomes [`Event`]s: transport packets in, decoder configurations and access
//! units on the normalised timeline out. Pure; the time of arrival is an argument.
//!
//! This file is what a transport needs to know of it: bytes are pushed as they come, steps are polled.
//!
//! Before this: `ingest/srt/connection.rs`, or whatever carries a transport stream. After this: `live/pipeline.rs`.

use std::{collections::VecDeque, time::Instant};

use crate::{
    ingest::{Event, flv::DropReason, timeline::Repair},
    package::frame::TrackKind,
};

/// Length of a transport packet (section 2.4.3.2).
pub const PACKET_BYTES: usize = 188;
/// First byte of every transport packet.
pub const SYNC_BYTE: u8 = 0x47;

/// Bounds of one transport stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes without a transport packet in them after which the stream is taken for something else.
    pub garbage_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            garbage_bytes: 64 << 10,
        }
    }
}

/// What the caller has to do next.
#[derive(Debug)]
pub enum Step {
    /// For the pipeline. `repair`: its timestamp was put right.
    Event { event: Event, repair: Option<Repair> },
    /// An access unit was left out.
    Dropped { track: TrackKind, reason: DropReason },
}

/// Why a transport stream cannot be packaged. All are the encoder's settings; trying again without changing them is of
/// no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TsError {
    #[error("not an MPEG transport stream")]
    NotTs,
}

impl TsError {
    /// Label value and log word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NotTs => "not_ts",
        }
    }
}

/// The demultiplexer of one publish.
#[derive(Debug)]
pub struct Demuxer {
    limits: Limits,
    steps: VecDeque<Step>,
    /// Bytes since the last transport packet.
    garbage_bytes: usize,
}

impl Demuxer {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            steps: VecDeque::new(),
            garbage_bytes: 0,
        }
    }

    /// Takes the payload of one datagram that arrived `now`: any number of whole transport packets. After an `Err` the
    /// publish is over.
    pub fn push(&mut self, payload: &[u8], now: Instant) -> Result<(), TsError> {
        for packet in payload.chunks(PACKET_BYTES) {
            if packet.len() == PACKET_BYTES && packet.first() == Some(&SYNC_BYTE) {
                self.garbage_bytes = 0;
                self.packet(packet, now)?;
            } else {
                self.garbage_bytes += packet.len();
            }
        }
        if self.garbage_bytes > self.limits.garbage_bytes {
            return Err(TsError::NotTs);
        }
        Ok(())
    }

    /// The transport lost something between the last payload and the next: access units that are not complete are damaged.
    pub fn gap(&mut self) {}

    /// What the payloads so far amount to, in order.
    pub fn poll(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    fn packet(&mut self, _packet: &[u8], _now: Instant) -> Result<(), TsError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_transport_packets_is_told_apart_soon() {
        let limits = Limits { garbage_bytes: 1000 };
        let mut demuxer = Demuxer::new(limits);
        let now = Instant::now();
        let mut packet = [0; PACKET_BYTES];
        packet[0] = SYNC_BYTE;
        assert_eq!(demuxer.push(&packet, now), Ok(()));
        assert_eq!(demuxer.push(&[0; 990], now), Ok(()));
        assert_eq!(demuxer.push(&packet, now), Ok(()));
        assert_eq!(demuxer.push(&[0; 990], now), Ok(()));
        assert_eq!(demuxer.push(b"no transport stream", now), Err(TsError::NotTs));
    }
}
