//! What a connection may cost before it is let in: at most 4 MiB on the heap, whatever it sends.
//!
//! One test alone in its program: the allocator it asks is the whole program's.

#[path = "../../fuzz/ingest.rs"]
#[allow(dead_code)]
mod ingest;

use std::time::Instant;

use bytes::BytesMut;
use weir_origin::ingest::rtmp::{end::End, session::Session};

#[global_allocator]
static HEAP: dhat::Alloc = dhat::Alloc;

/// The goal, in bytes.
const BEFORE_PUBLISH_MAX: usize = 4 << 20;

/// Bytes that arrive with one read of the socket.
const READ: usize = 4 << 10;

/// Sends `bytes` after the handshake, over and over, until the session ends or 64 MiB went in; lets nobody publish.
fn bombard(bytes: &[u8]) -> (End, usize) {
    let now = Instant::now();
    let mut session = Session::new();
    let mut input = BytesMut::zeroed(ingest::HANDSHAKE_BYTES);
    input[0] = 3;
    let mut sent = 0;
    for piece in std::iter::repeat_with(|| bytes.chunks(READ)).flatten() {
        match session.next(&mut input, now) {
            Ok(_) => session.welcome(),
            Err(end) => return (end, sent),
        }
        session.take_replies().unwrap();
        assert!(sent < 64 << 20, "it is listened to for ever");
        input.extend_from_slice(piece);
        sent += piece.len();
    }
    unreachable!("the bytes never end")
}

/// The beginning of a message of `length` bytes on its own chunk stream.
fn header(chunk_stream: u8, type_id: u8, length: u32) -> Vec<u8> {
    let [_, a, b, c] = length.to_be_bytes();
    vec![chunk_stream, 0, 0, 0, a, b, c, type_id, 1, 0, 0, 0]
}

#[test]
fn a_stranger_costs_less_than_four_mib_whatever_it_sends() {
    let profiler = dhat::Profiler::builder().testing().build();
    let before = dhat::HeapStats::get().curr_bytes;

    // Messages as long as they may be, on as many chunk streams as there may be, none of them ever finished.
    let mut interleaved = header(2, 1, 4);
    interleaved.extend_from_slice(&(31u32 << 10).to_be_bytes());
    for chunk_stream in 3..11 {
        interleaved.extend(header(chunk_stream, 20, 64 << 10));
        interleaved.extend_from_slice(&[0; 31 << 10]);
    }
    // A command that is short and has a thousand elements of text.
    let mut elements = Vec::new();
    for _ in 0..1000 {
        elements.extend_from_slice(&[2, 0, 60]);
        elements.extend_from_slice(&[b'x'; 60]);
    }
    let mut texts = header(2, 1, 4);
    texts.extend_from_slice(&(64u32 << 10).to_be_bytes());
    texts.extend(header(3, 20, elements.len() as u32));
    texts.extend(elements);
    // Questions whose answers nobody takes.
    let mut pings = Vec::new();
    for _ in 0..1000 {
        pings.extend(header(2, 4, 6));
        pings.extend_from_slice(&[0, 6, 0, 0, 0, 1]);
    }
    for (name, bytes) in [
        ("nothing but zeros", vec![0; READ]),
        ("interleaved", interleaved),
        ("texts", texts),
        ("pings", pings),
    ] {
        let (end, sent) = bombard(&bytes);
        println!("{name}: {end} after {sent} bytes");
    }

    let cost = dhat::HeapStats::get().max_bytes - before;
    println!("at most {cost} bytes");
    assert!(cost < BEFORE_PUBLISH_MAX, "{cost} bytes");
    drop(profiler);
}
