//! A session at the end of a link that loses, delays and reorders, against a sender that does what libsrt's does: it
//! repeats what it is asked for unless that is still on its way. The clock is made up; a seed gives the same run again.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::*;
use crate::ingest::srt::{crypto, handshake::Beginning};

const SOCKET: u32 = 7;
const FIRST: u32 = (1 << 31) - 100;

fn beginning(arrived: Instant, latency_ms: u16, keys: Option<Keyring>) -> Beginning {
    Beginning {
        answer: b"answer".to_vec(),
        writer: Writer { destination: 9 },
        first_sequence: Sequence::new(FIRST),
        latency_ms,
        window: 8_192,
        sender_waits: true,
        timestamp: 0,
        arrived,
        keys,
    }
}

fn session(arrived: Instant, keys: Option<Keyring>) -> Session {
    let idle = Duration::from_secs(5);
    let mut session = Session::new(beginning(arrived, 200, keys), Settings { idle });
    assert_eq!(session.transmit().unwrap(), b"answer");
    session
}

fn data(n: u32, timestamp: u32, retransmitted: bool, key: Option<&[u8]>) -> Vec<u8> {
    let sequence = Sequence::new(FIRST).plus(n).raw();
    let mut packet = Vec::new();
    let flags = 0b1100_0000_u32 << 24 | u32::from(retransmitted) << 26 | u32::from(key.is_some()) << 27;
    for word in [sequence, flags | (n & 0xff_ffff), timestamp, SOCKET] {
        packet.extend(word.to_be_bytes());
    }
    let payload = payload(n);
    packet.extend(key.map_or(payload.clone(), |key| locked(key, sequence, &payload)));
    packet
}

fn announcement(passphrase: &str, even: Option<&[u8]>, odd: Option<&[u8]>) -> Vec<u8> {
    crypto::announcement(passphrase, &[7; 16], even, odd).unwrap()
}

/// As an encoder does it.
fn locked(key: &[u8], sequence: u32, payload: &[u8]) -> Vec<u8> {
    let keys = Keyring::unlock("any", &announcement("any", Some(key), None)).unwrap();
    let mut payload = payload.to_vec();
    assert!(keys.open(Encryption::Even, Sequence::new(sequence), &mut payload));
    payload
}

fn payload(n: u32) -> Vec<u8> {
    let mut payload = vec![0x47; 188];
    payload.extend(n.to_be_bytes());
    payload
}

fn control(type_id: u16, subtype: u16, info: u32, timestamp: u32, content: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    for word in [
        1 << 31 | u32::from(type_id) << 16 | u32::from(subtype),
        info,
        timestamp,
        SOCKET,
    ] {
        packet.extend(word.to_be_bytes());
    }
    packet.extend(content);
    packet
}

/// When it arrives, a number that keeps order, whether to the session, and what.
type Flying = (Micros, u64, bool, Vec<u8>);

/// The link and the sender at its other end.
struct World {
    random: StdRng,
    /// Of both directions.
    loss: f64,
    delay: Micros,
    jitter: Micros,
    /// Packets per second.
    rate: Micros,
    start: Instant,
    session: Session,
    flying: BinaryHeap<Reverse<Flying>>,
    launched: u64,
    /// When a packet was sent last.
    sent: BTreeMap<u32, Micros>,
    acknowledged: u32,
    repeated: u64,
    outputs: Vec<Output>,
}

impl World {
    fn new(seed: u64, loss: f64) -> Self {
        let start = Instant::now();
        Self {
            random: StdRng::seed_from_u64(seed),
            loss,
            delay: 20_000,
            jitter: 500,
            rate: 665,
            start,
            session: session(start, None),
            flying: BinaryHeap::new(),
            launched: 0,
            sent: BTreeMap::new(),
            acknowledged: 0,
            repeated: 0,
            outputs: Vec::new(),
        }
    }

    fn at(&self, now: Micros) -> Instant {
        self.start + Duration::from_micros(now.unsigned_abs())
    }

    fn launch(&mut self, now: Micros, to_session: bool, packet: Vec<u8>) {
        if self.random.random_bool(self.loss) {
            return;
        }
        let arrives = now + self.delay + self.random.random_range(0..=self.jitter);
        self.launched += 1;
        self.flying.push(Reverse((arrives, self.launched, to_session, packet)));
    }

