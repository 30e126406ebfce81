//! A listener by hand on the other side.

use super::*;

const PEER: [u8; 4] = [127, 0, 0, 1];
const OURS: u32 = 77;
const THEIRS: u32 = 5;

fn caller(now: Instant, passphrase: Option<&str>) -> Caller {
    let wish = Wish {
        stream_id: Some("show".to_owned()),
        latency_ms: 120,
        passphrase: passphrase.map(|text| (Secret::new(text), 16)),
    };
    let dice = Dice {
        socket: OURS,
        first_sequence: 100,
        salt: [7; 16],
        key: [9; 32],
    };
    Caller::new(wish, PEER.into(), dice, now).unwrap()
}

fn hello(caller: &mut Caller) -> (Hello, Vec<u8>) {
    let packet = caller.transmit().unwrap();
    let Kind::Handshake(content) = Packet::parse(&packet).unwrap().kind else {
        panic!("{packet:?}");
    };
    let (hello, extensions) = Hello::parse(content).unwrap();
    (hello, extensions.to_vec())
}

fn answer(caller: &mut Caller, content: &[u8], now: Instant) {
    let packet = Writer { destination: OURS }.handshake(0, content);
    caller.datagram(&packet, now);
}

fn induced(caller: &mut Caller, now: Instant) -> (Hello, Vec<u8>) {
    let (first, _) = hello(caller);
    assert_eq!((first.version, first.request, first.cookie), (4, Request::Induction, 0));
    let induction = Hello {
        version: 5,
        extension: MAGIC,
        cookie: 4711,
        ..first
    };
    answer(caller, &induction.write(PEER.into()), now);
    hello(caller)
}

fn live(now: Instant) -> Caller {
    let mut caller = caller(now, None);
    let (conclusion, extensions) = induced(&mut caller, now);
    assert_eq!(conclusion.cookie, 4711);
    assert_eq!(Extensions::parse(&extensions).unwrap().stream_id.unwrap(), b"show");
    let terms = Terms {
        version: VERSION,
        flags: 0,
        receive_latency_ms: 300,
        send_latency_ms: 0,
    };
    let welcome = Hello {
        socket: THEIRS,
        ..conclusion
    };
    answer(&mut caller, &welcome.write_answer(PEER.into(), &terms, None), now);
    assert!(caller.is_live());
    assert_eq!(caller.latency(), Duration::from_millis(300));
    caller
}

fn sent(caller: &mut Caller) -> Vec<(u32, bool)> {
    let packets = std::iter::from_fn(|| caller.transmit());
    packets
        .filter_map(|packet| match Packet::parse(&packet).unwrap().kind {
            Kind::Data {
                sequence,
                retransmitted,
                ..
            } => Some((sequence.raw(), retransmitted)),
            _ => None,
        })
        .collect()
}

fn report(caller: &mut Caller, first: u32, last: u32, now: Instant) {
    let mut words = Vec::new();
    wire::push_range(&mut words, Sequence::new(first), Sequence::new(last));
    caller.datagram(&Writer { destination: OURS }.loss_report(0, &words), now);
}

#[test]
fn what_is_reported_lost_is_sent_again_once_in_a_round_trip_until_it_is_acknowledged() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut caller = live(start);
    for n in 0..5 {
        caller.send(&[n; 188], at(1));
    }
    assert_eq!(sent(&mut caller), (100..105).map(|n| (n, false)).collect::<Vec<_>>());
    report(&mut caller, 101, 102, at(20));
    assert_eq!(sent(&mut caller), [(101, true), (102, true)]);
    report(&mut caller, 101, 103, at(40));
    assert_eq!(sent(&mut caller), [(103, true)], "the others may still be on their way");
    report(&mut caller, 101, 101, at(130));
    assert_eq!(sent(&mut caller), [(101, true)]);
    let writer = Writer { destination: OURS };
    caller.datagram(&writer.light_acknowledgement(0, Sequence::new(104)), at(140));
    assert!(!caller.is_settled());
    report(&mut caller, 101, 101, at(300));
    assert_eq!(sent(&mut caller), [], "it has arrived");
    assert_eq!(caller.counts().too_late, 1);
    caller.datagram(&writer.light_acknowledgement(0, Sequence::new(105)), at(310));
    assert!(caller.is_settled());
    assert_eq!((caller.counts().packets, caller.counts().repeated), (5, 4));
}

#[test]
fn the_last_packet_is_sent_again_unasked_and_old_ones_are_given_up() {
    let start = Instant::now();
    let mut caller = live(start);
    caller.send(&[1; 188], start);
    assert_eq!(sent(&mut caller), [(100, false)]);
    let again = caller.timeout();
    caller.tick(again - Duration::from_millis(1));
    assert_eq!(sent(&mut caller), []);
    caller.tick(again);
    assert_eq!(sent(&mut caller), [(100, true)]);
    caller.tick(start + Duration::from_millis(1300));
    assert!(caller.is_settled(), "the latency and a second are over");
    caller.tick(start + IDLE);
    assert_eq!(caller.over(), Some(Over::Idle));
}

#[test]
fn acknowledgements_are_answered_by_their_number() {
    let start = Instant::now();
    let mut caller = live(start);
    let ack = wire::Acknowledgement {
        number: 3,
        next: Sequence::new(100),
        rtt: 40_000,
        rtt_variance: 0,
        room: 10,
        packets_per_second: 0,
        bytes_per_second: 0,
    };
    caller.datagram(&Writer { destination: OURS }.acknowledgement(0, &ack), start);
    let packet = caller.transmit().unwrap();
    let packet = Packet::parse(&packet).unwrap();
    assert_eq!(
        (packet.destination, packet.kind),
        (THEIRS, Kind::AcknowledgementSeen(3))
    );
    // One of a packet that was never sent changes nothing.
    caller.send(&[1; 188], start);
    let impossible = Writer { destination: OURS }.light_acknowledgement(0, Sequence::new(5000));
    caller.datagram(&impossible, start);
    assert!(!caller.is_settled());
}

#[test]
fn a_refusal_and_a_lost_step_are_heard() {
    let start = Instant::now();
    let mut caller = caller(start, None);
    let (first, _) = hello(&mut caller);
    caller.tick(caller.timeout());
    assert_eq!(hello(&mut caller).0, first);
    answer(
        &mut caller,
        &Hello {
            request: Request::Other(2404),
            ..first
        }
        .write(PEER.into()),
        start,
    );
    assert_eq!(caller.over(), Some(Over::Refused(2404)));
}

#[test]
fn payloads_are_locked_with_the_key_that_was_announced() {
    let start = Instant::now();
    let mut caller = caller(start, Some("correct-horse"));
    let (conclusion, extensions) = induced(&mut caller, start);
    let message = Extensions::parse(&extensions).unwrap().key_material.unwrap().to_vec();
    let keys = Keyring::unlock("correct-horse", &message).unwrap();
    let terms = Terms {
        version: VERSION,
        flags: 0,
        receive_latency_ms: 0,
        send_latency_ms: 0,
    };
    let welcome = conclusion.write_answer(PEER.into(), &terms, Some(&message));
    answer(&mut caller, &welcome, start);
    assert!(caller.is_live());
    caller.send(b"transport packets", start);
    let mut packet = caller.transmit().unwrap();
    assert!(keys.open(Encryption::Even, Sequence::new(100), &mut packet[16..]));
    assert_eq!(packet[16..], b"transport packets"[..]);
}
