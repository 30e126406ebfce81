//! One publish over SRT, from the answer to its handshake to its end: datagrams and the time in; packets for the peer,
//! payloads and the next timeout out. Pure.
//!
//! Before this: `srt/handshake.rs` (its beginning), `srt/connection.rs` (datagrams). After this: `srt/connection.rs`, which
//! sends and hands payloads to `ingest/ts.rs`.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::BytesMut;

use super::{
    acks::{self, Acks},
    clock::{Micros, PlayClock},
    crypto::{BAD_SECRET_STATE, Keyring},
    handshake::Beginning,
    receiver::{Arrival, Came, Counts, Output, Receiver},
    sequence::Sequence,
    wire::{Acknowledgement, Encryption, HEADER_BYTES, Kind, Packet, Writer},
};

/// How often the session looks at what is to be acknowledged and asked for.
const TICK: Micros = acks::FULL_EVERY;
/// Shortest time between two requests for the same packet to a sender that would repeat it each time.
const ASK_EVERY_MIN: Micros = 20_000;
/// A peer that has heard nothing for this long hears a keep-alive.
const KEEP_ALIVE_AFTER: Micros = 1_000_000;
/// Round trips in the latency with which a packet's repetitions can wait for each other's fate. With fewer, senders are
/// let repeat twice in a round trip.
const TRIES_WANTED: Micros = 8;
/// How often the rates are taken.
const RATE_EVERY: Micros = 1_000_000;
/// Packets for the peer that wait to be sent; more are left out: all of them are repeated.
const OUT_MAX: usize = 64;
/// Gap beyond which new wrapping keys are not computed: an encoder changes keys every few minutes.
const REFRESH_PAUSE: Micros = 200_000;

/// What a session is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// A peer of which nothing is heard for this long is gone.
    pub idle: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(5),
        }
    }
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Over {
    #[error("the encoder said goodbye")]
    Closed,
    #[error("nothing came from the encoder any more")]
    Idle,
}

/// Figures of one session. Counts grow, the others are of this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    pub counts: Counts,
    /// Of [`Counts::packets`], those that had been sent before.
    pub retransmitted: u64,
    /// Payloads that no known key opens, or that came open where they should be locked. They are left out.
    pub undecrypted: u64,
    pub key_refreshes: u64,
    /// Key refreshes that could not be read.
    pub bad_refreshes: u64,
    /// Packets that are none.
    pub malformed: u64,
    /// Reports of losses sent, and acknowledgements.
    pub loss_reports: u64,
    pub acknowledgements: u64,
    /// Acknowledgements that the sender never answered, though it goes on sending.
    pub unanswered: u64,
    pub clock_jumps: u64,
    pub rtt: Duration,
    /// Media in the buffer.
    pub buffer: Duration,
    pub latency: Duration,
    /// How far the play times were moved, in microseconds.
    pub drift_us: i64,
    pub bytes_per_second: u32,
}

/// One publish.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    /// Times are counted from here.
    started: Instant,
    writer: Writer,
    answer: Vec<u8>,
    /// See [`Beginning::sender_waits`].
    sender_waits: bool,
    clock: PlayClock,
    receiver: Receiver,
    acks: Acks,
    keys: Option<Keyring>,
    out: VecDeque<Vec<u8>>,
    heard_at: Micros,
    sent_at: Micros,
    tick_at: Micros,
    refreshed_at: Micros,
    rate: Rate,
    stats: Stats,
    over: Option<Over>,
}

/// What a data packet's header says beyond its timestamp.
#[derive(Debug, Clone, Copy)]
struct Data {
    sequence: Sequence,
    encryption: Encryption,
    retransmitted: bool,
}

#[derive(Debug, Default)]
struct Rate {
    since: Micros,
    packets: u64,
    bytes: u64,
    packets_per_second: u32,
    bytes_per_second: u32,
}

impl Session {
    /// The answer to the handshake is the first thing to send.
    pub fn new(beginning: Beginning, settings: Settings) -> Self {
        let started = beginning.arrived;
        let latency = Micros::from(beginning.latency_ms) * 1000;
        let mut session = Self {
            settings,
            started,
            writer: beginning.writer,
            sender_waits: beginning.sender_waits,
            clock: PlayClock::new(beginning.timestamp, 0, latency),
            receiver: Receiver::new(beginning.first_sequence, beginning.window),
            acks: Acks::new(beginning.first_sequence),
            keys: beginning.keys,
            out: VecDeque::new(),
            heard_at: 0,
            sent_at: 0,
            tick_at: TICK,
            refreshed_at: -REFRESH_PAUSE,
            rate: Rate::default(),
            stats: Stats::default(),
            over: None,
            answer: beginning.answer,
        };
        session.answer_again();
        session
    }

