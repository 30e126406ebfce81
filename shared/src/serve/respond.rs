//! Responses both nodes give: headers, validators, ranges, refusals. Pure: request facts in, response out.
//!
//! Every answer, refusals included, carries CORS headers; playlists are gzip-encoded when the client takes it, media never.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{
        ACCEPT_ENCODING, ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL,
        CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, LOCATION, RANGE,
        RETRY_AFTER, VARY,
    },
};

use super::{body::Body, gzip};

/// RFC 8216bis section 4.
pub const PLAYLIST_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.apple.mpegurl");
/// WebVTT.
pub const TRACK_TYPE: HeaderValue = HeaderValue::from_static("text/vtt; charset=utf-8");
pub const PICTURE_TYPE: HeaderValue = HeaderValue::from_static("image/jpeg");
pub const VIDEO_TYPE: HeaderValue = HeaderValue::from_static("video/mp4");
pub const AUDIO_TYPE: HeaderValue = HeaderValue::from_static("audio/mp4");
pub const JSON_TYPE: HeaderValue = HeaderValue::from_static("application/json");

/// Objects whose name is never reused: a year.
pub const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// Multivariant playlists, which all viewers share.
pub const MULTIVARIANT_LIFETIME: HeaderValue = HeaderValue::from_static("public, max-age=1");
/// Refusals, and whatever must not outlive the moment.
pub const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// RFC 9218: what a player waits for first. Playlists before media (llhls: Appendix B.1); the rest keeps the default.
const PRIORITY: HeaderName = HeaderName::from_static("priority");
const PLAYLIST_PRIORITY: HeaderValue = HeaderValue::from_static("u=1");
const MEDIA_PRIORITY: HeaderValue = HeaderValue::from_static("u=2");

const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");
const ANY: HeaderValue = HeaderValue::from_static("*");
const EXPOSED: HeaderValue = HeaderValue::from_static("Age, Date, Content-Length, Content-Range, ETag, Retry-After");

/// Lifetimes of playlists (llhls: Appendix B.1) for a target duration in seconds.
#[derive(Debug, Clone)]
pub struct PlaylistLifetimes {
    /// Answer to a blocking request: long in shared caches, not at all in a browser, which would otherwise meet its own
    /// old copy when it repeats a request (video.js does, at the start of a segment).
    pub blocked: HeaderValue,
    /// Answer to a plain request: a second in shared caches (half a target duration at most), none in a browser, whose
    /// reloaded page would start that much behind.
    pub plain: HeaderValue,
    /// Multivariant playlist.
    pub multivariant: HeaderValue,
}

impl PlaylistLifetimes {
    pub fn new(target_duration_seconds: u32) -> Self {
        let value = |text: String| HeaderValue::try_from(text).unwrap_or(NO_STORE);
        let target = u64::from(target_duration_seconds);
        Self {
            blocked: value(format!("public, max-age=0, s-maxage={}", target * 6)),
            plain: value(format!("public, max-age=0, s-maxage={}", (target / 2).min(1))),
            multivariant: MULTIVARIANT_LIFETIME,
        }
    }
}

/// What a request says about the form of its answer.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
}

impl Asked<'_> {
    /// Whether the client takes gzip.
    pub fn gzip(&self) -> bool {
        gzip::accepted(self.headers.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()))
    }

    fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }
}

/// A playlist, already in the encoding that [`Asked::gzip`] asked for.
pub fn playlist(asked: Asked<'_>, text: impl Into<Body>, gzipped: bool, lifetime: HeaderValue) -> Response<Body> {
    self::text(asked, PLAYLIST_TYPE, text, gzipped, lifetime)
}

