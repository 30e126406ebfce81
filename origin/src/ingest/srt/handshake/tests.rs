use super::*;
use crate::ingest::srt::{
    crypto, hello,
    wire::{Kind, Packet},
};

const OFFER: Offer = Offer {
    latency_ms: 120,
    latency_max_ms: 2_000,
    window: 8_192,
};

fn peer() -> SocketAddr {
    "192.0.2.7:40000".parse().unwrap()
}

fn listener(now: Instant) -> Listener {
    Listener::new([1; 32], OFFER, now)
}

fn hello(request: Request, version: u32, cookie: u32) -> Hello {
    Hello {
        version,
        encryption: 0,
        extension: 2,
        first_sequence: Sequence::new(1000),
        mtu: 1500,
        window: 25_600,
        request,
        socket: 4711,
        cookie,
    }
}

fn terms() -> Terms {
    Terms {
        version: 0x01_05_01,
        flags: 0xbf,
        receive_latency_ms: 0,
        send_latency_ms: 200,
    }
}

/// Fields and extensions of one of our answers.
fn read(answer: &[u8]) -> (Hello, Vec<u8>) {
    let packet = Packet::parse(answer).unwrap();
    assert_eq!(packet.destination, 4711);
    let Kind::Handshake(content) = packet.kind else {
        panic!("no handshake: {packet:?}")
    };
    let (hello, extensions) = Hello::parse(content).unwrap();
    (hello, extensions.to_vec())
}

fn cookie(listener: &Listener, now: Instant) -> u32 {
    let content = hello(Request::Induction, 4, 0).write(peer().ip());
    let Answer::Induction(answer) = listener.hear(peer(), 0, &content, now) else {
        panic!("no answer to an induction")
    };
    let (hello, _) = read(&answer);
    assert_eq!(
        (hello.version, hello.extension, hello.request),
        (5, MAGIC, Request::Induction)
    );
    hello.cookie
}

fn conclude(hello: &Hello, extensions: &[u8]) -> Answer {
    let now = Instant::now();
    let listener = listener(now);
    let hello = Hello {
        cookie: cookie(&listener, now),
        ..*hello
    };
    let content = [hello.write(peer().ip()), extensions.to_vec()].concat();
    listener.hear(peer(), 77, &content, now)
}