    /// The caller repeats its conclusion: our answer was lost.
    pub fn answer_again(&mut self) {
        self.send(self.answer.clone());
    }

    /// A datagram of the peer that came `now`.
    pub fn datagram(&mut self, mut datagram: BytesMut, now: Instant) {
        let now = self.micros(now);
        let Ok(packet) = Packet::parse(&datagram) else {
            self.stats.malformed += 1;
            return;
        };
        self.heard_at = now;
        let timestamp = packet.timestamp;
        match packet.kind {
            Kind::Data {
                sequence,
                encryption,
                retransmitted,
            } => {
                self.stats.retransmitted += u64::from(retransmitted);
                let payload = datagram.split_off(HEADER_BYTES.min(datagram.len()));
                self.data(
                    Data {
                        sequence,
                        encryption,
                        retransmitted,
                    },
                    timestamp,
                    payload,
                    now,
                );
            }
            Kind::AcknowledgementSeen(number) => {
                if self.acks.seen(number, now) {
                    self.clock.sample(timestamp, now, self.acks.rtt().mean);
                }
            }
            Kind::DropRequest { first, last } => self.receiver.renounce(first, last),
            Kind::KeyRequest(message) => self.refresh_keys(message, now),
            Kind::Shutdown => self.over = Some(Over::Closed),
            Kind::Handshake(_) => self.answer_again(),
            // We send no media.
            Kind::Acknowledgement { .. } | Kind::LossReport(_) | Kind::KeepAlive | Kind::Other => {}
        }
    }

    fn data(&mut self, header: Data, timestamp: u32, mut payload: BytesMut, now: Micros) {
        let Data {
            sequence,
            encryption,
            retransmitted,
        } = header;
        let opened = match &self.keys {
            // Whoever set a passphrase gets nothing that could come from somebody else.
            Some(keys) => encryption != Encryption::None && keys.open(encryption, sequence, &mut payload),
            None => encryption == Encryption::None,
        };
        if !opened {
            self.stats.undecrypted += 1;
            payload.clear();
        }
        let due = self.clock.due(timestamp, now);
        let came = Came { at: now, retransmitted };
        let arrival = self.receiver.insert(sequence, due, payload.freeze(), came);
        if matches!(arrival, Arrival::Next { missing: 1.. }) {
            self.report_losses(now);
        }
        if self.acks.count_packet() {
            let packet = self.writer.light_acknowledgement(self.stamp(now), self.receiver.next());
            self.send(packet);
        }
    }

    fn refresh_keys(&mut self, message: &[u8], now: Micros) {
        let Some(keys) = &mut self.keys else {
            return;
        };
        let known = keys.message() == message;
        if !known && now - self.refreshed_at < REFRESH_PAUSE {
            return;
        }
        self.refreshed_at = now;
        let answer = match keys.refresh(message) {
            Ok(()) => message.to_vec(),
            Err(_) => {
                self.stats.bad_refreshes += 1;
                BAD_SECRET_STATE.to_vec()
            }
        };
        self.stats.key_refreshes = keys.refreshes();
        let packet = self.writer.key_response(self.stamp(now), &answer);
        self.send(packet);
    }

    /// Whatever is due `now`. `Err`: the session is over; what [`Session::output`] still gives is the rest of it.
    pub fn tick(&mut self, now: Instant) -> Result<(), Over> {
        let now = self.micros(now);
        if let Some(over) = self.over {
            return Err(over);
        }
        if now - self.heard_at >= micros_of(self.settings.idle) {
            self.over = Some(Over::Idle);
            return Err(Over::Idle);
        }
        if now < self.tick_at {
            return Ok(());
        }
        self.tick_at = now + TICK;
        self.rate.take(&self.receiver.counts(), now);
        self.report_losses(now);
        self.acknowledge(now);
        if now - self.sent_at >= KEEP_ALIVE_AFTER {
            let packet = self.writer.keep_alive(self.stamp(now));
            self.send(packet);
            self.sent_at = now;
        }
        Ok(())
    }