/// A text that players read as they do a playlist, in the same way.
pub fn text(
    asked: Asked<'_>,
    content_type: HeaderValue,
    text: impl Into<Body>,
    gzipped: bool,
    lifetime: HeaderValue,
) -> Response<Body> {
    let text = text.into();
    let mut response = base(StatusCode::OK, lifetime);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(PRIORITY, PLAYLIST_PRIORITY);
    if gzipped {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    if !asked.is_head() {
        *response.body_mut() = text;
    }
    response
}

/// An immutable media object: its bytes in pieces, its entity tag. Honours `If-None-Match`, `Range` and `If-Range`.
pub fn media(asked: Asked<'_>, chunks: Vec<Bytes>, content_type: HeaderValue, etag: HeaderValue) -> Response<Body> {
    let length: u64 = chunks.iter().map(|c| c.len() as u64).sum();
    if matches_any(asked.headers.get(IF_NONE_MATCH), &etag) {
        let mut response = base(StatusCode::NOT_MODIFIED, IMMUTABLE);
        response.headers_mut().insert(ETAG, etag);
        return response;
    }
    let range_applies = asked.method == Method::GET && asked.headers.get(IF_RANGE).is_none_or(|v| *v == etag);
    let range = asked.headers.get(RANGE).filter(|_| range_applies);
    let mut response = match range.map(|r| byte_range(r, length)) {
        None | Some(Requested::Whole) => {
            let mut response = base(StatusCode::OK, IMMUTABLE);
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            if !asked.is_head() {
                *response.body_mut() = Body::chunks(chunks);
            }
            response
        }
        Some(Requested::Bytes { first, last }) => {
            let mut response = base(StatusCode::PARTIAL_CONTENT, IMMUTABLE);
            let headers = response.headers_mut();
            headers.insert(CONTENT_LENGTH, HeaderValue::from(last - first + 1));
            if let Ok(value) = HeaderValue::try_from(format!("bytes {first}-{last}/{length}")) {
                headers.insert(CONTENT_RANGE, value);
            }
            *response.body_mut() = Body::chunks(cut(chunks, first, last));
            response
        }
        Some(Requested::Unsatisfiable) => {
            let mut response = refusal(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "range_not_satisfiable",
                "the range starts past the end of the object",
            );
            if let Ok(value) = HeaderValue::try_from(format!("bytes */{length}")) {
                response.headers_mut().insert(CONTENT_RANGE, value);
            }
            return response;
        }
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(ETAG, etag);
    headers.insert(PRIORITY, MEDIA_PRIORITY);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response
}

/// Bytes of a resource that is not there as a whole.
#[derive(Debug)]
pub struct SubRange {
    /// Not empty.
    pub pieces: Vec<Bytes>,
    /// Position of the first byte.
    pub first: u64,
    /// Length of the resource, once it is known.
    pub whole: Option<u64>,
    pub content_type: HeaderValue,
    pub lifetime: HeaderValue,
}

/// The answer to a request for a range that is at hand.
pub fn sub_range(asked: Asked<'_>, range: SubRange) -> Response<Body> {
    let length: u64 = range.pieces.iter().map(|piece| piece.len() as u64).sum();
    let last = range.first.saturating_add(length).saturating_sub(1);
    let whole = range.whole.map_or("*".to_owned(), |whole| whole.to_string());
    let mut response = base(StatusCode::PARTIAL_CONTENT, range.lifetime);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, range.content_type);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(PRIORITY, MEDIA_PRIORITY);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Ok(value) = HeaderValue::try_from(format!("bytes {}-{last}/{whole}", range.first)) {
        headers.insert(CONTENT_RANGE, value);
    }
    if !asked.is_head() {
        *response.body_mut() = Body::chunks(range.pieces);
    }
    response
}

/// A refusal: JSON with a word for programs and a sentence for people.
pub fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let text = serde_json::json!({"error": {"code": code, "message": message}}).to_string();
    let mut response = base(status, NO_STORE);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON_TYPE);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    *response.body_mut() = Body::full(text.into());
    response
}

