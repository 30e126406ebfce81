//! The head of an HTTP/1.1 request (RFC 9112): bytes in, a request out. Pure.
//!
//! Strict on purpose: what two programs could read differently (bare line feeds, two lengths, two hosts) is refused. A
//! viewer has no reason to send a body; one that is announced ends the connection after the answer.
//!
//! Before this: [`super`], which reads. After this: the node's handler.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    request::Parts,
};

/// Most headers that a limit may allow.
pub(super) const MOST_HEADERS: usize = 128;
/// How a client that speaks HTTP/2 without being told begins (RFC 9113 section 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a head may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadLimits {
    pub bytes: usize,
    /// At most [`MOST_HEADERS`].
    pub headers: usize,
}

/// What the bytes that came so far are.
#[derive(Debug)]
pub(super) enum Head {
    /// The beginning of something.
    More,
    Whole {
        request: Box<Parts>,
        /// Bytes of the input that belong to it.
        used: usize,
        /// The connection ends after the answer: asked for, or what follows is a body.
        last: bool,
    },
    /// HTTP/2 without TLS.
    H2,
}

/// Why a head is no request: the client's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub StatusCode);

const BAD: Malformed = Malformed(StatusCode::BAD_REQUEST);
const TOO_LARGE: Malformed = Malformed(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);

/// Reads the head at the beginning of `input`. `first`: nothing came before on this connection.
pub(super) fn read(input: &[u8], first: bool, limits: HeadLimits) -> Result<Head, Malformed> {
    if first && input.starts_with(b"PRI") {
        return match input.get(..H2_PREFACE.len()) {
            Some(begin) if begin == H2_PREFACE => Ok(Head::H2),
            None if H2_PREFACE.starts_with(input) => Ok(Head::More),
            _ => Err(BAD),
        };
    }
    let mut space = [const { MaybeUninit::uninit() }; MOST_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    let space = space.get_mut(..limits.headers).unwrap_or(&mut []);
    let used = match parsed.parse_with_uninit_headers(input, space) {
        Ok(httparse::Status::Complete(used)) if used <= limits.bytes => used,
        Ok(httparse::Status::Partial) if input.len() < limits.bytes => return Ok(Head::More),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(TOO_LARGE),
        Err(_) => return Err(BAD),
    };
    let head = input.get(..used).unwrap_or(input);
    if has_bare_line_feed(head) {
        return Err(BAD);
    }
    // One copy, which names and values then share.
    let shared = Bytes::copy_from_slice(head);
    let share = |slice: &[u8]| slice_of(&shared, head, slice);
    let version = match parsed.version {
        Some(0) => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    let method = Method::from_bytes(parsed.method.unwrap_or("").as_bytes()).map_err(|_| BAD)?;
    let target = share(parsed.path.unwrap_or("").as_bytes());
    let uri = Uri::from_maybe_shared(target).map_err(|_| BAD)?;
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for header in parsed.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| BAD)?;
        let value = HeaderValue::from_maybe_shared(share(header.value)).map_err(|_| BAD)?;
        headers.append(name, value);
    }
    let last = ends_here(version, &headers)?;
    let (mut request, ()) = Request::new(()).into_parts();
    (request.method, request.uri) = (method, uri);
    (request.version, request.headers) = (version, headers);
    let request = Box::new(request);
    Ok(Head::Whole { request, used, last })
}

/// Whether the connection ends after the answer; refuses what could be read in two ways (RFC 9112 sections 3.2 and 6.3).
fn ends_here(version: Version, headers: &HeaderMap) -> Result<bool, Malformed> {
    let hosts = headers.get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && version == Version::HTTP_11) {
        return Err(BAD);
    }
    let coded = headers.contains_key(TRANSFER_ENCODING);
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    if lengths.next().is_some() || (coded && (length.is_some() || version == Version::HTTP_10)) {
        return Err(BAD);
    }
    let length = match length.map(|value| value.as_bytes()) {
        None => 0,
        Some(digits) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            let text = std::str::from_utf8(digits).map_err(|_| BAD)?;
            text.parse::<u64>().map_err(|_| BAD)?
        }
        Some(_) => return Err(BAD),
    };
    let asked = headers.get_all(CONNECTION).iter().any(|value| {
        let text = value.to_str().unwrap_or("");
        text.split(',')
            .any(|option| option.trim().eq_ignore_ascii_case("close"))
    });
    Ok(asked || coded || length > 0 || version == Version::HTTP_10)
}