fn knock(extensions: &[u8]) -> Knock {
    match conclude(&hello(Request::Conclusion, 5, 0), extensions) {
        Answer::Knock(knock) => *knock,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_caller_that_brings_its_cookie_back_is_heard() {
    let knock = knock(&hello::write_request(Some(&terms()), Some("app/show"), None));
    assert_eq!(knock.stream_id, b"app/show");
    assert_eq!((knock.peer, knock.socket(), knock.timestamp), (peer(), 4711, 77));
    let beginning = listener(Instant::now()).accept(&knock, 99, None);
    let (answer, extensions) = read(&beginning.answer);
    assert_eq!((answer.request, answer.socket), (Request::Conclusion, 99));
    assert_eq!(answer.first_sequence, Sequence::new(1000));
    assert_eq!((answer.window, answer.extension), (OFFER.window, 1));
    // Type 2, three words; ours stands in the upper half of the third.
    assert_eq!(extensions[..4], [0, 2, 0, 3]);
    assert_eq!(extensions[12..], [0, 200, 0, 0]);
}

#[test]
fn the_longer_latency_wins_up_to_a_bound() {
    for (asked, given) in [(0, 120), (119, 120), (500, 500), (2_001, 2_000), (u16::MAX, 2_000)] {
        let terms = Terms {
            send_latency_ms: asked,
            ..terms()
        };
        let knock = knock(&hello::write_request(Some(&terms), None, None));
        let beginning = listener(Instant::now()).accept(&knock, 1, None);
        assert_eq!(beginning.latency_ms, given, "asked for {asked}");
    }
}

#[test]
fn key_material_is_handed_on_and_echoed() {
    let message = crypto::announcement("a passphrase", &[7; 16], Some(&[3; 16]), None).unwrap();
    let knock = knock(&hello::write_request(Some(&terms()), Some("show"), Some(&message)));
    assert_eq!(knock.key_material.as_deref(), Some(&message[..]));
    let keys = Keyring::unlock("a passphrase", &message).unwrap();
    let beginning = listener(Instant::now()).accept(&knock, 1, Some(keys));
    let (answer, extensions) = read(&beginning.answer);
    assert_eq!(answer.extension, 3);
    assert!(extensions.ends_with(&message));
    assert_eq!(extensions[16..18], [0, 4]);
}

#[test]
fn nothing_is_answered_without_the_cookie_of_ones_own_address() {
    let now = Instant::now();
    let listener = listener(now);
    let good = cookie(&listener, now);
    let content = |cookie| {
        let extensions = hello::write_request(Some(&terms()), Some("show"), None);
        [hello(Request::Conclusion, 5, cookie).write(peer().ip()), extensions].concat()
    };
    let hear = |peer: &str, cookie, now| listener.hear(peer.parse().unwrap(), 0, &content(cookie), now);
    let ignored = Answer::Ignored(Ignored::Cookie);
    assert!(matches!(hear("192.0.2.7:40000", good, now), Answer::Knock(_)));
    assert_eq!(hear("192.0.2.7:40001", good, now), ignored);
    assert_eq!(hear("192.0.2.8:40000", good, now), ignored);
    assert_eq!(hear("192.0.2.7:40000", good ^ 1, now), ignored);
    assert_eq!(hear("192.0.2.7:40000", 0, now), ignored);
    let later = now + std::time::Duration::from_secs(180);
    assert_eq!(hear("192.0.2.7:40000", good, later), ignored);
}

#[test]
fn an_answer_is_no_larger_than_what_it_answers() {
    let now = Instant::now();
    let content = hello(Request::Induction, 4, 0).write(peer().ip());
    let Answer::Induction(answer) = listener(now).hear(peer(), 0, &content, now) else {
        panic!("no answer")
    };
    assert!(answer.len() <= content.len() + 16);
}

#[test]
fn what_is_not_served_is_told_in_the_protocols_own_words() {
    let with = |change: &dyn Fn(&mut Hello, &mut Terms), more: &[u8]| {
        let (mut hello, mut terms) = (hello(Request::Conclusion, 5, 0), terms());
        change(&mut hello, &mut terms);
        let extensions = [hello::write_request(Some(&terms), Some("show"), None), more.to_vec()].concat();
        match conclude(&hello, &extensions) {
            Answer::Rejected { answer, reject } => {
                let (told, _) = read(&answer);
                // The code stands where the step was.
                assert_eq!(told.request, Request::Other(reject.code()));
                Some(reject)
            }
            _ => None,
        }
    };
    let nothing = |_: &mut Hello, _: &mut Terms| ();
    let extension = |kind: u8, text: &[u8; 4]| [&[0, kind, 0, 1], &text[..]].concat();
    assert_eq!(with(&nothing, &[]), None);
    // "live" as little-endian words have it.
    assert_eq!(with(&nothing, &extension(6, b"evil")), None);
    assert_eq!(with(&|hello, _| hello.version = 4, &[]), Some(Reject::Version));
    assert_eq!(with(&|_, terms| terms.version = 0x01_02_00, &[]), Some(Reject::Version));
    assert_eq!(
        with(&|_, terms| terms.flags |= Terms::STREAM, &[]),
        Some(Reject::MessageApi)
    );
    assert_eq!(with(&nothing, &extension(6, b"elif")), Some(Reject::Congestion));
    assert_eq!(with(&nothing, &extension(7, b"cef,")), Some(Reject::Filter));
    assert_eq!(with(&nothing, &extension(8, &[0; 4])), Some(Reject::Group));
    assert_eq!(with(&|hello, _| hello.mtu = 20, &[]), Some(Reject::Rogue));
    assert_eq!(with(&nothing, &[0, 5, 0, 200, 1]), Some(Reject::Rogue));
    let long = hello::write_request(None, Some(&"x".repeat(513)), None);
    assert_eq!(with(&nothing, &long), Some(Reject::BadRequest));
    let no_terms = conclude(&hello(Request::Conclusion, 5, 0), &[]);
    assert!(matches!(
        no_terms,
        Answer::Rejected {
            reject: Reject::Rogue,
            ..
        }
    ));
}

#[test]
fn what_is_no_handshake_is_ignored() {
    let now = Instant::now();
    let listener = listener(now);
    assert_eq!(
        listener.hear(peer(), 0, &[0; 47], now),
        Answer::Ignored(Ignored::Malformed)
    );
    let rendezvous = hello(Request::Other(0), 5, 0).write(peer().ip());
    assert_eq!(
        listener.hear(peer(), 0, &rendezvous, now),
        Answer::Ignored(Ignored::Other)
    );
}
