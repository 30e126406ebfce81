//! What must hold for any bytes a broadcaster sends. Shared by the fuzz targets and by `origin/tests/fuzz_seeds.rs`.

use std::{collections::BTreeMap, time::Instant};

use bytes::{Bytes, BytesMut};
use weir_origin::ingest::{
    flv::{Demuxer, FlvError, Unit},
    rtmp::{
        amf0,
        chunk::{ChunkError, ChunkReader, Message},
        command,
        session::{Session, Step},
    },
    timeline::Timeline,
};

/// A chunk stream: the same messages, or the same error, however the bytes arrive.
pub(super) fn chunk(bytes: &[u8]) -> Result<Vec<Message>, ChunkError> {
    let whole = messages(bytes, bytes.len());
    assert_eq!(messages(bytes, 1), whole);
    assert_eq!(messages(bytes, 13), whole);
    whole
}

fn messages(bytes: &[u8], step: usize) -> Result<Vec<Message>, ChunkError> {
    let mut reader = ChunkReader::new();
    reader.raise_limits();
    let (mut input, mut messages) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(step.max(1)) {
        input.extend_from_slice(piece);
        while let Some(message) = reader.next(&mut input)? {
            messages.push(message);
        }
    }
    Ok(messages)
}

/// AMF0: what is accepted can be written and is then read the same; commands and metadata follow.
pub(super) fn amf0(bytes: &[u8]) -> Result<Vec<amf0::Value>, amf0::AmfError> {
    for wrapped in [false, true] {
        let _ = command::parse(bytes, wrapped);
        let _ = command::parse_metadata(bytes, wrapped);
    }
    let values = amf0::decode(bytes)?;
    let written = amf0::encode(&values);
    // Compared as bytes: a NaN does not equal itself.
    let again = amf0::decode(&written).map(|values| amf0::encode(&values));
    // Bytes that are not UTF-8 grow when they are replaced, perhaps beyond the string limit.
    if !matches!(again, Err(amf0::AmfError::StringTooLong(_))) {
        assert_eq!(again, Ok(written));
    }
    Ok(values)
}

/// Media messages, each behind its RTMP type (one byte) and its length (two bytes): decode times never decrease.
pub(super) fn flv(mut bytes: &[u8]) -> Result<Vec<Unit>, FlvError> {
    let (mut demuxer, mut timeline) = (Demuxer::new(), Timeline::new());
    let (mut units, mut last) = (Vec::new(), BTreeMap::new());
    let now = Instant::now();
    while let Some((&[type_id, high, low], rest)) = bytes.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let (payload, rest) = rest.split_at(length);
        bytes = rest;
        let payload = Bytes::copy_from_slice(payload);
        if type_id == 8 {
            demuxer.audio(payload)?;
        } else {
            demuxer.video(payload)?;
        }
        let before = units.len();
        units.extend(std::iter::from_fn(|| demuxer.poll()));
        for unit in &units[before..] {
            let Unit::Frame(frame) = unit else { continue };
            // Any time will do; the frame's own bytes are one that a fuzzer can steer.
            let timestamp = frame.data.iter().fold(0u32, |t, &b| (t << 8) | u32::from(b));
            let placed = timeline.place(frame.track, timestamp, frame.nanos, frame.composition_ms, now);
            let last = last.insert(frame.track, placed.dts);
            assert!(Some(placed.dts) >= last);
        }
    }
    Ok(units)
}

/// Bytes of C0, C1 and C2, which come before anything that a fuzzer could shape.
pub(super) const HANDSHAKE_BYTES: usize = 1 + 2 * 1536;

/// What became of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dialogue {
    /// Steps in their order: `c`onnect, `p`ublish, `e`vent, `d`ropped.
    pub steps: String,
    /// Why it ended, as the metric names it. `None`: it waits for more.
    pub end: Option<&'static str>,
    /// What the encoder was told, farewell included.
    pub replied: Vec<u8>,
}

/// All that a connection sends after its handshake; everybody is let in. It ends the same however the bytes arrive.
pub(super) fn session(bytes: &[u8]) -> Dialogue {
    let whole = dialogue(bytes, bytes.len());
    let pieces = dialogue(bytes, 13);
    assert_eq!((&pieces.steps, pieces.end), (&whole.steps, whole.end));
    whole
}

fn dialogue(bytes: &[u8], piece: usize) -> Dialogue {
    let now = Instant::now();
    let mut session = Session::new();
    let mut input = BytesMut::zeroed(HANDSHAKE_BYTES);
    input[0] = 3;
    let mut dialogue = Dialogue {
        steps: String::new(),
        end: None,
        replied: Vec::new(),
    };
    for piece in std::iter::once(&[][..]).chain(bytes.chunks(piece.max(1))) {
        input.extend_from_slice(piece);
        loop {
            match session.next(&mut input, now) {
                Ok(Some(Step::Connect { .. })) => {
                    dialogue.steps.push('c');
                    session.welcome();
                }
                Ok(Some(Step::Publish { .. })) => {
                    dialogue.steps.push('p');
                    session.accept();
                }
                Ok(Some(Step::Event { .. })) => dialogue.steps.push('e'),
                Ok(Some(Step::Dropped { .. })) => dialogue.steps.push('d'),
                Ok(None) => break,
                Err(end) => {
                    session.farewell(&end);
                    dialogue.end = Some(end.as_str());
                    break;
                }
            }
        }
        match session.take_replies() {
            Ok(replies) => dialogue.replied.extend_from_slice(&replies),
            Err(end) => dialogue.end = dialogue.end.or(Some(end.as_str())),
        }
        if dialogue.end.is_some() {
            break;
        }
    }
    let order = dialogue.steps.trim_end_matches(['e', 'd']);
    assert!("cp".starts_with(order), "{}", dialogue.steps);
    dialogue
}