    fn run(&mut self, packets: u32) {
        let mut next = 0_u32;
        let mut now = 0;
        let end = Micros::from(packets) * 1_000_000 / self.rate + 2_000_000;
        while now < end {
            let send_at = (next < packets).then(|| Micros::from(next) * 1_000_000 / self.rate);
            let arrives = self.flying.peek().map(|Reverse((at, ..))| *at);
            let timeout = self.session.timeout().saturating_duration_since(self.start).as_micros() as Micros;
            now = [send_at, arrives, Some(timeout.max(now + 1))]
                .into_iter()
                .flatten()
                .min()
                .unwrap();
            if send_at == Some(now) {
                self.sent.insert(next, now);
                self.launch(now, true, data(next, now as u32, false, None));
                next += 1;
            } else if arrives == Some(now)
                && let Some(Reverse((_, _, to_session, packet))) = self.flying.pop()
            {
                if to_session {
                    self.session.datagram(BytesMut::from(&packet[..]), self.at(now));
                } else {
                    self.answer(now, &packet);
                }
            }
            if next == packets && self.acknowledged < packets {
                // The last ones are repeated unasked: nothing follows that could show they are missing.
                self.repeat(now, self.acknowledged);
            }
            let _ = self.session.tick(self.at(now));
            let at = self.at(now);
            while let Some(output) = self.session.output(at) {
                self.outputs.push(output);
            }
            while let Some(packet) = self.session.transmit() {
                self.launch(now, false, packet);
            }
        }
    }

    /// What the sender makes of one of our packets.
    fn answer(&mut self, now: Micros, packet: &[u8]) {
        let words: Vec<u32> = packet
            .as_chunks::<4>()
            .0
            .iter()
            .map(|w| u32::from_be_bytes(*w))
            .collect();
        match words[0] >> 16 & 0x7fff {
            2 => {
                let next = Sequence::new(words[4]).ahead_of(Sequence::new(FIRST));
                self.acknowledged = self.acknowledged.max(u32::try_from(next).unwrap());
                if words[1] != 0 {
                    self.launch(now, true, control(6, 0, words[1], now as u32, &[0; 4]));
                }
            }
            3 => {
                let mut losses = words[4..].iter();
                while let Some(&first) = losses.next() {
                    let first_n = Sequence::new(first).ahead_of(Sequence::new(FIRST)) as u32;
                    let last_n = match first >> 31 {
                        0 => first_n,
                        _ => Sequence::new(*losses.next().unwrap()).ahead_of(Sequence::new(FIRST)) as u32,
                    };
                    for n in first_n..=last_n {
                        self.repeat(now, n);
                    }
                }
            }
            _ => {}
        }
    }

    fn repeat(&mut self, now: Micros, n: u32) {
        let Some(sent) = self.sent.get_mut(&n) else {
            panic!("packet {n} was never sent")
        };
        if now - *sent < 2 * self.delay {
            return;
        }
        *sent = now;
        self.repeated += 1;
        let original = Micros::from(n) * 1_000_000 / self.rate;
        self.launch(now, true, data(n, original as u32, true, None));
    }

    /// Checks that the output is the input with honest gaps; returns how many packets are lost.
    fn lost(&self, packets: u32) -> u32 {
        let (mut next, mut lost) = (0, 0);
        for output in &self.outputs {
            match output {
                Output::Payload(bytes) => {
                    assert_eq!(bytes, &Bytes::from(payload(next)));
                    next += 1;
                }
                Output::Gap(count) => {
                    next += count;
                    lost += count;
                }
            }
        }
        lost + (packets - next)
    }
}

#[test]
fn over_a_lossy_link_everything_arrives_that_can() {
    const PACKETS: u32 = 20_000;
    for (loss, allowed) in [(0.0, 0), (0.01, 0), (0.05, 0), (0.1, 4), (0.2, 100)] {
        let mut world = World::new(1, loss);
        world.run(PACKETS);
        let (lost, stats) = (world.lost(PACKETS), world.session.stats());
        assert!(lost <= allowed, "{lost} packets lost at {loss}");
        assert!((stats.counts.missing as f64) < f64::from(PACKETS) * (loss * 1.5 + 0.001));
        // Asking twice does not make the sender send twice.
        assert!(
            world.repeated <= stats.counts.missing * 2 + 20,
            "{} repeated at {loss}",
            world.repeated
        );
        let rtt = stats.rtt.as_millis();
        assert!((38..60).contains(&rtt), "{rtt} ms");
        assert_eq!(stats.latency, Duration::from_millis(200));
        if loss == 0.0 {
            assert_eq!(world.acknowledged, PACKETS);
        }
    }
}

#[test]
fn reordering_alone_loses_nothing() {
    let mut world = World::new(2, 0.0);
    world.jitter = 30_000;
    world.run(5_000);
    assert_eq!(world.lost(5_000), 0);
    assert!(world.session.stats().counts.duplicates < 2_500);
}

#[test]
fn payloads_leave_one_latency_after_they_were_sent() {
    let start = Instant::now();
    let mut session = session(start, None);
    let at = |ms| start + Duration::from_millis(ms);
    session.datagram(BytesMut::from(&data(0, 10_000, false, None)[..]), at(30));
    assert_eq!(session.output(at(209)), None);
    session.tick(at(200)).unwrap();
    assert_eq!(session.timeout(), at(210));
    assert_eq!(session.output(at(210)), Some(Output::Payload(Bytes::from(payload(0)))));
}

