use proptest::prelude::*;

use super::*;
use crate::{
    http::{Protocol, h2::frame::Reader},
    viewer::RequestId,
};

const NOW: Moment = Moment(5);

fn target() -> Target {
    Target::new("http://127.0.0.1:1/", Protocol::H2, true).unwrap()
}

fn request(id: u32) -> Request {
    Request {
        id: RequestId(id),
        path: "/x".into(),
        is_text: id.is_multiple_of(2),
        gzip: true,
        is_again: false,
    }
}

/// With as many requests under way.
fn session(requests: u32) -> Session {
    let mut session = Session::new(Manners::default());
    let target = target();
    (0..requests).for_each(|id| session.open(request(id), &target, NOW));
    session
}

fn feed(session: &mut Session, mut input: &[u8], done: &mut VecDeque<Done>) -> Result<(), Failure> {
    let mut frames = Reader::default();
    while let Some(event) = frames.next(&mut input)? {
        session.take(event, NOW, done)?;
    }
    Ok(())
}

fn settings() -> Vec<u8> {
    let mut bytes = vec![];
    frame::write(kind::SETTINGS, 0, 0, &[], &mut bytes);
    bytes
}

proptest! {
    #[test]
    fn whatever_frames_come_nothing_panics_nor_grows_without_end(
        frames in proptest::collection::vec((0u8..11, any::<u8>(), 0u32..9, proptest::collection::vec(any::<u8>(), 0..40)), 0..60),
    ) {
        let (mut session, mut done) = (session(3), VecDeque::new());
        let mut bytes = settings();
        for (kind, flags, stream, payload) in &frames {
            frame::write(*kind, *flags, *stream, payload, &mut bytes);
        }
        let _ = feed(&mut session, &bytes, &mut done);
        prop_assert!(done.len() + session.streams.len() + session.refused.len() <= 3);
    }

    #[test]
    fn whatever_heads_come_are_answers_or_garbage(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..9)) {
        let (mut session, mut done) = (session(9), VecDeque::new());
        let mut bytes = settings();
        for (nth, block) in blocks.iter().enumerate() {
            let block = [b"\x88".as_slice(), block].concat();
            frame::write(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 2 * nth as u32 + 1, &block, &mut bytes);
        }
        if feed(&mut session, &bytes, &mut done).is_ok() {
            prop_assert_eq!(done.len(), blocks.len());
        }
    }
}

#[test]
fn a_server_that_pings_and_does_not_read_is_left() {
    let (mut session, mut done) = (session(1), VecDeque::new());
    let mut bytes = settings();
    frame::write(kind::PING, 0, 0, &[7; 8], &mut bytes);
    assert_eq!(feed(&mut session, &bytes, &mut done), Ok(()));
    let pings = bytes.repeat(10_000);
    assert!(matches!(
        feed(&mut session, &pings, &mut done),
        Err(Failure::Garbage(_))
    ));
    assert!(session.out.len() < 2 * MAX_OUT_BYTES);
}

#[test]
fn a_head_without_an_end_is_cut_off() {
    let (mut session, mut done) = (session(1), VecDeque::new());
    let mut bytes = settings();
    frame::write(kind::HEADERS, 0, 1, &[0x88], &mut bytes);
    for _ in 0..9 {
        frame::write(kind::CONTINUATION, 0, 1, &[0x88; 16_000], &mut bytes);
    }
    assert!(matches!(
        feed(&mut session, &bytes, &mut done),
        Err(Failure::Garbage(_))
    ));
}

#[test]
fn a_server_that_minds_no_window_is_left() {
    let (mut session, mut done) = (session(1), VecDeque::new());
    let mut window = Window::of_stream();
    assert_eq!(window.take(1 << 20), Ok(None));
    assert_eq!(window.take(2 << 20), Ok(Some(3 << 20)));
    assert!(window.take(7 << 20).is_err());
    // A stream that was given up counts on, and is not answered.
    session.cancel(RequestId(0));
    session.out.clear();
    let mut bytes = settings();
    frame::write(kind::HEADERS, flag::END_HEADERS, 1, &[0x88], &mut bytes);
    (0..480).for_each(|_| frame::write(kind::DATA, 0, 1, &[0; 16_384], &mut bytes));
    assert_eq!(feed(&mut session, &bytes, &mut done), Ok(()));
    let mut wanted = vec![];
    frame::write(kind::SETTINGS, flag::ACK, 0, &[], &mut wanted);
    window_update(0, 480 * 16_384, &mut wanted);
    assert_eq!((session.out, done.len()), (wanted, 0));
}

#[test]
fn numbers_of_streams_come_to_an_end() {
    let mut session = session(1);
    session.next_stream = LAST_STREAM;
    assert!(session.has_room());
    session.open(request(1), &target(), NOW);
    assert!(session.is_going_away() && !session.has_room());
}
