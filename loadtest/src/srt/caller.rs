//! A caller that publishes in live mode (draft-sharabayko-srt-01): its handshake, what it sends and sends again. Pure:
//! datagrams, payloads and the time in; datagrams and the next timeout out.
//!
//! Before this: [`super::session`]. After this: the session again, which holds the socket.

use core::net::IpAddr;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use weir_shared::{
    config::Secret,
    srt::{
        crypto::{self, KeyError, Keyring},
        hello::{self, Extensions, Hello, MAGIC, Request, Terms},
        sequence::Sequence,
        wire::{self, Encryption, Kind, Packet, Writer},
    },
};

/// What we say we are: 1.5.3.
const VERSION: u32 = 0x01_05_03;
/// Largest packet with IP and UDP headers, in bytes, and packets in flight.
const MTU: u32 = 1500;
const WINDOW: u32 = 8192;
/// How often a step of the handshake is repeated.
const STEP_EVERY: Duration = Duration::from_millis(250);
/// A listener of which nothing is heard for this long is gone.
const IDLE: Duration = Duration::from_secs(5);
/// A listener that has heard nothing for this long hears a keep-alive.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(1);
/// The newest packet is sent again when it is not acknowledged for this long: nothing behind it shows that it is missing.
const TAIL_AFTER: Duration = Duration::from_millis(100);
/// Packets are kept for so much longer than the latency.
const KEPT_BEYOND_LATENCY: Duration = Duration::from_secs(1);
/// Before anything is known of the link.
const FIRST_RTT: Duration = Duration::from_millis(100);

/// What a caller wants.
#[derive(Debug, Clone)]
pub struct Wish {
    pub stream_id: Option<String>,
    pub latency_ms: u16,
    /// With the length of the key in bytes.
    pub passphrase: Option<(Secret, usize)>,
}

/// What makes this caller different from all others.
#[derive(Debug, Clone, Copy)]
pub struct Dice {
    pub socket: u32,
    pub first_sequence: u32,
    pub salt: [u8; crypto::SALT_BYTES],
    pub key: [u8; 32],
}

/// Why a call is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The listener's code.
    Refused(u32),
    /// The listener's goodbye.
    Closed,
    /// It is silent.
    Idle,
    /// It answered the passphrase with something else.
    Key,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Induction,
    Conclusion { cookie: u32 },
    Live,
    Over(Over),
}

/// Figures of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Datagrams with media, sent for the first time, and again.
    pub packets: u64,
    pub repeated: u64,
    /// Asked for when they were gone already.
    pub too_late: u64,
    pub bytes: u64,
}

/// A packet that is not acknowledged yet.
#[derive(Debug)]
struct Sent {
    packet: Vec<u8>,
    at: Instant,
    again_at: Option<Instant>,
}

/// One call.
#[derive(Debug)]
pub struct Caller {
    wish: Wish,
    peer: IpAddr,
    started: Instant,
    socket: u32,
    writer: Writer,
    keys: Option<(Keyring, Vec<u8>)>,
    stage: Stage,
    latency: Duration,
    rtt: Duration,
    next: Sequence,
    /// In order; the last has the number before `next`. At most [`WINDOW`].
    unacknowledged: VecDeque<Sent>,
    out: VecDeque<Vec<u8>>,
    heard_at: Instant,
    sent_at: Instant,
    counts: Counts,
}

impl Caller {
    /// `peer`: the listener's address, as the handshake wants it.
    pub fn new(wish: Wish, peer: IpAddr, dice: Dice, now: Instant) -> Result<Self, KeyError> {
        let keys = match &wish.passphrase {
            None => None,
            Some((passphrase, key_bytes)) => {
                let key = dice.key.get(..*key_bytes);
                let message = crypto::announcement(passphrase.reveal(), &dice.salt, key, None)?;
                Some((Keyring::unlock(passphrase.reveal(), &message)?, message))
            }
        };
        let mut caller = Self {
            latency: Duration::from_millis(u64::from(wish.latency_ms)),
            wish,
            peer,
            started: now,
            socket: dice.socket & 0x3fff_ffff,
            writer: Writer { destination: 0 },
            keys,
            stage: Stage::Induction,
            rtt: FIRST_RTT,
            next: Sequence::new(dice.first_sequence),
            unacknowledged: VecDeque::new(),
            out: VecDeque::new(),
            heard_at: now,
            sent_at: now,
            counts: Counts::default(),
        };
        caller.step(now);
        Ok(caller)
    }

