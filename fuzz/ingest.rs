//! What must hold for any bytes a broadcaster sends. Shared by the fuzz targets and by `origin/tests/fuzz_seeds.rs`.

use std::{collections::BTreeMap, time::Instant};

use bytes::{Bytes, BytesMut};
use weir_origin::ingest::{
    flv::{Demuxer, FlvError, Unit},
    rtmp::{
        amf0,
        chunk::{ChunkError, ChunkReader, Message},
        command,
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
