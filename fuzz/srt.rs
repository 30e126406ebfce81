//! What must hold for any datagrams that come to an SRT port. Shared by the fuzz target and by `origin/tests/fuzz_seeds.rs`.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use weir_origin::ingest::srt::{
    handshake::{Answer, Beginning, Listener, Offer},
    receiver::Output,
    session::{Session, Settings},
    streamid::Wish,
};
use weir_shared::srt::{
    crypto::Keyring,
    sequence::Sequence,
    wire::{HEADER_BYTES, Kind, Packet, Writer},
};

/// Packets in a session's buffer.
const WINDOW: u32 = 64;
/// Where a handshake's cookie stands, and its kind, after the packet's header.
const COOKIE_AT: usize = HEADER_BYTES + 28;
const REQUEST_AT: usize = HEADER_BYTES + 20;

/// What became of the datagrams.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    pub inductions: u32,
    pub knocks: u32,
    pub rejected: u32,
    pub payloads: u32,
    pub gaps: u32,
}

/// Datagrams, each behind its length (two bytes) and the milliseconds since the one before (one byte): to a listener, with
/// the cookie that it wants, and to a session.
pub(super) fn srt(mut bytes: &[u8]) -> Heard {
    let mut now = Instant::now();
    let listener = Listener::new([1; 32], Offer::default(), now);
    let mut session = Session::new(beginning(now), Settings::default());
    let mut heard = Heard::default();
    while let Some((&[high, low, pause], rest)) = bytes.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let (datagram, rest) = rest.split_at(length);
        bytes = rest;
        now += Duration::from_millis(u64::from(pause));
        knock(&listener, datagram, now, &mut heard);
        session.datagram(BytesMut::from(datagram), now);
        let over = session.tick(now).is_err();
        while let Some(output) = session.output(now) {
            match output {
                Output::Payload(_) => heard.payloads += 1,
                Output::Gap(count) => {
                    assert!(count > 0);
                    heard.gaps += 1;
                }
            }
        }
        let mut sent = 0;
        while let Some(packet) = session.transmit() {
            assert!(Packet::parse(&packet).is_ok() || packet == b"answer");
            assert!(packet.len() <= 1472);
            sent += 1;
        }
        assert!(sent <= 64);
        let stats = session.stats();
        assert!(stats.counts.buffered <= WINDOW);
        assert!(stats.counts.missing >= stats.counts.mended + stats.counts.lost);
        if over {
            break;
        }
        assert!(session.timeout() > now);
    }
    heard
}

fn knock(listener: &Listener, datagram: &[u8], now: Instant, heard: &mut Heard) {
    let Ok(Packet {
        timestamp,
        kind: Kind::Handshake(content),
        ..
    }) = Packet::parse(datagram)
    else {
        return;
    };
    let peer = SocketAddr::from(([192, 0, 2, 1], 5000));
    let first = listener.hear(peer, timestamp, content, now);
    count(&first, datagram, heard);
    // The cookie that this caller gets, by an induction of its own.
    let mut induction = datagram.to_vec();
    let Some(request) = induction.get_mut(REQUEST_AT..REQUEST_AT + 4) else {
        return;
    };
    request.copy_from_slice(&1_u32.to_be_bytes());
    let Answer::Induction(answer) = listener.hear(peer, timestamp, &induction[HEADER_BYTES..], now) else {
        return;
    };
    assert!(answer.len() <= datagram.len());
    let mut conclusion = datagram.to_vec();
    conclusion[COOKIE_AT..COOKIE_AT + 4].copy_from_slice(&answer[COOKIE_AT..COOKIE_AT + 4]);
    let second = listener.hear(peer, timestamp, &conclusion[HEADER_BYTES..], now);
    count(&second, datagram, heard);
    if let Answer::Knock(knock) = second {
        let _ = Wish::parse(&knock.stream_id);
        let beginning = listener.accept(&knock, 5, None);
        assert!(Packet::parse(&beginning.answer).is_ok());
        assert!(beginning.latency_ms <= Offer::default().latency_max_ms);
    }
}

fn count(answer: &Answer, datagram: &[u8], heard: &mut Heard) {
    match answer {
        Answer::Induction(_) => heard.inductions += 1,
        Answer::Knock(_) => heard.knocks += 1,
        Answer::Rejected { answer, .. } => {
            assert!(answer.len() <= datagram.len());
            heard.rejected += 1;
        }
        Answer::Ignored(_) => {}
    }
}

fn beginning(arrived: Instant) -> Beginning {
    Beginning {
        answer: b"answer".to_vec(),
        writer: Writer { destination: 9 },
        first_sequence: Sequence::new(100),
        latency_ms: 120,
        window: WINDOW,
        sender_waits: true,
        timestamp: 0,
        arrived,
        keys: None,
    }
}

/// A key material message: opened, or refused.
pub(super) fn key_material(bytes: &[u8]) -> bool {
    Keyring::unlock("correct-horse-battery", bytes).is_ok()
}