/// A refusal of the origin's, for a viewer of the edge: its status and its JSON reason.
pub fn passed_on(status: StatusCode, reason: Bytes) -> Response<Body> {
    let mut response = base(status, NO_STORE);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON_TYPE);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(reason.len()));
    if status.is_server_error() {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    *response.body_mut() = Body::full(reason);
    response
}

/// A page or one of its parts, as it is.
pub fn page(asked: Asked<'_>, content_type: HeaderValue, lifetime: HeaderValue, bytes: Bytes) -> Response<Body> {
    let mut response = base(StatusCode::OK, lifetime);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    if !asked.is_head() {
        *response.body_mut() = Body::full(bytes);
    }
    response
}

/// A JSON document that must not be kept.
pub fn json(value: &serde_json::Value) -> Response<Body> {
    let text = value.to_string();
    let mut response = base(StatusCode::OK, NO_STORE);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON_TYPE);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    *response.body_mut() = Body::full(text.into());
    response
}

/// A refusal that ends by itself: 503 and 429 say when to come back.
pub fn refusal_until(status: StatusCode, code: &str, message: &str, retry_after_seconds: u32) -> Response<Body> {
    let mut response = refusal(status, code, message);
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(retry_after_seconds));
    response
}

/// 302: this once, what was asked for is there. `location` may be relative.
pub fn redirect(location: &str) -> Response<Body> {
    let mut response = base(StatusCode::FOUND, NO_STORE);
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    if let Ok(location) = HeaderValue::try_from(location) {
        headers.insert(LOCATION, location);
    }
    response
}

/// 405, naming what is allowed.
pub fn method_not_allowed() -> Response<Body> {
    let mut response = refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "use GET, HEAD or OPTIONS",
    );
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    response
}

/// Answer to a CORS preflight: ranges and conditional requests may be sent from anywhere.
pub fn preflight() -> Response<Body> {
    let mut response = base(
        StatusCode::NO_CONTENT,
        HeaderValue::from_static("public, max-age=86400"),
    );
    let headers = response.headers_mut();
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, OPTIONS"),
    );
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("Range, If-None-Match, If-Range, Cache-Control, Content-Type"),
    );
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    response
}

fn base(status: StatusCode, lifetime: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(12);
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.insert(TIMING_ALLOW_ORIGIN, ANY);
    headers.insert(CACHE_CONTROL, lifetime);
    response
}

/// `If-None-Match` (RFC 9110 section 13.1.2): weak comparison against a list, or `*`.
fn matches_any(header: Option<&HeaderValue>, etag: &HeaderValue) -> bool {
    let Some(list) = header.and_then(|h| h.to_str().ok()) else {
        return false;
    };
    list.split(',')
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == etag.as_bytes())
}

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Requested {
    /// No range that is understood: the whole object (RFC 9110 section 14.2).
    Whole,
    Bytes {
        first: u64,
        last: u64,
    },
    Unsatisfiable,
}

