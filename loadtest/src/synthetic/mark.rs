//! The number inside a synthetic frame, and how to find it again in whatever the server made of it.

use std::sync::LazyLock;

use crate::tag::Track;

/// Letters and digits only: never a start code, never in need of emulation prevention.
const VIDEO: &[u8] = b"weir-video-";
const AUDIO: &[u8] = b"weir-audio-";
const DIGITS: usize = 16;

/// A frame that was found: its track and its number in decode order from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark {
    pub track: Track,
    pub number: u64,
}

/// All marks in some bytes (a part, a segment), in order.
pub fn marks(bytes: &[u8]) -> Vec<Mark> {
    let mut found = Vec::new();
    for (at, window) in bytes.windows(VIDEO.len()).enumerate() {
        let track = match window {
            VIDEO => Track::Video,
            AUDIO => Track::Audio,
            _ => continue,
        };
        let digits = bytes.get(at + VIDEO.len()..at + VIDEO.len() + DIGITS);
        let number = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u64::from_str_radix(digits, 16).ok());
        found.extend(number.map(|number| Mark { track, number }));
    }
    found
}

/// The mark of frame `number`, filled up with noise to `size` bytes (never less than the mark).
pub(super) fn frame_bytes(track: Track, number: u64, size: usize) -> Vec<u8> {
    let prefix = match track {
        Track::Video => VIDEO,
        Track::Audio => AUDIO,
    };
    let mut bytes = Vec::with_capacity(size.max(prefix.len() + DIGITS));
    bytes.extend_from_slice(prefix);
    bytes.extend_from_slice(format!("{number:016x}").as_bytes());
    let offset = (number as usize).wrapping_mul(251) % NOISE.len();
    while bytes.len() < size {
        let noise = &NOISE[offset..];
        bytes.extend_from_slice(&noise[..noise.len().min(size - bytes.len())]);
    }
    bytes
}

/// Bytes that no compressor shortens much and that are never zero.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    (0..1 << 16)
        .map(|_| {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % 255) as u8 + 1
        })
        .collect()
});
