//! What either side of a connection is allowed, and the short frames that say so. Pure.

use crate::{
    http::h2::{
        frame::{self, kind},
        hpack::MAX_LIST_BYTES,
    },
    viewer::Failure,
};

/// Room for a whole part of any usual bitrate, as browsers give.
const STREAM_WINDOW: u32 = 6 << 20;
const CONNECTION_WINDOW: u32 = 15 << 20;
/// What a connection's window is before the first update (RFC 9113 section 6.9.2).
const DEFAULT_WINDOW: u32 = 65_535;

/// RFC 9113 section 7.
pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const CANCEL: u32 = 8;

/// RFC 9113 section 6.5.2.
mod setting {
    pub(super) const ENABLE_PUSH: u16 = 2;
    pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(super) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// All that a client says first.
pub(super) fn greeting() -> Vec<u8> {
    let mut out = frame::PREFACE.to_vec();
    let settings = [
        (setting::ENABLE_PUSH, 0),
        (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW),
        (setting::MAX_HEADER_LIST_SIZE, MAX_LIST_BYTES as u32),
    ];
    let settings: Vec<u8> = settings
        .iter()
        .flat_map(|(name, value)| name.to_be_bytes().into_iter().chain(value.to_be_bytes()))
        .collect();
    frame::write(kind::SETTINGS, 0, 0, &settings, &mut out);
    window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW, &mut out);
    out
}

/// How many requests at once the server's settings allow, where they say, the last word counting; `None`: no settings. The others are about what
/// is never sent from here: bodies, long heads, and heads that refer to a table.
pub(super) fn most_streams(settings: &[u8]) -> Option<Option<u32>> {
    let (settings, []) = settings.as_chunks::<6>() else {
        return None;
    };
    let mut told = settings.iter().rev().filter_map(|&[n0, n1, v0, v1, v2, v3]| {
        let is_it = u16::from_be_bytes([n0, n1]) == setting::MAX_CONCURRENT_STREAMS;
        is_it.then_some(u32::from_be_bytes([v0, v1, v2, v3]))
    });
    Some(told.next())
}

/// What the server may send before it is given more.
#[derive(Debug)]
pub(in super::super) struct Window {
    size: u32,
    /// Not given back yet.
    used: u32,
}

impl Window {
    pub(super) const fn of_connection() -> Self {
        let size = CONNECTION_WINDOW;
        Self { size, used: 0 }
    }

    pub(in super::super) const fn of_stream() -> Self {
        let size = STREAM_WINDOW;
        Self { size, used: 0 }
    }

    /// Counts what came; how much is to be given back now, which is done by halves.
    pub(super) fn take(&mut self, bytes: u32) -> Result<Option<u32>, Failure> {
        self.used += bytes;
        if self.used > self.size {
            return Err(Failure::Garbage("more than the HTTP/2 windows allow"));
        }
        let is_due = self.used >= self.size / 2;
        Ok(is_due.then(|| std::mem::take(&mut self.used)))
    }
}

pub(super) fn window_update(stream: u32, by: u32, into: &mut Vec<u8>) {
    frame::write(kind::WINDOW_UPDATE, 0, stream, &by.to_be_bytes(), into);
}

pub(super) fn reset(stream: u32, code: u32, into: &mut Vec<u8>) {
    frame::write(kind::RST_STREAM, 0, stream, &code.to_be_bytes(), into);
}