/// Reads a `Range` header for an object of this length: one range of bytes (RFC 9110 section 14.2).
pub fn byte_range(header: &HeaderValue, length: u64) -> Requested {
    let parsed = header
        .to_str()
        .ok()
        .and_then(|text| text.trim().strip_prefix("bytes="))
        .filter(|spec| !spec.contains(','))
        .and_then(|spec| spec.trim().split_once('-'));
    let Some((first, last)) = parsed else {
        return Requested::Whole;
    };
    let number = |text: &str| -> Option<u64> {
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (first, last) {
        ("", suffix) => match number(suffix) {
            None => Requested::Whole,
            Some(0) => Requested::Unsatisfiable,
            Some(_) if length == 0 => Requested::Unsatisfiable,
            Some(n) => Requested::Bytes {
                first: length.saturating_sub(n),
                last: length - 1,
            },
        },
        (first, last) => {
            let Some(first) = number(first) else {
                return Requested::Whole;
            };
            let last = match last {
                "" => u64::MAX,
                text => match number(text) {
                    Some(n) if n >= first => n,
                    _ => return Requested::Whole,
                },
            };
            if first >= length {
                return Requested::Unsatisfiable;
            }
            Requested::Bytes {
                first,
                last: last.min(length - 1),
            }
        }
    }
}

/// Bytes `first..=last` of the pieces, without copying.
pub fn cut(chunks: Vec<Bytes>, first: u64, last: u64) -> Vec<Bytes> {
    let mut at = 0u64;
    let mut kept = Vec::new();
    for chunk in chunks {
        let end = at + chunk.len() as u64;
        let from = first.max(at);
        let to = (last + 1).min(end);
        if from < to {
            kept.push(chunk.slice((from - at) as usize..(to - at) as usize));
        }
        at = end;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str, length: u64) -> Requested {
        byte_range(&HeaderValue::try_from(text).unwrap(), length)
    }

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        use Requested::*;
        assert_eq!(range("bytes=0-0", 10), Bytes { first: 0, last: 0 });
        assert_eq!(range("bytes=5-", 10), Bytes { first: 5, last: 9 });
        assert_eq!(range("bytes=5-99", 10), Bytes { first: 5, last: 9 });
        assert_eq!(range("bytes=-3", 10), Bytes { first: 7, last: 9 });
        assert_eq!(range("bytes=-30", 10), Bytes { first: 0, last: 9 });
        assert_eq!(range("bytes=10-", 10), Unsatisfiable);
        assert_eq!(range("bytes=-0", 10), Unsatisfiable);
        assert_eq!(range("bytes=-5", 0), Unsatisfiable);
        assert_eq!(range("bytes=99999999999999999999999-", 10), Unsatisfiable);
        for whole in [
            "bytes=5-3",
            "bytes=a-b",
            "items=0-1",
            "bytes=0-1,3-4",
            "bytes=",
            "bytes=-",
        ] {
            assert_eq!(range(whole, 10), Whole, "{whole}");
        }
    }

    #[test]
    fn a_range_across_pieces_is_cut_without_copying() {
        let pieces = vec![
            Bytes::from_static(b"abc"),
            Bytes::from_static(b"defg"),
            Bytes::from_static(b"hi"),
        ];
        let joined = |first, last| cut(pieces.clone(), first, last).concat();
        assert_eq!(joined(0, 8), b"abcdefghi");
        assert_eq!(joined(2, 7), b"cdefgh");
        assert_eq!(joined(3, 3), b"d");
    }

    #[test]
    fn every_answer_can_be_read_across_origins() {
        let asked = Asked {
            method: &Method::GET,
            headers: &HeaderMap::new(),
        };
        for response in [
            playlist(asked, Bytes::from("x"), false, NO_STORE),
            media(asked, vec![], VIDEO_TYPE, HeaderValue::from_static("\"e\"")),
            refusal(StatusCode::NOT_FOUND, "x", "y"),
            method_not_allowed(),
            preflight(),
        ] {
            assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
            assert!(response.headers().contains_key(CACHE_CONTROL));
        }
    }

    /// Over one HTTP/2 connection a playlist must not queue behind the media it announces.
    #[test]
    fn playlists_go_before_media() {
        let asked = Asked {
            method: &Method::GET,
            headers: &HeaderMap::new(),
        };
        let urgency = |response: Response<Body>| response.headers()[PRIORITY].clone();
        assert_eq!(urgency(playlist(asked, Bytes::from("x"), false, NO_STORE)), "u=1");
        let etag = HeaderValue::from_static("\"e\"");
        assert_eq!(urgency(media(asked, vec!["abc".into()], VIDEO_TYPE, etag)), "u=2");
    }

    #[test]
    fn an_unchanged_object_is_not_sent_again() {
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, HeaderValue::from_static("\"a\", W/\"e\""));
        let asked = Asked {
            method: &Method::GET,
            headers: &headers,
        };
        let response = media(asked, vec!["abc".into()], VIDEO_TYPE, HeaderValue::from_static("\"e\""));
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
    }
}
