//! An HTTP/1.1 response, read as it comes (RFC 9112), and where bodies go. Pure but for the time handed in.

use httparse::Status;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::Response;
use crate::{
    headers::Headers,
    moment::Moment,
    stamp::HEAD_BYTES,
    viewer::{Failure, MediaBody},
};

/// Longest response head, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Most headers.
const MAX_HEADERS: usize = 64;
/// Longest playlist kept.
const MAX_TEXT_BYTES: usize = weir_shared::hls::parse::MAX_PLAYLIST_BYTES;
/// Longest media body read: a server that never ends one is cut off here.
const MAX_MEDIA_BYTES: u64 = 1 << 30;
/// Longest line of a chunked body: a size and its extensions.
const MAX_CHUNK_LINE: usize = 256;

/// Where a body goes: a playlist is kept, anything else is counted and hashed.
pub struct Sink {
    is_text: bool,
    hash: bool,
    text: Vec<u8>,
    bytes: u64,
    head: [u8; HEAD_BYTES],
    hasher: Option<Box<Xxh3>>,
    /// Hash of a body that came in one piece.
    whole: Option<u64>,
}

impl Sink {
    pub fn new(is_text: bool, hash: bool) -> Self {
        Self {
            is_text,
            hash: hash && !is_text,
            text: Vec::new(),
            bytes: 0,
            head: [0; HEAD_BYTES],
            hasher: None,
            whole: None,
        }
    }

    /// Takes the next piece. `last`: no more will come, so that one hash over it all is enough.
    pub fn take(&mut self, piece: &[u8], last: bool) -> Result<(), Failure> {
        if self.is_text {
            if self.text.len() + piece.len() > MAX_TEXT_BYTES {
                return Err(Failure::TooLong(MAX_TEXT_BYTES as u64));
            }
            self.text.extend_from_slice(piece);
        } else {
            let from = usize::try_from(self.bytes).unwrap_or(usize::MAX);
            if let Some(room) = self.head.get_mut(from..) {
                room.iter_mut().zip(piece).for_each(|(to, byte)| *to = *byte);
            }
            if self.hash {
                match &mut self.hasher {
                    None if last && self.bytes == 0 => self.whole = Some(xxh3_64(piece)),
                    hasher => hasher.get_or_insert_with(Default::default).update(piece),
                }
            }
        }
        self.bytes += piece.len() as u64;
        if self.bytes > MAX_MEDIA_BYTES {
            return Err(Failure::TooLong(MAX_MEDIA_BYTES));
        }
        Ok(())
    }

    pub fn finish(self) -> (Vec<u8>, MediaBody) {
        let empty = self.hash && self.bytes == 0;
        let streamed = self.hasher.map(|hasher| hasher.digest());
        let hash = self.whole.or(streamed).or(empty.then(|| xxh3_64(&[])));
        let media = MediaBody {
            bytes: self.bytes,
            hash,
            head: self.head,
        };
        (self.text, media)
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked(Chunk),
    UntilClose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    Size,
    Data(u64),
    AfterData,
    Trailer,
}

/// A response under way.
pub(super) struct Reader {
    head: Vec<u8>,
    first_byte: Option<Moment>,
    body: Option<Body>,
    sink: Option<Sink>,
    /// Noted where they are judged.
    headers: Option<Headers>,
    line: Vec<u8>,
}

struct Body {
    status: u16,
    location: Option<String>,
    gzip: bool,
    close: bool,
    framing: Framing,
}

/// What a piece of input did.
pub(super) enum Progress {
    More,
    /// The response is whole; whether the connection can be used again.
    Whole {
        response: Box<Response>,
        reusable: bool,
    },
}

impl Reader {
    pub(super) fn new(sink: Sink, headers: Option<Headers>) -> Self {
        Self {
            head: Vec::new(),
            first_byte: None,
            body: None,
            sink: Some(sink),
            headers,
            line: Vec::new(),
        }
    }

    /// Whether nothing of the response has come yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.first_byte.is_none()
    }