#[test]
fn a_locked_stream_is_opened_and_changes_its_keys_under_way() {
    let start = Instant::now();
    let (even, odd) = ([1; 16], [2; 16]);
    let message = announcement("a passphrase", Some(&even), None);
    let keys = Keyring::unlock("a passphrase", &message).unwrap();
    let mut session = session(start, Some(keys));
    let at = |ms| start + Duration::from_millis(ms);
    let put = |session: &mut Session, packet: &[u8]| session.datagram(BytesMut::from(packet), at(1));
    put(&mut session, &data(0, 0, false, Some(&even)));

    let both = announcement("a passphrase", Some(&even), Some(&odd));
    put(&mut session, &control(0x7fff, 3, 0, 0, &both));
    let answer = session.transmit().unwrap();
    assert_eq!((&answer[..4], &answer[16..]), (&[0xff, 0xff, 0, 4][..], &both[..]));
    put(&mut session, &control(0x7fff, 3, 0, 0, &both));
    assert_eq!(session.transmit().map(|again| again[16..].to_vec()), Some(both));

    let mut with_odd = data(1, 0, false, Some(&odd));
    with_odd[4] ^= 0b0001_1000;
    put(&mut session, &with_odd);
    // One that is not locked could be anybody's.
    put(&mut session, &data(2, 0, false, None));
    put(&mut session, &data(3, 0, false, Some(&even)));
    let played: Vec<_> = std::iter::from_fn(|| session.output(at(500))).collect();
    let payload = |n| Output::Payload(Bytes::from(payload(n)));
    assert_eq!(played, [payload(0), payload(1), Output::Gap(1), payload(3)]);
    let stats = session.stats();
    assert_eq!((stats.undecrypted, stats.key_refreshes, stats.bad_refreshes), (1, 1, 0));

    // A refresh under another passphrase is refused, the stream goes on.
    let foreign = announcement("another one", Some(&odd), None);
    session.datagram(BytesMut::from(&control(0x7fff, 3, 0, 0, &foreign)[..]), at(600));
    assert_eq!(session.transmit().unwrap()[16..], BAD_SECRET_STATE);
    assert_eq!(session.stats().bad_refreshes, 1);
}

#[test]
fn locked_payloads_without_a_passphrase_are_left_out_and_counted() {
    let start = Instant::now();
    let mut session = session(start, None);
    session.datagram(BytesMut::from(&data(0, 0, false, Some(&[1; 16]))[..]), start);
    assert_eq!(session.output(start + Duration::from_secs(1)), Some(Output::Gap(1)));
    assert_eq!(session.stats().undecrypted, 1);
}

#[test]
fn a_goodbye_lets_out_what_is_left() {
    let start = Instant::now();
    let mut session = session(start, None);
    for n in [0, 1, 3] {
        session.datagram(BytesMut::from(&data(n, n * 1000, false, None)[..]), start);
    }
    session.datagram(BytesMut::from(&control(5, 0, 0, 0, &[0; 4])[..]), start);
    assert_eq!(session.tick(start), Err(Over::Closed));
    let left: Vec<_> = std::iter::from_fn(|| session.output(start)).collect();
    let payload = |n| Output::Payload(Bytes::from(payload(n)));
    assert_eq!(left, [payload(0), payload(1), Output::Gap(1), payload(3)]);
}

#[test]
fn who_falls_silent_is_gone_and_who_keeps_alive_is_not() {
    let start = Instant::now();
    let mut session = session(start, None);
    let at = |ms| start + Duration::from_millis(ms);
    let mut kept_alive = 0;
    for ms in (0..20_000).step_by(10) {
        if ms % 1000 == 0 {
            session.datagram(BytesMut::from(&control(1, 0, 0, 0, &[0; 4])[..]), at(ms));
        }
        session.tick(at(ms)).unwrap();
        while let Some(packet) = session.transmit() {
            kept_alive += u32::from(packet[..2] == [0x80, 1]);
        }
    }
    // We keep it alive too.
    assert!((15..=20).contains(&kept_alive), "{kept_alive}");
    assert_eq!(session.tick(at(23_999)), Ok(()));
    assert_eq!(session.tick(at(24_000)), Err(Over::Idle));
}

#[test]
fn a_repeated_conclusion_gets_the_same_answer() {
    let start = Instant::now();
    let mut session = session(start, None);
    session.datagram(BytesMut::from(&control(0, 0, 0, 0, b"whatever")[..]), start);
    assert_eq!(session.transmit().unwrap(), b"answer");
}

#[test]
fn nobody_makes_us_queue_without_end() {
    let start = Instant::now();
    let mut session = session(start, None);
    for n in 0..100_000 {
        session.datagram(BytesMut::from(&control(0, 0, 0, n, b"again")[..]), start);
        session.datagram(BytesMut::from(&data(n * 2, 0, false, None)[..]), start);
    }
    assert!(session.out.len() <= OUT_MAX);
    assert!(session.stats().counts.buffered <= 8_192);
}