    pub fn is_live(&self) -> bool {
        self.stage == Stage::Live
    }

    pub fn over(&self) -> Option<Over> {
        match self.stage {
            Stage::Over(over) => Some(over),
            _ => None,
        }
    }

    /// Whether everything that was sent has arrived, or is given up.
    pub fn is_settled(&self) -> bool {
        self.unacknowledged.is_empty()
    }

    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// The listener's wish counts as much as ours.
    pub const fn latency(&self) -> Duration {
        self.latency
    }

    /// A payload of at most 1316 bytes, once the call is live.
    pub fn send(&mut self, payload: &[u8], now: Instant) {
        let mut payload = payload.to_vec();
        let encryption = match &self.keys {
            Some((keys, _)) if keys.open(Encryption::Even, self.next, &mut payload) => Encryption::Even,
            _ => Encryption::None,
        };
        let packet = self.writer.data(self.stamp(now), self.next, encryption, &payload);
        self.next = self.next.plus(1);
        self.counts.packets += 1;
        if self.unacknowledged.len() >= WINDOW as usize {
            self.unacknowledged.pop_front();
        }
        self.unacknowledged.push_back(Sent {
            packet: packet.clone(),
            at: now,
            again_at: None,
        });
        self.push(packet, now);
    }

    /// A datagram of the listener.
    pub fn datagram(&mut self, datagram: &[u8], now: Instant) {
        let Ok(packet) = Packet::parse(datagram) else { return };
        if packet.destination != self.socket || self.over().is_some() {
            return;
        }
        self.heard_at = now;
        match packet.kind {
            Kind::Handshake(content) => self.handshake(content, now),
            Kind::Acknowledgement { number, next, rtt } => {
                self.acknowledged(next);
                if let Some(rtt) = rtt {
                    self.rtt = Duration::from_micros(u64::from(rtt));
                }
                if number != 0 {
                    let answer = self.writer.acknowledgement_seen(self.stamp(now), number);
                    self.push(answer, now);
                }
            }
            Kind::LossReport(words) => {
                for (first, last) in wire::losses(words) {
                    self.send_again(first, last, now);
                }
            }
            Kind::Shutdown => self.stage = Stage::Over(Over::Closed),
            _ => {}
        }
    }

    /// Whatever is due.
    pub fn tick(&mut self, now: Instant) {
        if self.over().is_some() {
            return;
        }
        if now >= self.heard_at + IDLE {
            self.stage = Stage::Over(Over::Idle);
            return;
        }
        let kept = self.latency + KEPT_BEYOND_LATENCY;
        while self.unacknowledged.front().is_some_and(|sent| now >= sent.at + kept) {
            self.unacknowledged.pop_front();
        }
        if now < self.acts_at() {
            return;
        }
        if self.stage != Stage::Live {
            return self.step(now);
        }
        match self.unacknowledged.back() {
            Some(_) => self.send_again(self.next.plus(u32::MAX), self.next.plus(u32::MAX), now),
            None => {
                let packet = self.writer.keep_alive(self.stamp(now));
                self.push(packet, now);
            }
        }
        self.sent_at = now;
    }

    /// When to call [`Caller::tick`] next.
    pub fn timeout(&self) -> Instant {
        self.acts_at().min(self.heard_at + IDLE)
    }