    /// Takes what the connection gave.
    pub(super) fn feed(&mut self, mut input: &[u8], now: Moment) -> Result<Progress, Failure> {
        self.first_byte.get_or_insert(now);
        while self.body.is_none() {
            // Usually the head is in the first piece: no copy then.
            let parsed = if self.head.is_empty() {
                parse_head(input, &mut self.headers)?
            } else {
                let before = self.head.len();
                let room = MAX_HEAD_BYTES.saturating_sub(before).min(input.len());
                self.head.extend_from_slice(input.get(..room).unwrap_or(input));
                parse_head(&self.head, &mut self.headers)?.map(|(used, body)| (used.saturating_sub(before), body))
            };
            match parsed {
                // 103 and the like come before the answer.
                Some((used, body)) if (100..200).contains(&body.status) => {
                    self.head.clear();
                    input = input.get(used..).unwrap_or(&[]);
                    if input.is_empty() {
                        return Ok(Progress::More);
                    }
                }
                Some((used, body)) => {
                    self.body = Some(body);
                    input = input.get(used..).unwrap_or(&[]);
                }
                None => {
                    if self.head.is_empty() {
                        self.head.extend_from_slice(input);
                    }
                    if self.head.len() >= MAX_HEAD_BYTES {
                        return Err(Failure::Garbage("the head of an answer has no end"));
                    }
                    return Ok(Progress::More);
                }
            }
        }
        self.feed_body(input, now)
    }

    fn feed_body(&mut self, mut input: &[u8], now: Moment) -> Result<Progress, Failure> {
        let (Some(body), Some(sink)) = (&mut self.body, &mut self.sink) else {
            return Err(Failure::Garbage("more than one answer to one request"));
        };
        loop {
            match &mut body.framing {
                Framing::Length(length) => {
                    let left = length.saturating_sub(sink.bytes());
                    let piece = input
                        .get(..usize::try_from(left).unwrap_or(usize::MAX))
                        .unwrap_or(input);
                    let last = piece.len() as u64 == left;
                    sink.take(piece, last)?;
                    if !last {
                        return Ok(Progress::More);
                    }
                    let reusable = !body.close && piece.len() == input.len();
                    return self.whole(now, reusable);
                }
                Framing::UntilClose => {
                    sink.take(input, false)?;
                    return Ok(Progress::More);
                }
                Framing::Chunked(Chunk::Data(left)) => {
                    let piece = input
                        .get(..usize::try_from(*left).unwrap_or(usize::MAX))
                        .unwrap_or(input);
                    sink.take(piece, false)?;
                    *left -= piece.len() as u64;
                    input = input.get(piece.len()..).unwrap_or(&[]);
                    if *left > 0 {
                        return Ok(Progress::More);
                    }
                    body.framing = Framing::Chunked(Chunk::AfterData);
                }
                Framing::Chunked(state) => {
                    let Some(end) = input.iter().position(|b| *b == b'\n') else {
                        self.line.extend_from_slice(input);
                        if self.line.len() > MAX_CHUNK_LINE {
                            return Err(Failure::Garbage("a chunk's head has no end"));
                        }
                        return Ok(Progress::More);
                    };
                    self.line.extend_from_slice(input.get(..end).unwrap_or(&[]));
                    input = input.get(end + 1..).unwrap_or(&[]);
                    let line = std::mem::take(&mut self.line);
                    let line = line.strip_suffix(b"\r").unwrap_or(&line);
                    match state {
                        Chunk::Size => {
                            let size = chunk_size(line).ok_or(Failure::Garbage("a chunk without a size"))?;
                            *state = if size == 0 { Chunk::Trailer } else { Chunk::Data(size) };
                        }
                        Chunk::AfterData => *state = Chunk::Size,
                        Chunk::Trailer if line.is_empty() => {
                            let reusable = !body.close && input.is_empty();
                            return self.whole(now, reusable);
                        }
                        Chunk::Trailer | Chunk::Data(_) => {}
                    }
                }
            }
        }
    }

    /// The connection was closed.
    pub(super) fn close(&mut self, now: Moment) -> Result<Progress, Failure> {
        let got = self.sink.as_ref().map_or(0, Sink::bytes);
        match self.body.as_ref().map(|body| body.framing) {
            None => Err(Failure::Reset),
            Some(Framing::UntilClose) => self.whole(now, false),
            Some(Framing::Length(announced)) => Err(Failure::Truncated { got, announced }),
            Some(Framing::Chunked(_)) => Err(Failure::Truncated {
                got,
                announced: got + 1,
            }),
        }
    }

    fn whole(&mut self, now: Moment, reusable: bool) -> Result<Progress, Failure> {
        let (Some(body), Some(sink)) = (self.body.take(), self.sink.take()) else {
            return Err(Failure::Garbage("more than one answer to one request"));
        };
        let (text, media) = sink.finish();
        let response = Box::new(Response {
            status: body.status,
            location: body.location,
            gzip: body.gzip,
            headers: self.headers,
            text,
            media,
            first_byte: self.first_byte.unwrap_or(now),
            at: now,
        });
        Ok(Progress::Whole { response, reusable })
    }
}

