//! Frames of HTTP/2 (RFC 9113 sections 4 and 6), read as they come and written. Pure.
//!
//! Before this: [`super::transport`], whose pieces end anywhere. After this: [`super::session`]. A body is handed on in the
//! pieces it came in; any other frame whole, and only one that was cut is copied.

use crate::viewer::Failure;

/// Longest payload either side sends: the default, which we leave as it is.
pub(super) const MAX_PAYLOAD: usize = 16_384;
const HEAD_BYTES: usize = 9;

/// What a connection begins with (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// RFC 9113 section 6; others are passed over.
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const HEADERS: u8 = 1;
    pub(in super::super) const RST_STREAM: u8 = 3;
    pub(in super::super) const SETTINGS: u8 = 4;
    pub(in super::super) const PUSH_PROMISE: u8 = 5;
    pub(in super::super) const PING: u8 = 6;
    pub(in super::super) const GOAWAY: u8 = 7;
    pub(in super::super) const WINDOW_UPDATE: u8 = 8;
    pub(in super::super) const CONTINUATION: u8 = 9;
}

pub(super) mod flag {
    pub(in super::super) const ACK: u8 = 1;
    pub(in super::super) const END_STREAM: u8 = 1;
    pub(in super::super) const END_HEADERS: u8 = 4;
    pub(in super::super) const PADDED: u8 = 8;
    pub(in super::super) const PRIORITY: u8 = 32;
}

/// What a frame says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// 0: the connection.
    pub(super) stream: u32,
    length: usize,
}

impl Head {
    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = *bytes.first_chunk::<HEAD_BYTES>()?;
        Some(Self {
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff,
            length: usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?,
        })
    }
}

/// Appends a frame. Its payload must not be longer than [`MAX_PAYLOAD`].
pub(super) fn write(kind: u8, flags: u8, stream: u32, payload: &[u8], into: &mut Vec<u8>) {
    debug_assert!(payload.len() <= MAX_PAYLOAD);
    let length = (payload.len() as u32).to_be_bytes();
    into.extend_from_slice(length.get(1..).unwrap_or(&[]));
    into.extend_from_slice(&[kind, flags]);
    into.extend_from_slice(&stream.to_be_bytes());
    into.extend_from_slice(payload);
}

/// What the next bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    Frame {
        head: Head,
        payload: &'a [u8],
    },
    /// The next piece of a DATA frame.
    Data {
        stream: u32,
        piece: &'a [u8],
        /// Bytes of the frame that came with it, padding and all: they count against the windows.
        weighs: u32,
        /// Nothing of the body will follow.
        end: bool,
    },
}

/// A DATA frame under way.
#[derive(Debug)]
struct Body {
    stream: u32,
    /// The length of its padding is still to come.
    is_padded: bool,
    left: usize,
    padding: usize,
    end: bool,
}

/// Takes frames out of a connection's bytes.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The beginning of a frame that was cut.
    partial: Vec<u8>,
    /// `partial` was a whole frame, which has been handed out.
    is_spent: bool,
    body: Option<Body>,
}

impl Reader {
    /// The next event; takes what it needs off the front of `input`. `None`: all of it was taken.
    pub(super) fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<Event<'a>>, Failure> {
        if self.is_spent {
            self.partial = Vec::new();
            self.is_spent = false;
        }
        if self.body.is_some() {
            return self.piece(input);
        }
        if self.partial.is_empty() {
            let Some(head) = Head::read(input) else {
                self.partial.extend_from_slice(std::mem::take(input));
                return Ok(None);
            };
            if self.begin(head)? {
                *input = input.get(HEAD_BYTES..).unwrap_or(&[]);
                return self.piece(input);
            }
            let Some((frame, rest)) = input.split_at_checked(HEAD_BYTES + head.length) else {
                self.partial.extend_from_slice(std::mem::take(input));
                return Ok(None);
            };
            *input = rest;
            let payload = frame.get(HEAD_BYTES..).unwrap_or(&[]);
            return Ok(Some(Event::Frame { head, payload }));
        }
        if !self.complete(HEAD_BYTES, input) {
            return Ok(None);
        }
        let Some(head) = Head::read(&self.partial) else {
            return Ok(None);
        };
        if self.begin(head)? {
            self.partial = Vec::new();
            return self.piece(input);
        }
        if !self.complete(HEAD_BYTES + head.length, input) {
            return Ok(None);
        }
        self.is_spent = true;
        let payload = self.partial.get(HEAD_BYTES..).unwrap_or(&[]);
        Ok(Some(Event::Frame { head, payload }))
    }

    /// Fills `partial` up to `wanted` bytes, if there are as many.
    fn complete(&mut self, wanted: usize, input: &mut &[u8]) -> bool {
        let missing = wanted.saturating_sub(self.partial.len()).min(input.len());
        let (more, rest) = input.split_at_checked(missing).unwrap_or((input, &[]));
        self.partial.extend_from_slice(more);
        *input = rest;
        self.partial.len() >= wanted
    }

    /// Checks a head; whether a body begins with it.
    fn begin(&mut self, head: Head) -> Result<bool, Failure> {
        if head.length > MAX_PAYLOAD {
            return Err(Failure::Garbage("an HTTP/2 frame longer than agreed"));
        }
        if head.kind != kind::DATA {
            return Ok(false);
        }
        let is_padded = head.has(flag::PADDED);
        if is_padded && head.length == 0 {
            return Err(PADDING);
        }
        self.body = Some(Body {
            stream: head.stream,
            is_padded,
            left: head.length,
            padding: 0,
            end: head.has(flag::END_STREAM),
        });
        Ok(true)
    }

    /// The next piece of the body under way.
    fn piece<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, Failure> {
        let Some(body) = &mut self.body else {
            return Ok(None);
        };
        let mut weighs = 0;
        if body.is_padded {
            let [length] = take(input, 1) else { return Ok(None) };
            body.is_padded = false;
            body.padding = usize::from(*length);
            body.left = body.left.checked_sub(1 + body.padding).ok_or(PADDING)?;
            weighs = 1;
        }
        let piece = take(input, body.left);
        body.left -= piece.len();
        weighs += piece.len();
        if body.left == 0 {
            let padding = take(input, body.padding).len();
            body.padding -= padding;
            weighs += padding;
        }
        let is_whole = body.left + body.padding == 0;
        if weighs == 0 && !is_whole {
            return Ok(None);
        }
        let event = Event::Data {
            stream: body.stream,
            piece,
            weighs: weighs as u32,
            end: is_whole && body.end,
        };
        if is_whole {
            self.body = None;
        }
        Ok(Some(event))
    }
}