    /// The next datagram for the listener.
    pub fn transmit(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    /// The end, from our side.
    pub fn farewell(&mut self, now: Instant) {
        let packet = self.writer.shutdown(self.stamp(now));
        self.push(packet, now);
        self.stage = Stage::Over(Over::Closed);
    }

    fn acts_at(&self) -> Instant {
        self.sent_at
            + match self.stage {
                Stage::Induction | Stage::Conclusion { .. } => STEP_EVERY,
                _ if self.unacknowledged.is_empty() => KEEP_ALIVE_AFTER,
                _ => TAIL_AFTER.max(self.rtt * 2),
            }
    }

    /// The handshake's next packet, or the same again.
    fn step(&mut self, now: Instant) {
        let hello = Hello {
            version: 4,
            encryption: 0,
            // The induction's kind of socket: datagrams.
            extension: 2,
            first_sequence: self.next,
            mtu: MTU,
            window: WINDOW,
            request: Request::Induction,
            socket: self.socket,
            cookie: 0,
        };
        let content = match self.stage {
            Stage::Conclusion { cookie } => {
                let terms = Terms {
                    version: VERSION,
                    flags: Terms::TSBPD
                        | Terms::ENCRYPTION
                        | Terms::TOO_LATE_DROP
                        | Terms::PERIODIC_LOSS_REPORTS
                        | Terms::RETRANSMISSION_FLAG,
                    receive_latency_ms: self.wish.latency_ms,
                    send_latency_ms: self.wish.latency_ms,
                };
                let key_material = self.keys.as_ref().map(|(_, message)| message.as_slice());
                let requests = hello::write_request(Some(&terms), self.wish.stream_id.as_deref(), key_material);
                let hello = Hello {
                    version: 5,
                    request: Request::Conclusion,
                    cookie,
                    ..hello
                };
                hello.write_conclusion(self.peer, &requests, key_material.is_some())
            }
            _ => hello.write(self.peer),
        };
        let packet = Writer { destination: 0 }.handshake(self.stamp(now), &content);
        self.push(packet, now);
    }

    fn handshake(&mut self, content: &[u8], now: Instant) {
        let Ok((hello, extensions)) = Hello::parse(content) else {
            return;
        };
        match (self.stage, hello.request) {
            (Stage::Induction, Request::Induction) if (hello.version, hello.extension) == (5, MAGIC) => {
                self.stage = Stage::Conclusion { cookie: hello.cookie };
                self.step(now);
            }
            (Stage::Conclusion { .. }, Request::Conclusion) => {
                let Ok(answer) = Extensions::parse(extensions) else {
                    return;
                };
                if let Some((_, message)) = &self.keys
                    && answer.key_material != Some(message)
                {
                    self.stage = Stage::Over(Over::Key);
                    return;
                }
                if let Some(terms) = answer.terms {
                    let wanted = Duration::from_millis(u64::from(terms.receive_latency_ms));
                    self.latency = self.latency.max(wanted);
                }
                self.writer = Writer {
                    destination: hello.socket,
                };
                self.stage = Stage::Live;
            }
            (Stage::Induction | Stage::Conclusion { .. }, Request::Other(code)) => {
                self.stage = Stage::Over(Over::Refused(code));
            }
            _ => {}
        }
    }

    fn acknowledged(&mut self, next: Sequence) {
        let behind = self.next.ahead_of(next);
        if let Ok(left) = usize::try_from(behind)
            && let Some(arrived) = self.unacknowledged.len().checked_sub(left)
        {
            self.unacknowledged.drain(..arrived);
        }
    }

    /// A packet is not sent again while it may still be on its way.
    fn send_again(&mut self, first: Sequence, last: Sequence, now: Instant) {
        let oldest = self.next.plus(0u32.wrapping_sub(self.unacknowledged.len() as u32));
        if oldest.ahead_of(first) > 0 && self.next.ahead_of(first) > 0 {
            let gone = if oldest.ahead_of(last) > 0 {
                last
            } else {
                oldest.plus(u32::MAX)
            };
            self.counts.too_late += u64::from(gone.ahead_of(first).unsigned_abs()) + 1;
            let packet = self.writer.drop_request(self.stamp(now), first, gone);
            self.push(packet, now);
        }
        let begin = first.ahead_of(oldest).max(0).unsigned_abs() as usize;
        let end = usize::try_from(last.ahead_of(oldest)).map_or(0, |last| last + 1);
        let pause = self.rtt;
        let mut again = Vec::new();
        for sent in self.unacknowledged.iter_mut().take(end).skip(begin) {
            if sent.again_at.is_some_and(|at| now < at + pause) {
                continue;
            }
            sent.again_at = Some(now);
            wire::mark_retransmitted(&mut sent.packet);
            again.push(sent.packet.clone());
        }
        self.counts.repeated += again.len() as u64;
        for packet in again {
            self.push(packet, now);
        }
    }

    fn push(&mut self, packet: Vec<u8>, now: Instant) {
        self.counts.bytes += packet.len() as u64;
        self.sent_at = now;
        self.out.push_back(packet);
    }

    /// Microseconds, which wrap.
    fn stamp(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.started).as_micros() as u32
    }
}

#[cfg(test)]
mod tests;
