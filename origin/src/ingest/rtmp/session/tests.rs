//! The dialogue in any order: whatever a peer says when, no step comes before the one that allows it.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::ingest::{Refusal, rtmp::amf0};

/// What a peer may say, sense or nonsense.
#[derive(Debug, Clone)]
enum Word {
    Command(&'static str, String),
    Message(u8, Vec<u8>),
    Bytes(Vec<u8>),
}

fn word() -> impl Strategy<Value = Word> {
    const NAMES: &[&str] = &[
        "connect",
        "releaseStream",
        "FCPublish",
        "createStream",
        "publish",
        "publish",
        "FCUnpublish",
        "deleteStream",
        "play",
        "_result",
    ];
    prop_oneof![
        6 => (prop::sample::select(NAMES), "[a-z/?=&ü]{0,300}").prop_map(|(name, text)| Word::Command(name, text)),
        3 => (1u8..=22, vec(any::<u8>(), 0..200)).prop_map(|(type_id, payload)| Word::Message(type_id, payload)),
        1 => vec(any::<u8>(), 0..40).prop_map(Word::Bytes),
    ]
}

impl Word {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Command(name, text) => {
                let connect = Value::Object(vec![
                    ("app".into(), text.as_str().into()),
                    ("tcUrl".into(), text.as_str().into()),
                ]);
                let object = if *name == "connect" { connect } else { Value::Null };
                let values = [(*name).into(), 1.0.into(), object, text.as_str().into()];
                message(message_type::COMMAND_AMF0, &amf0::encode(&values))
            }
            Self::Message(type_id, payload) => message(*type_id, payload),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// On chunk stream 3, in chunks of 128 bytes.
fn message(type_id: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![3, 0, 0, 0];
    bytes.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.push(type_id);
    bytes.extend(1u32.to_le_bytes());
    for (n, piece) in payload.chunks(128).enumerate() {
        if n > 0 {
            bytes.push(0xc3);
        }
        bytes.extend(piece);
    }
    bytes
}

fn shaken() -> Session {
    let (mut session, now) = (Session::new(), Instant::now());
    let mut input = BytesMut::from(&[&[3][..], &[0; 1536]].concat()[..]);
    session.next(&mut input, now).unwrap();
    let answer = session.take_replies().unwrap();
    input.extend_from_slice(&answer[1..1537]);
    session.next(&mut input, now).unwrap();
    session
}

proptest! {
    #[test]
    fn no_step_comes_before_the_one_that_allows_it(words in vec(word(), 1..30), cut in 1usize..400) {
        let mut session = shaken();
        let said: Vec<u8> = words.iter().flat_map(Word::bytes).collect();
        let (mut welcomed, mut accepted) = (false, false);
        let mut input = BytesMut::new();
        'dialogue: for piece in said.chunks(cut) {
            input.extend_from_slice(piece);
            loop {
                match session.next(&mut input, Instant::now()) {
                    Ok(None) => break,
                    Ok(Some(Step::Connect { .. })) => {
                        prop_assert!(!welcomed);
                        prop_assert!(session.next(&mut input, Instant::now()).unwrap().is_none(), "it waits");
                        session.welcome();
                        welcomed = true;
                    }
                    Ok(Some(Step::Publish { .. })) => {
                        prop_assert!(welcomed && !accepted);
                        prop_assert!(session.next(&mut input, Instant::now()).unwrap().is_none(), "it waits");
                        session.accept();
                        accepted = true;
                    }
                    Ok(Some(Step::Event { .. } | Step::Dropped { .. })) => prop_assert!(accepted),
                    Err(end) => {
                        session.farewell(&end);
                        break 'dialogue;
                    }
                }
            }
        }
        let replies = session.take_replies().unwrap();
        prop_assert!(replies.len() <= 4096 + words.len() * 2048, "{} bytes of replies", replies.len());
    }
}

#[test]
fn nothing_is_echoed_of_a_query() {
    let mut session = shaken();
    let mut input = BytesMut::from(&Word::Command("connect", "app".into()).bytes()[..]);
    assert!(matches!(
        session.next(&mut input, Instant::now()),
        Ok(Some(Step::Connect { .. }))
    ));
    session.welcome();
    let said = Word::Command("FCPublish", "show?user=anna&pass=opensesame".into());
    input.extend_from_slice(&said.bytes());
    assert!(session.next(&mut input, Instant::now()).unwrap().is_none());
    session.farewell(&End::Refused(Refusal::WrongCredentials));
    let replies = session.take_replies().unwrap();
    let told = String::from_utf8_lossy(&replies);
    assert!(told.contains("show") && !told.contains("opensesame"));
}