const PADDING: Failure = Failure::Garbage("an HTTP/2 frame with more padding than it has room for");

/// Takes up to so many bytes off the front.
fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at_checked(most).unwrap_or((input, &[]));
    *input = rest;
    taken
}

/// The payload of a HEADERS frame without its padding and priority (RFC 9113 section 6.2).
pub(super) fn fragment(head: Head, mut payload: &[u8]) -> Result<&[u8], Failure> {
    if head.has(flag::PADDED) {
        let (padding, rest) = payload.split_first().ok_or(PADDING)?;
        let kept = rest.len().checked_sub(usize::from(*padding)).ok_or(PADDING)?;
        payload = rest.get(..kept).unwrap_or(&[]);
    }
    if head.has(flag::PRIORITY) {
        const PRIORITY_BYTES: usize = 5;
        payload = payload.get(PRIORITY_BYTES..).ok_or(PADDING)?;
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What was read, bodies joined.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Seen {
        frames: Vec<(u8, u8, u32, Vec<u8>)>,
        body: Vec<u8>,
        weight: u32,
        ends: Vec<u32>,
    }

    fn read(pieces: &[&[u8]]) -> Result<Seen, Failure> {
        let (mut reader, mut seen) = (Reader::default(), Seen::default());
        for mut input in pieces.iter().copied() {
            while let Some(event) = reader.next(&mut input)? {
                match event {
                    Event::Frame { head, payload } => {
                        seen.frames.push((head.kind, head.flags, head.stream, payload.to_vec()));
                    }
                    Event::Data {
                        stream,
                        piece,
                        weighs,
                        end,
                    } => {
                        seen.body.extend_from_slice(piece);
                        seen.weight += weighs;
                        seen.ends.extend(end.then_some(stream));
                    }
                }
            }
            assert!(input.is_empty());
            assert!(reader.partial.len() <= HEAD_BYTES + MAX_PAYLOAD);
        }
        Ok(seen)
    }

    fn conversation() -> Vec<u8> {
        let mut bytes = vec![];
        write(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9], &mut bytes);
        write(kind::HEADERS, flag::END_HEADERS, 1, b"\x88", &mut bytes);
        write(kind::DATA, flag::PADDED, 1, b"\x03hello\0\0\0", &mut bytes);
        write(0x77, 0xff, 0x8000_0009, b"from the future", &mut bytes);
        write(kind::DATA, 0, 1, b"", &mut bytes);
        write(kind::DATA, flag::END_STREAM, 1, b" you", &mut bytes);
        write(kind::PING, 0, 0, b"12345678", &mut bytes);
        write(kind::DATA, flag::END_STREAM | flag::PADDED, 3, b"\0", &mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn frames_read_the_same_however_they_are_cut(cuts in proptest::collection::vec(0usize..130, 0..9)) {
            let whole = conversation();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &whole[cut[0]..cut[1]]).collect();
            let seen = read(&pieces).unwrap();
            prop_assert_eq!(&seen, &read(&[&whole]).unwrap());
            prop_assert_eq!(&seen.body, b"hello you");
            prop_assert_eq!((seen.weight, seen.ends), (9 + 4 + 1, vec![1, 3]));
            prop_assert_eq!(seen.frames.iter().map(|frame| frame.0).collect::<Vec<_>>(), [4, 1, 0x77, 6]);
            prop_assert_eq!(seen.frames[2].2, 9, "the reserved bit says nothing");
        }

        #[test]
        fn garbage_never_panics_nor_fills_memory(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..60)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let _ = read(&pieces);
        }

        #[test]
        fn any_padding_and_priority_is_taken_off_or_refused(flags in any::<u8>(), payload in proptest::collection::vec(any::<u8>(), 0..30)) {
            let head = Head { kind: kind::HEADERS, flags, stream: 1, length: payload.len() };
            if let Ok(fragment) = fragment(head, &payload) {
                prop_assert!(fragment.len() <= payload.len());
            }
        }
    }

    #[test]
    fn what_is_too_long_or_padded_beyond_its_end_is_refused() {
        assert!(read(&[&[0, 0x40, 1, 0, 0, 0, 0, 0, 1]]).is_err());
        assert!(read(&[&[0, 0, 0, kind::DATA, flag::PADDED, 0, 0, 0, 1]]).is_err());
        assert!(read(&[&[0, 0, 2, kind::DATA, flag::PADDED, 0, 0, 0, 1, 2, 0]]).is_err());
        assert!(read(&[b"HTTP/1.1 400 Bad Request\r\n"]).is_err());
    }
}