fn parse_head(input: &[u8], noted: &mut Option<Headers>) -> Result<Option<(usize, Body)>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let used = match head.parse(input) {
        Ok(Status::Complete(used)) => used,
        Ok(Status::Partial) => return Ok(None),
        Err(_) => return Err(Failure::Garbage("no HTTP/1.1 status line and headers")),
    };
    let status = head.code.unwrap_or(0);
    let mut body = Body {
        status,
        location: None,
        gzip: false,
        close: head.version == Some(0),
        framing: Framing::UntilClose,
    };
    for header in head.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or("").trim();
        if let Some(noted) = noted {
            noted.take(header.name, value);
        }
        match header.name {
            name if name.eq_ignore_ascii_case("content-length") => {
                let length = value
                    .parse()
                    .map_err(|_| Failure::Garbage("a Content-Length that is no number"))?;
                if body.framing == Framing::UntilClose {
                    body.framing = Framing::Length(length);
                }
            }
            name if name.eq_ignore_ascii_case("transfer-encoding")
                && value.to_ascii_lowercase().ends_with("chunked") =>
            {
                body.framing = Framing::Chunked(Chunk::Size);
            }
            name if name.eq_ignore_ascii_case("content-encoding") => body.gzip = value.eq_ignore_ascii_case("gzip"),
            name if name.eq_ignore_ascii_case("connection") => body.close |= value.eq_ignore_ascii_case("close"),
            name if name.eq_ignore_ascii_case("location") => body.location = Some(value.to_owned()),
            _ => {}
        }
    }
    if matches!(status, 204 | 304) {
        body.framing = Framing::Length(0);
    }
    Ok(Some((used, body)))
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|b| *b == b';').next()?;
    let text = std::str::from_utf8(digits).ok()?.trim();
    u64::from_str_radix(text, 16)
        .ok()
        .filter(|size| *size <= MAX_MEDIA_BYTES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]], is_text: bool) -> Result<Option<Box<Response>>, Failure> {
        let mut reader = Reader::new(Sink::new(is_text, true), None);
        for piece in pieces {
            if let Progress::Whole { response, .. } = reader.feed(piece, Moment(5))? {
                return Ok(Some(response));
            }
        }
        Ok(None)
    }

    const LENGTH: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Encoding: gzip\r\n\r\nhello";
    const CHUNKED: &[u8] =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nA: b\r\n\r\n";

    proptest! {
        #[test]
        fn an_answer_reads_the_same_however_it_is_cut(cuts in proptest::collection::vec(0usize..80, 0..6), chunked in any::<bool>()) {
            let whole = if chunked { CHUNKED } else { LENGTH };
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
            cuts.sort_unstable();
            let mut pieces = vec![];
            let mut from = 0;
            for cut in cuts.into_iter().chain([whole.len()]) {
                if cut > from {
                    pieces.push(&whole[from..cut]);
                }
                from = cut;
            }
            let text = read(&pieces, true).unwrap().unwrap();
            prop_assert_eq!(&text.text, b"hello");
            prop_assert_eq!(text.gzip, !chunked);
            let media = read(&pieces, false).unwrap().unwrap().media;
            prop_assert_eq!((media.bytes, media.hash), (5, Some(xxh3_64(b"hello"))));
            prop_assert_eq!(&media.head[..5], b"hello");
        }

        #[test]
        fn garbage_never_panics_nor_fills_memory(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = Reader::new(Sink::new(true, false), None);
            for _ in 0..200 {
                match reader.feed(&bytes, Moment(1)) {
                    Ok(Progress::More) => {}
                    _ => return Ok(()),
                }
            }
            prop_assert!(reader.head.len() <= 2 * MAX_HEAD_BYTES);
        }
    }

    #[test]
    fn what_ends_too_early_is_truncated() {
        let mut reader = Reader::new(Sink::new(false, false), None);
        assert!(matches!(
            reader.feed(&LENGTH[..LENGTH.len() - 2], Moment(1)),
            Ok(Progress::More)
        ));
        assert_eq!(
            reader.close(Moment(1)).err(),
            Some(Failure::Truncated { got: 3, announced: 5 })
        );
    }

    #[test]
    fn a_body_that_never_ends_is_cut_off() {
        let mut reader = Reader::new(Sink::new(true, false), None);
        assert!(reader.feed(b"HTTP/1.1 200 OK\r\n\r\n", Moment(1)).is_ok());
        let megabyte = vec![b'x'; 1 << 20];
        let error = (0..20).find_map(|_| reader.feed(&megabyte, Moment(1)).err());
        assert!(matches!(error, Some(Failure::TooLong(_))));
    }

    #[test]
    fn an_early_hint_is_passed_over() {
        let hinted = [b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", LENGTH].concat();
        assert_eq!(read(&[&hinted], true).unwrap().unwrap().text, b"hello");
    }
}