    fn report_losses(&mut self, now: Micros) {
        if !self.receiver.has_holes() {
            return;
        }
        let pause = if self.sender_waits {
            TICK
        } else {
            (self.acks.rtt().patience() / 2).max(ASK_EVERY_MIN)
        };
        for loss_words in self.receiver.loss_reports(now, pause) {
            let packet = self.writer.loss_report(self.stamp(now), &loss_words);
            self.stats.loss_reports += 1;
            self.sent_at = now;
            self.send(packet);
        }
    }

    fn acknowledge(&mut self, now: Micros) {
        let next = self.receiver.next();
        let Some(number) = self.acks.full(next, now) else {
            return;
        };
        let mut rtt = self.acks.rtt();
        if self.clock.latency() < rtt.mean * TRIES_WANTED {
            // Senders wait for the mean less four variances before they repeat a packet again: half of it.
            rtt.variance = rtt.variance.max(rtt.mean / 8);
        }
        let acknowledgement = Acknowledgement {
            number,
            next,
            rtt: rtt.mean as u32,
            rtt_variance: rtt.variance as u32,
            room: self.receiver.room(),
            packets_per_second: self.rate.packets_per_second,
            bytes_per_second: self.rate.bytes_per_second,
        };
        let packet = self.writer.acknowledgement(self.stamp(now), &acknowledgement);
        self.stats.acknowledgements += 1;
        self.sent_at = now;
        self.send(packet);
    }

    /// The next payload, or gap, whose time has come. After the end: everything that is left.
    pub fn output(&mut self, now: Instant) -> Option<Output> {
        let output = match self.over {
            Some(_) => self.receiver.flush(),
            None => self.receiver.take(self.micros(now)),
        };
        match output {
            // Left out for want of a key.
            Some(Output::Payload(payload)) if payload.is_empty() => Some(Output::Gap(1)),
            output => output,
        }
    }

    /// The next packet for the peer.
    pub fn transmit(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    /// The end, from our side.
    pub fn farewell(&self, now: Instant) -> Vec<u8> {
        self.writer.shutdown(self.stamp(self.micros(now)))
    }

    /// When to call [`Session::tick`] and [`Session::output`] next, if no datagram comes before.
    pub fn timeout(&self) -> Instant {
        let next = self.receiver.due().map_or(self.tick_at, |due| due.min(self.tick_at));
        self.started + Duration::from_micros(next.max(0).unsigned_abs())
    }

    pub fn stats(&self) -> Stats {
        Stats {
            counts: self.receiver.counts(),
            unanswered: self.acks.given_up(),
            clock_jumps: self.clock.jumps(),
            rtt: duration_of(self.acks.rtt().mean),
            buffer: duration_of(self.receiver.span()),
            latency: duration_of(self.clock.latency()),
            drift_us: self.clock.drift(),
            bytes_per_second: self.rate.bytes_per_second,
            ..self.stats
        }
    }

    fn send(&mut self, packet: Vec<u8>) {
        if self.out.len() < OUT_MAX {
            self.out.push_back(packet);
        }
    }

    fn micros(&self, now: Instant) -> Micros {
        micros_of(now.saturating_duration_since(self.started))
    }

    /// Our packets' timestamps wrap as everybody's.
    const fn stamp(&self, now: Micros) -> u32 {
        now as u32
    }
}

impl Rate {
    fn take(&mut self, counts: &Counts, now: Micros) {
        let elapsed = now - self.since;
        if elapsed < RATE_EVERY {
            return;
        }
        let per_second = |count: u64| {
            let rate = u128::from(count) * 1_000_000 / elapsed.unsigned_abs().max(1) as u128;
            u32::try_from(rate).unwrap_or(u32::MAX)
        };
        self.packets_per_second = per_second(counts.packets - self.packets);
        self.bytes_per_second = per_second(counts.bytes - self.bytes);
        (self.since, self.packets, self.bytes) = (now, counts.packets, counts.bytes);
    }
}

fn micros_of(duration: Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX)
}

fn duration_of(micros: Micros) -> Duration {
    Duration::from_micros(micros.max(0).unsigned_abs())
}

#[cfg(test)]
mod tests;