fn has_bare_line_feed(head: &[u8]) -> bool {
    let mut before = b' ';
    head.iter().any(|byte| {
        let bare = *byte == b'\n' && before != b'\r';
        before = *byte;
        bare
    })
}

/// `slice`, which lies within `of`, as a part of its copy `shared`.
fn slice_of(shared: &Bytes, of: &[u8], slice: &[u8]) -> Bytes {
    let from = (slice.as_ptr() as usize).wrapping_sub(of.as_ptr() as usize);
    match from.checked_add(slice.len()) {
        Some(to) if to <= shared.len() => shared.slice(from..to),
        _ => Bytes::copy_from_slice(slice),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 1000,
        headers: 8,
    };

    fn refused(text: &str) -> Option<u16> {
        read(text.as_bytes(), true, LIMITS)
            .err()
            .map(|Malformed(status)| status.as_u16())
    }

    fn whole(text: &str) -> (Box<Parts>, usize, bool) {
        match read(text.as_bytes(), true, LIMITS) {
            Ok(Head::Whole { request, used, last }) => (request, used, last),
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn a_players_request_is_read_whole_and_what_follows_is_left() {
        let text = "GET /app/s0/d/video.m3u8?_HLS_msn=7 HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\nX-A: b\r\n\r\nGET /next";
        let (request, used, last) = whole(text);
        assert_eq!(&text[used..], "GET /next");
        assert_eq!(
            (request.method, request.version, last),
            (Method::GET, Version::HTTP_11, false)
        );
        assert_eq!(request.uri.path(), "/app/s0/d/video.m3u8");
        assert_eq!(request.uri.query(), Some("_HLS_msn=7"));
        assert_eq!(request.headers["accept-encoding"], "gzip");
        assert_eq!(request.headers["x-a"], "b");
    }

    #[test]
    fn every_beginning_of_a_request_is_a_beginning() {
        let text = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        for cut in 0..text.len() {
            let read = read(&text.as_bytes()[..cut], true, LIMITS);
            assert!(matches!(read, Ok(Head::More)), "{cut}: {read:?}");
        }
    }

    #[test]
    fn a_connection_ends_when_it_is_asked_to_and_before_a_body() {
        for end in [
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Close\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            assert!(whole(end).2, "{end:?}");
        }
        assert!(!whole("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").2);
        assert!(!whole("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n").2);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for bad in [
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n",
            "GET / HTTP/1.1\nHost: h\n\n",
            "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: h\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET nonsense path HTTP/1.1\r\nHost: h\r\n\r\n",
            "\u{16}\u{3}\u{1} a TLS greeting\r\n\r\n",
        ] {
            assert_eq!(refused(bad), Some(400), "{bad:?}");
        }
    }

    #[test]
    fn what_is_too_much_is_refused_with_its_own_status() {
        let headers: String = (0..9).map(|n| format!("X-{n}: y\r\n")).collect();
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\n{headers}\r\n")), Some(431));
        assert_eq!(
            refused(&format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(1000))),
            Some(431)
        );
        assert_eq!(
            refused(&format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "y".repeat(1000))),
            Some(431)
        );
    }

    #[test]
    fn http_2_without_being_told_is_recognised_only_at_the_start() {
        assert!(matches!(read(H2_PREFACE, true, LIMITS), Ok(Head::H2)));
        assert!(matches!(read(&H2_PREFACE[..5], true, LIMITS), Ok(Head::More)));
        assert!(read(H2_PREFACE, false, LIMITS).is_err());
        assert_eq!(refused("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"), Some(400));
    }

    proptest! {
        #[test]
        fn garbage_is_never_more_than_refused(bytes in proptest::collection::vec(any::<u8>(), 0..1200), first in any::<bool>()) {
            if let Ok(Head::Whole { used, .. }) = read(&bytes, first, LIMITS) {
                prop_assert!(used <= bytes.len());
            }
        }
    }
}
